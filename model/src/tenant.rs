//! Tenants: who a series belongs to.

use std::fmt;
use std::sync::Arc;

/// The tenant of requests that name none, and of blocks that carry no tenant
/// (Thanos `--receive.default-tenant-id`).
pub const DEFAULT_TENANT: &str = "default-tenant";

/// The most bytes that a tenant's name may have.
pub const TENANT_BYTES_MAX: usize = 150;

/// The name of a tenant. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(Arc<str>);

/// Why a text is no tenant's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TenantError {
    /// The name is empty.
    #[error("tenant name is empty")]
    Empty,
    /// The name is longer than [`TENANT_BYTES_MAX`].
    #[error("tenant name has {0} bytes, more than {TENANT_BYTES_MAX}")]
    TooLong(usize),
    /// The name could be taken for a path, or does not print.
    #[error(
        "tenant name {0:?} is not allowed: it is \".\" or \"..\", or holds a slash, a backslash or a control character"
    )]
    NotAllowed(String),
}

impl Tenant {
    /// A tenant by name.
    ///
    /// # Errors
    /// When the name is empty, too long, or could be taken for a path.
    pub fn new(name: &str) -> Result<Self, TenantError> {
        if name.is_empty() {
            return Err(TenantError::Empty);
        }
        if name.len() > TENANT_BYTES_MAX {
            return Err(TenantError::TooLong(name.len()));
        }
        let path_like = name == "." || name == "..";
        if path_like
            || name
                .chars()
                .any(|c| c == '/' || c == '\\' || c.is_control())
        {
            return Err(TenantError::NotAllowed(name.to_owned()));
        }
        Ok(Tenant(Arc::from(name)))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The tenant of those who name none.
impl Default for Tenant {
    fn default() -> Self {
        Tenant(Arc::from(DEFAULT_TENANT))
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_could_be_a_path() {
        for name in ["", ".", "..", "a/b", "a\\b", "a\nb", &"x".repeat(151)] {
            assert!(Tenant::new(name).is_err(), "{name:?}");
        }
        assert_eq!(Tenant::new("team-a.eu").unwrap().to_string(), "team-a.eu");
        assert_eq!(Tenant::default().as_str(), DEFAULT_TENANT);
    }
}
