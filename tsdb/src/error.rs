//! What can go wrong, by what a caller can do about it.

use std::path::{Path, PathBuf};

use isobar_model::SelectError;

/// Where damage lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The name of the block's directory, when it is a file of a block.
    pub block: Option<String>,
    /// The file: as it is called inside of the block, otherwise its path.
    pub file: String,
    /// Where in the file what cannot be read begins, in bytes.
    pub offset: u64,
}

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
        /// Where in which file, when that is known: the same as in the texts, for programs.
        place: Option<Box<Place>>,
    },
    /// The bytes are well-formed but of a kind that is not read yet.
    #[error("{0}")]
    Unsupported(String),
    /// A limit stands in the way; the text names it and its value.
    #[error("{0}")]
    LimitExceeded(String),
    /// A tenant writes more samples a second than it may.
    #[error(
        "the tenant writes more than {limit} samples a second, try again in {retry_after_ms} ms"
    )]
    TooManySamples {
        /// How many it may.
        limit: u64,
        /// When it may go on, in milliseconds from now.
        retry_after_ms: u64,
    },
    /// A tenant is new, and there are as many as there may be.
    #[error("limit reached: there are {limit} tenants or more, new ones are refused")]
    TooManyTenants {
        /// How many there may be.
        limit: u64,
    },
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
            place: None,
        }
    }

    /// A [`Error::Corrupt`] of the file `what` at `offset`, which `why` names too.
    pub fn corrupt_at(what: impl Into<String>, offset: u64, why: impl Into<String>) -> Self {
        let what = what.into();
        let place = Place {
            block: None,
            file: what.clone(),
            offset,
        };
        Error::Corrupt {
            what,
            why: why.into(),
            place: Some(Box::new(place)),
        }
    }

    /// This error as one of the block in `dir`: the place of damage names it, and the file as it is
    /// called inside of it. Damage without a place gets `otherwise`.
    #[must_use]
    pub fn of_block(mut self, dir: &Path, otherwise: Option<(&str, u64)>) -> Self {
        let Error::Corrupt { place, .. } = &mut self else {
            return self;
        };
        if let (None, Some((file, offset))) = (&place, otherwise) {
            *place = Some(Box::new(Place {
                block: None,
                file: file.to_owned(),
                offset,
            }));
        }
        if let Some(place) = place {
            if let Ok(inside) = Path::new(&place.file).strip_prefix(dir) {
                place.file = inside.display().to_string();
            }
            let name = dir
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            place.block = name;
        }
        self
    }

    /// Where damage lies, when this is damage and its place is known.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Error::Corrupt { place, .. } => place.as_deref(),
            _ => None,
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
            Error::Corrupt { what, why, .. } => SelectError::Corrupt(format!("{what}: {why}")),
            Error::Unsupported(text) => SelectError::Unsupported(text),
            Error::LimitExceeded(text) => SelectError::LimitExceeded(text),
            Error::TooManySamples { .. } | Error::TooManyTenants { .. } => {
                SelectError::LimitExceeded(error.to_string())
            }
            Error::Unavailable(text) => SelectError::Unavailable(text),
            Error::Locked { .. } => SelectError::Unavailable(error.to_string()),
            Error::Io { ref source, .. } => SelectError::Unavailable(format!("{error}: {source}")),
        }
    }
}
