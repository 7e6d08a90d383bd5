//! On whose behalf a request comes.

use axum::http::HeaderMap;
use isobar_model::Tenant;

/// The header that names the tenant, as Thanos Receive has it by default.
pub const TENANT_HEADER: &str = "THANOS-TENANT";

/// The tenant that the headers name, the default one when they name none.
///
/// # Errors
/// A text for the sender when what the header holds is no tenant's name.
pub fn from_headers(headers: &HeaderMap) -> Result<Tenant, String> {
    let Some(value) = headers.get(TENANT_HEADER).filter(|value| !value.is_empty()) else {
        return Ok(Tenant::default());
    };
    let name = value
        .to_str()
        .map_err(|_| format!("header {TENANT_HEADER} is not plain text"))?;
    Tenant::new(name).map_err(|e| format!("header {TENANT_HEADER}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, expected: Result<&str, &str>) {
        let mut headers = HeaderMap::new();
        headers.insert(TENANT_HEADER, header.parse().unwrap());
        match (from_headers(&headers), expected) {
            (Ok(tenant), Ok(name)) => assert_eq!(tenant.as_str(), name),
            (Err(got), Err(part)) => assert!(got.contains(part), "{got}"),
            (got, _) => panic!("{header:?} gave {got:?}"),
        }
    }

    #[test]
    fn takes_names_and_refuses_paths() {
        check("", Ok("default-tenant"));
        check("team-a", Ok("team-a"));
        check(
            "../etc",
            Err("header THANOS-TENANT: tenant name \"../etc\" is not allowed"),
        );
    }
}
