//! The HTTP API as a client sees it.

mod contract;
mod explain;
mod fixture;
mod ha;
mod ha_window;
mod hostile;
mod quick;
mod requests;
mod running;
