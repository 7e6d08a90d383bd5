//! A database on a local disk as a store.
