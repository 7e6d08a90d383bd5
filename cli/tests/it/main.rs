//! Stories about the whole program: the binary as a process, real peers beside it.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails with the place"
)]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

mod acceptance;
mod admin;
mod archive;
mod components;
mod crash;
mod faults;
mod generated;
mod harness;
mod hostile;
mod http;
mod import;
mod kinds;
mod late;
mod limits;
mod peers;
mod shipping;
mod sidecar;
mod standalone;
mod store;
mod story;
mod tls;
