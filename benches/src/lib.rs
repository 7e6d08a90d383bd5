//! Measures Isobar beside its peers: seeded data, real servers on loopback, one table of figures.
//!
//! In reading order: [`data`] makes the series, [`encode`] turns them into remote write requests,
//! [`server`] starts and measures one server, [`client`] feeds and asks it, [`queries`] is the fixed
//! set of questions, [`dashboards`] another, [`answer`] compares what two servers say, [`report`] prints the table. The program
//! that puts them together is `versus`.
//!
//! `endurance` feeds a server for hours of data time, with those series or with native [`histograms`].
//!
//! For the engine alone there are the data ([`sets`]) and the queries ([`cases`]) with which Prometheus
//! measures its own, asked of servers and of the engine in this process ([`inside`]), and watched by
//! [`probe`]. Their program is `cases`. Nothing depends on this crate.

pub mod answer;
pub mod cases;
pub mod client;
pub mod dashboards;
pub mod data;
pub mod encode;
pub mod histograms;
pub mod host;
pub mod inside;
pub mod probe;
pub mod queries;
pub mod report;
pub mod server;
pub mod sets;
