//! Range functions against a naive model.
