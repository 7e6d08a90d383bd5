//! `--objstore.config` and `--objstore.config-file`: where the bucket is.

use anyhow::{Context, bail};
use clap::Args;
use isobar_store::bucket::BucketConfig;

/// A YAML given as text or in a file, with `$(NAME)` standing for variables of the environment.
///
/// # Errors
/// When both are given, the file cannot be read or a variable is not set.
pub(crate) fn content(
    flag: &str,
    inline: Option<&str>,
    file: Option<&str>,
) -> anyhow::Result<Option<String>> {
    let (inline, file) = (inline.unwrap_or(""), file.unwrap_or(""));
    let text = match (inline, file) {
        ("", "") => return Ok(None),
        (text, "") => text.to_owned(),
        ("", file) => {
            std::fs::read_to_string(file).with_context(|| format!("--{flag}-file={file}"))?
        }
        _ => bail!("--{flag} and --{flag}-file are both given"),
    };
    let text = substituted(&text, &|name| std::env::var(name).ok());
    text.map(Some).with_context(|| format!("--{flag}"))
}

/// `$(NAME)` replaced by the variable.
fn substituted(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("$(") {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let inside = &after[2..];
        let name = inside
            .find(')')
            .map(|end| &inside[..end])
            .filter(|name| is_name(name));
        match name {
            Some(name) => {
                let value = variable(name);
                out.push_str(&value.with_context(|| {
                    format!("found reference to unset environment variable {name:?}")
                })?);
                rest = &inside[name.len() + 1..];
            }
            None => {
                out.push_str("$(");
                rest = inside;
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The bucket of a component.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Bucket")]
pub(crate) struct BucketFlags {
    /// YAML that says where the bucket is, as Thanos has it: `type` is S3, GCS, AZURE or FILESYSTEM.
    #[arg(long = "objstore.config", value_name = "YAML")]
    pub(crate) config: Option<String>,

    /// File with that YAML.
    #[arg(long = "objstore.config-file", value_name = "FILE")]
    pub(crate) config_file: Option<String>,
}

impl BucketFlags {
    /// What the YAML says; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read or makes no sense.
    pub(crate) fn read(&self) -> anyhow::Result<Option<BucketConfig>> {
        let flag = "objstore.config";
        let text = content(flag, self.config.as_deref(), self.config_file.as_deref())?;
        // The error names the flag.
        Ok(text.map(|text| BucketConfig::parse(&text)).transpose()?)
    }

    /// The flags with their values. The configuration may hold keys and is not shown.
    pub(crate) fn listed(&self) -> [(&'static str, String); 2] {
        let config = self.config.as_ref().map_or("", |_| "<secret>");
        let file = self.config_file.clone().unwrap_or_default();
        [
            ("objstore.config", config.to_owned()),
            ("objstore.config-file", file),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let variable = |name: &str| (name == "SECRET").then(|| "s3cr$(x".to_owned());
            let got = substituted(text, &variable);
            assert_eq!(
                got.map_err(|e| e.to_string()),
                expected.map(str::to_owned).map_err(str::to_owned)
            );
        };
        check("a: $(SECRET), b", Ok("a: s3cr$(x, b"));
        check("$( SECRET) $() $(A-B) $(", Ok("$( SECRET) $() $(A-B) $("));
        check(
            "$(NONE)",
            Err("found reference to unset environment variable \"NONE\""),
        );
    }

    #[test]
    fn text_and_file_exclude_each_other() {
        let flags = |config: &str, file: &str| BucketFlags {
            config: Some(config.to_owned()),
            config_file: Some(file.to_owned()),
        };
        assert!(flags("", "").read().expect("nothing").is_none());
        assert!(
            flags("type: MEMORY", "")
                .read()
                .expect("a bucket")
                .is_some()
        );
        let both = flags("type: MEMORY", "x").read().expect_err("both");
        assert!(both.to_string().contains("both given"), "{both}");
        let wrong = flags("type: NFS", "").read().expect_err("unknown");
        assert!(
            format!("{wrong:#}").starts_with("objstore.config: "),
            "{wrong:#}"
        );
    }
}
