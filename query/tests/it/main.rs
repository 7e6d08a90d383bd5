//! The HTTP API as a client sees it.

mod contract;
mod fixture;
mod hostile;
mod requests;
mod running;
