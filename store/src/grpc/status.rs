//! Errors as gRPC statuses: the one place that knows which code stands for what.

use tonic::{Code, Status};

use crate::StoreError;

/// The status of an error. Codes are those that Thanos gives where it gives a fitting one: the caller's
/// fault is `InvalidArgument`, a limit `ResourceExhausted`, bytes that cannot be read `Aborted`.
pub fn status(error: &StoreError) -> Status {
    let code = match error {
        StoreError::Invalid(_) => Code::InvalidArgument,
        StoreError::Corrupt(_) => Code::Aborted,
        StoreError::Unsupported(_) => Code::Unimplemented,
        StoreError::LimitExceeded(_) => Code::ResourceExhausted,
        StoreError::Unavailable(_) => Code::Unavailable,
        StoreError::Cancelled => Code::Cancelled,
    };
    Status::new(code, error.to_string())
}
