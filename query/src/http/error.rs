//! Errors as the API tells them: a type from Prometheus' list, its status code and a text.

use axum::http::StatusCode;

use crate::engine::QueryError;
use isobar_store::StoreError;
use isobar_store::compute::ComputeError;

/// The `errorType` of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorType {
    BadData,
    Execution,
    Canceled,
    Timeout,
    Internal,
    Unavailable,
    /// Switched off, which Prometheus answers as an error of its own.
    Disabled,
}

impl ErrorType {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            ErrorType::BadData => "bad_data",
            ErrorType::Execution => "execution",
            ErrorType::Canceled => "canceled",
            ErrorType::Timeout => "timeout",
            ErrorType::Internal => "internal",
            ErrorType::Unavailable | ErrorType::Disabled => "unavailable",
        }
    }

    /// The status code. 499, which no standard knows, says that the client was gone first.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            ErrorType::BadData => StatusCode::BAD_REQUEST,
            ErrorType::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorType::Canceled => {
                StatusCode::from_u16(499).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
            }
            ErrorType::Timeout | ErrorType::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorType::Internal | ErrorType::Disabled => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// A request that cannot be answered.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) kind: ErrorType,
    pub(crate) text: String,
}

impl ApiError {
    pub(crate) fn new(kind: ErrorType, text: impl Into<String>) -> Self {
        ApiError {
            kind,
            text: text.into(),
        }
    }

    pub(crate) fn bad_data(text: impl Into<String>) -> Self {
        ApiError::new(ErrorType::BadData, text)
    }

    /// A parameter whose value is refused.
    pub(crate) fn parameter(name: &str, why: impl std::fmt::Display) -> Self {
        ApiError::bad_data(format!("invalid parameter \"{name}\": {why}"))
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        let kind = match &error {
            QueryError::Invalid(why) => return ApiError::parameter("query", why),
            QueryError::Execution(_) => ErrorType::Execution,
            QueryError::Timeout(_) => ErrorType::Timeout,
            QueryError::Canceled(_) => ErrorType::Canceled,
            QueryError::Unavailable(_) => ErrorType::Unavailable,
            QueryError::Internal(_) => ErrorType::Internal,
        };
        ApiError::new(kind, error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::Corrupt(_) | StoreError::Unsupported(_) | StoreError::LimitExceeded(_) => {
                ErrorType::Execution
            }
            StoreError::Invalid(_) => ErrorType::BadData,
            StoreError::Unavailable(_) => ErrorType::Unavailable,
            StoreError::Cancelled => ErrorType::Canceled,
        };
        ApiError::new(kind, error.to_string())
    }
}

impl From<ComputeError> for ApiError {
    fn from(error: ComputeError) -> Self {
        let kind = match error {
            ComputeError::QueueFull | ComputeError::Closed => ErrorType::Unavailable,
            ComputeError::Panicked => ErrorType::Internal,
        };
        ApiError::new(kind, error.to_string())
    }
}
