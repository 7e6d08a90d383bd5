//! What can go wrong, by what a caller can do about it.

use std::path::PathBuf;

use isobar_model::SelectError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Bytes do not follow their format. The text names the thing, the place in it and the rule.
    #[error("corrupt {what}: {why}")]
    Corrupt {
        /// The file, block or structure.
        what: String,
        /// The offset and the rule that is broken.
        why: String,
    },
    /// The bytes are well-formed but of a kind that is not read yet.
    #[error("{0}")]
    Unsupported(String),
    /// A limit stands in the way; the text names it and its value.
    #[error("{0}")]
    LimitExceeded(String),
    /// The directory is in use by another process.
    #[error("{path} is in use by another process")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// An operation on a file failed.
    #[error("{action} {path}")]
    Io {
        /// What was being done, in the present tense: `open`, `write`, `sync`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The database is shutting down or its log cannot be written at present.
    #[error("{0}")]
    Unavailable(String),
}

impl Error {
    /// A [`Error::Corrupt`].
    pub fn corrupt(what: impl Into<String>, why: impl Into<String>) -> Self {
        Error::Corrupt {
            what: what.into(),
            why: why.into(),
        }
    }

    /// Wraps an I/O error with what was being done to which file.
    pub fn io(action: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Error::Io {
            action,
            path: path.into(),
            source,
        }
    }
}

/// What a query is told.
impl From<Error> for SelectError {
    fn from(error: Error) -> Self {
        match error {
            Error::Corrupt { what, why } => SelectError::Corrupt(format!("{what}: {why}")),
            Error::Unsupported(text) => SelectError::Unsupported(text),
            Error::LimitExceeded(text) => SelectError::LimitExceeded(text),
            Error::Unavailable(text) => SelectError::Unavailable(text),
            Error::Locked { .. } => SelectError::Unavailable(error.to_string()),
            Error::Io { ref source, .. } => SelectError::Unavailable(format!("{error}: {source}")),
        }
    }
}
