//! Flags that give a YAML as text or name the file with it: `--<flag>` and `--<flag>-file`, which is how all
//! configurations come in.

use anyhow::{Context, bail};

/// Makes a group of the two flags: its name, the flag, the heading in the help, and what else clap is to
/// know about both. The doc comment is the help of the first.
macro_rules! content_flags {
    ($(#[$doc:meta])+ $name:ident, $flag:literal, $heading:literal $(, $($more:tt)+)?) => {
        /// A YAML as text or in a file.
        #[derive(Debug, Clone, clap::Args)]
        pub(crate) struct $name {
            $(#[$doc])+
            #[arg(
                id = $flag,
                long = $flag,
                value_name = "YAML",
                default_value = "",
                hide_default_value = true,
                help_heading = $heading
                $(, $($more)+)?
            )]
            inline: String,

            /// File with that YAML.
            #[arg(
                id = concat!($flag, "-file"),
                long = concat!($flag, "-file"),
                value_name = "FILE",
                default_value = "",
                hide_default_value = true,
                help_heading = $heading
                $(, $($more)+)?
            )]
            file: String,
        }

        impl $crate::flags::content::ContentFlags for $name {
            const FLAG: &str = $flag;

            fn given(&self) -> (&str, &str) {
                (&self.inline, &self.file)
            }
        }
    };
}
pub(crate) use content_flags;

/// A pair of flags for a YAML.
pub(crate) trait ContentFlags {
    /// What the first is called.
    const FLAG: &str;

    /// The values of both.
    fn given(&self) -> (&str, &str);

    /// The YAML, with `$(NAME)` standing for variables of the environment; none when neither flag is given.
    ///
    /// # Errors
    /// When both are given, the file cannot be read or a variable is not set.
    fn content(&self) -> anyhow::Result<Option<String>> {
        let (inline, file) = self.given();
        content(Self::FLAG, inline, file)
    }

    /// Says in the log that there is no effect, when one of them is given.
    fn without_effect(&self, why: &str) {
        if self.given() != ("", "") {
            tracing::warn!(flag = Self::FLAG, why, "a flag has no effect");
        }
    }
}

/// Whether a flag holds a YAML, which may hold keys.
pub(crate) fn is_inline(flag: &str, has: impl Fn(&str) -> bool) -> bool {
    has(&format!("{flag}-file"))
}

fn content(flag: &str, inline: &str, file: &str) -> anyhow::Result<Option<String>> {
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
}
