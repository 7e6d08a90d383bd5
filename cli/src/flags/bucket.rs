//! `--objstore.config` and `--objstore.config-file`: where the bucket is.

use isobar_store::bucket::BucketConfig;

use super::content::{ContentFlags, content_flags};

content_flags! {
    /// YAML that says where the bucket is, as Thanos has it: `type` is S3, GCS, AZURE or FILESYSTEM.
    BucketFlags, "objstore.config", "Bucket"
}

impl BucketFlags {
    /// What the YAML says; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read or makes no sense.
    pub(crate) fn read(&self) -> anyhow::Result<Option<BucketConfig>> {
        let text = self.content()?;
        // The error names the flag.
        Ok(text.map(|text| BucketConfig::parse(&text)).transpose()?)
    }

    /// The flags with their values. The configuration may hold keys and is not shown.
    pub(crate) fn listed(&self) -> [(&'static str, String); 2] {
        let config = if self.inline.is_empty() {
            ""
        } else {
            "<secret>"
        };
        [
            ("objstore.config", config.to_owned()),
            ("objstore.config-file", self.file.clone()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_file_exclude_each_other() {
        let flags = |config: &str, file: &str| BucketFlags {
            inline: config.to_owned(),
            file: file.to_owned(),
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
