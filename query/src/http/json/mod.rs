//! Answers as JSON, in Prometheus' exact layout. [`answer`] writes a whole answer piece by piece;
//! `histogram`, [`number`] and [`text`] lay out what it consists of.

pub(crate) mod answer;
mod histogram;
pub(crate) mod number;
mod room;
pub(crate) mod text;
