//! Thanos' YAML for the index cache. What is cached here are pages of blocks, so only its size counts.

use serde::Deserialize;
use serde_yaml_ng::Value;

/// The size when the YAML does not say, as in Thanos.
const MAX_SIZE_DEFAULT: u64 = 250 << 20;

/// What the YAML says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexCacheConfig {
    /// Bytes in memory.
    pub max_size_bytes: u64,
    /// Fields that have no effect here.
    pub remarks: Vec<String>,
}

/// Why the YAML cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheConfigError {
    /// It is no YAML of this form.
    #[error("{0}")]
    Syntax(#[from] serde_yaml_ng::Error),
    /// It says something that makes no sense, or that is not there.
    #[error("{0}")]
    Invalid(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    config: Option<Value>,
    #[serde(default)]
    enabled_items: Option<Vec<String>>,
    #[serde(default)]
    ttl: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct InMemory {
    max_size: Option<Size>,
    max_item_size: Option<Size>,
}

/// A number, or a text such as `250MB`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Bytes(u64),
    Text(String),
}

impl Size {
    fn bytes(&self) -> Result<u64, CacheConfigError> {
        let text = match self {
            Size::Bytes(bytes) => return Ok(*bytes),
            Size::Text(text) => text,
        };
        let wrong = || CacheConfigError::Invalid(format!("{text:?} is no size such as 250MB"));
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let power = match unit.to_ascii_uppercase().as_str() {
            "" | "B" => 0,
            "KB" | "KIB" => 1,
            "MB" | "MIB" => 2,
            "GB" | "GIB" => 3,
            "TB" | "TIB" => 4,
            _ => return Err(wrong()),
        };
        number.checked_mul(1 << (10 * power)).ok_or_else(wrong)
    }
}

impl IndexCacheConfig {
    /// Reads the YAML.
    ///
    /// # Errors
    /// When it is none of this form, or names a cache that is not there.
    pub fn parse(yaml: &str) -> Result<Self, CacheConfigError> {
        let whole: Whole = serde_yaml_ng::from_str(yaml)?;
        match whole.kind.to_uppercase().as_str() {
            "IN-MEMORY" => {}
            kind @ ("MEMCACHED" | "REDIS") => {
                let text = format!(
                    "type {kind} is not there yet; pages of blocks are cached in memory and on disk: use IN-MEMORY"
                );
                return Err(CacheConfigError::Invalid(text));
            }
            kind => {
                let text = format!("type {kind} is unknown; it is IN-MEMORY, MEMCACHED or REDIS");
                return Err(CacheConfigError::Invalid(text));
            }
        }
        let config = match whole.config {
            None | Some(Value::Null) => InMemory::default(),
            Some(value) => serde_yaml_ng::from_value(value)?,
        };
        let mut remarks = Vec::new();
        for (is_set, field) in [
            (config.max_item_size.is_some(), "max_item_size"),
            (whole.enabled_items.is_some(), "enabled_items"),
            (whole.ttl.is_some(), "ttl"),
        ] {
            if is_set {
                remarks.push(format!("{field} has no effect: pages of blocks are cached"));
            }
        }
        let max_size = config
            .max_size
            .map_or(Ok(MAX_SIZE_DEFAULT), |it| it.bytes())?;
        Ok(IndexCacheConfig {
            max_size_bytes: max_size,
            remarks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_thanos_takes() {
        let check = |yaml: &str, expected: Result<u64, &str>| match (
            IndexCacheConfig::parse(yaml),
            expected,
        ) {
            (Ok(config), Ok(bytes)) => assert_eq!(config.max_size_bytes, bytes, "{yaml}"),
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (got, _) => panic!("{yaml}: {got:?}"),
        };
        check("type: IN-MEMORY", Ok(250 << 20));
        check(
            "type: in-memory\nconfig: {max_size: 1GB, max_item_size: 125MB}",
            Ok(1 << 30),
        );
        check(
            "type: IN-MEMORY\nconfig: {max_size: 1024}\nttl: 24h",
            Ok(1024),
        );
        check("type: IN-MEMORY\nconfig: {max_size: lots}", Err("no size"));
        check("type: IN-MEMORY\nconfig: {size: 1}", Err("unknown field"));
        check(
            "type: MEMCACHED\nconfig: {addresses: [x]}",
            Err("not there yet"),
        );
        check("type: PAPER", Err("unknown"));
        check("]", Err(""));
    }
}
