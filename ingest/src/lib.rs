//! Every way samples come in.
//!
//! [`remote_write`] is Prometheus' remote write over HTTP. [`local`] takes samples from inside the
//! process. Both end in [`isobar_tsdb::db::Db::append`], and neither acknowledges before the log
//! is on disk. [`tenant`] says on whose behalf a request comes.
//!
//! [`sidecar`] stands beside a Prometheus and takes nothing in: it passes on what that has.

pub mod local;
pub mod remote_write;
pub mod sidecar;
pub mod tenant;
