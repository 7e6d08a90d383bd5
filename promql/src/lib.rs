//! Parses a PromQL query, says which series it needs, and evaluates it over them.
//!
//! In reading order: [`parse`] turns text into an AST with positions; [`plan`] turns the AST into
//! a logical plan and lists its selects; [`eval`] evaluates the plan in tiles over a
//! [`isobar_model::SeriesSource`]; [`functions`] holds what is computed per series, without
//! knowing how tiles flow; [`value`] is what comes out; [`limits`] bounds it; [`features`] are the
//! parts of the language that can be switched.
//!
//! This crate is synchronous and knows no files, no network and no chunk encoding.

pub mod parse;

pub mod plan;

pub mod eval;

pub mod features;
pub mod functions;
pub mod limits;
mod stack;
pub mod value;
