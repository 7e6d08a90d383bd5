//! Thanos' `objstore.config`:
//!
//! ```yaml
//! type: S3
//! config:
//!   bucket: metrics
//!   endpoint: s3.eu-west-1.amazonaws.com
//! prefix: cluster-a
//! ```
//!
//! All fields of the types S3, GCS, AZURE and FILESYSTEM are taken, with Thanos' defaults; MEMORY is
//! for tests. A field that is not known is refused with its place. What a field cannot bring about
//! here is said when the store is built, not passed over.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, de::IgnoredAny};

use super::text::{Secret, duration, text};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is no YAML of this form.
    #[error("objstore.config: {0}")]
    Syntax(#[from] serde_yaml_ng::Error),
    /// The type of the store is not known.
    #[error("objstore.config: type {0:?} is not supported; use S3, GCS, AZURE or FILESYSTEM")]
    UnknownType(String),
    /// The provider has no back end of its own here.
    #[error(
        "objstore.config: type {provider} has no back end of its own; it speaks the S3 protocol: \
         use type S3 with endpoint {endpoint}"
    )]
    UseS3 {
        /// Its name in Thanos.
        provider: String,
        /// Where its S3 API is.
        endpoint: &'static str,
    },
    /// Fields contradict each other, or one is missing.
    #[error("objstore.config: {0}")]
    Invalid(String),
}

/// Providers of Thanos without a back end here, and where their S3 API is.
const SPEAK_S3: [(&str, &str); 6] = [
    (
        "SWIFT",
        "of the S3 API of your Swift (middleware s3api), and bucket_lookup_type path",
    ),
    (
        "COS",
        "cos.<region>.myqcloud.com and bucket <name>-<app id>",
    ),
    ("ALIYUNOSS", "oss-<region>.aliyuncs.com"),
    ("BOS", "s3.<region>.bcebos.com"),
    ("OBS", "obs.<region>.myhuaweicloud.com"),
    (
        "OCI",
        "<namespace>.compat.objectstorage.<region>.oraclecloud.com, a customer secret key and \
         bucket_lookup_type path",
    ),
];

/// A bucket, as it is configured.
#[derive(Debug, Clone, PartialEq)]
pub struct BucketConfig {
    /// Where it is.
    pub provider: Provider,
    /// What comes before the names of all objects; empty for nothing.
    pub prefix: String,
    /// When a second request is sent for one that takes long.
    pub hedging: Hedging,
}

/// Where a bucket is.
#[derive(Debug, Clone, PartialEq)]
pub enum Provider {
    /// Whatever speaks the S3 protocol.
    S3(Box<S3Config>),
    /// Google Cloud Storage.
    Gcs(Box<GcsConfig>),
    /// Azure Blob Storage.
    Azure(Box<AzureConfig>),
    /// A directory.
    Filesystem(FilesystemConfig),
    /// The memory of this process.
    Memory,
}

/// When a second request is sent for one that takes long.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hedging {
    /// Whether that is done at all.
    pub enabled: bool,
    /// Most requests for the same thing, the first included.
    pub up_to: u32,
    /// After how long: the quantile (0 to 1) of the times that requests took.
    pub quantile: f64,
}

impl Default for Hedging {
    fn default() -> Self {
        Hedging {
            enabled: false,
            up_to: 3,
            quantile: 0.9,
        }
    }
}

/// Connections to a store.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// How long a connection is kept without a request.
    #[serde(deserialize_with = "duration")]
    pub idle_conn_timeout: Duration,
    /// How long the first byte of an answer may take, and each further piece; 0 for ever.
    #[serde(deserialize_with = "duration")]
    pub response_header_timeout: Duration,
    /// Whether any certificate is good enough.
    pub insecure_skip_verify: bool,
    /// How long the TLS handshake may take.
    #[serde(deserialize_with = "duration")]
    pub tls_handshake_timeout: Duration,
    /// Not used: bodies are sent without asking first.
    #[serde(deserialize_with = "duration")]
    pub expect_continue_timeout: Duration,
    /// Not used: one host has all connections.
    pub max_idle_conns: usize,
    /// Most connections that are kept without a request.
    pub max_idle_conns_per_host: usize,
    /// Most requests at a time; 0 for no bound.
    pub max_conns_per_host: usize,
    /// Certificates.
    pub tls_config: TlsConfig,
    /// Not used: nothing is compressed.
    pub disable_compression: bool,
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig {
            idle_conn_timeout: Duration::from_secs(90),
            response_header_timeout: Duration::from_secs(120),
            insecure_skip_verify: false,
            tls_handshake_timeout: Duration::from_secs(10),
            expect_continue_timeout: Duration::from_secs(1),
            max_idle_conns: 100,
            max_idle_conns_per_host: 100,
            max_conns_per_host: 0,
            tls_config: TlsConfig::default(),
            disable_compression: false,
        }
    }
}

/// Certificates.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// File with the certificates (PEM) that are trusted instead of those of the system.
    #[serde(deserialize_with = "text")]
    pub ca_file: String,
    /// File with the certificate (PEM) of this client.
    #[serde(deserialize_with = "text")]
    pub cert_file: String,
    /// File with the key (PEM) of this client.
    #[serde(deserialize_with = "text")]
    pub key_file: String,
    /// The name that the server's certificate is for; not supported.
    #[serde(deserialize_with = "text")]
    pub server_name: String,
    /// Whether any certificate is good enough.
    pub insecure_skip_verify: bool,
}

/// How the host of a bucket is called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BucketLookup {
    /// By the host for Amazon, Google and Alibaba, by the path for others.
    #[default]
    Auto,
    /// `bucket.host`
    VirtualHosted,
    /// `host/bucket`
    Path,
}

/// Whatever speaks the S3 protocol.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are the switches of the configuration file"
)]
pub struct S3Config {
    /// The name of the bucket.
    #[serde(deserialize_with = "text")]
    pub bucket: String,
    /// Host and port, without scheme.
    #[serde(deserialize_with = "text")]
    pub endpoint: String,
    /// The region that requests are signed for; found in the endpoint, else `us-east-1`.
    #[serde(deserialize_with = "text")]
    pub region: String,
    /// Whether Amazon is talked to by IPv4 only.
    pub disable_dualstack: bool,
    /// Whether credentials come from the environment only.
    pub aws_sdk_auth: bool,
    /// The access key; without it, credentials come from the environment.
    #[serde(deserialize_with = "text")]
    pub access_key: String,
    /// Whether to use HTTP instead of HTTPS.
    pub insecure: bool,
    /// Whether to sign as of old; not supported.
    pub signature_version2: bool,
    /// The secret key.
    pub secret_key: Secret,
    /// The token of a session, with temporary keys.
    pub session_token: Secret,
    /// Metadata of every object that is written; `X-Amz-Storage-Class` is its storage class.
    pub put_user_metadata: BTreeMap<String, String>,
    /// Connections.
    pub http_config: HttpConfig,
    /// Tracing of requests.
    pub trace: TraceConfig,
    /// `v1` or `v2`; always `v2` here.
    #[serde(deserialize_with = "text")]
    pub list_objects_version: String,
    /// How the host of the bucket is called.
    pub bucket_lookup_type: BucketLookup,
    /// Not used: requests are signed with their SHA-256.
    pub send_content_md5: bool,
    /// Whether files are uploaded in one piece whatever their length.
    pub disable_multipart: bool,
    /// Bytes of the pieces of an upload.
    pub part_size: u64,
    /// Encryption by the server.
    pub sse_config: SseConfig,
    /// Where the security token service is.
    #[serde(deserialize_with = "text")]
    pub sts_endpoint: String,
    /// How often a request is tried; 0 for 10 times.
    pub max_retries: usize,
}

impl Default for S3Config {
    fn default() -> Self {
        S3Config {
            bucket: String::new(),
            endpoint: String::new(),
            region: String::new(),
            disable_dualstack: false,
            aws_sdk_auth: false,
            access_key: String::new(),
            insecure: false,
            signature_version2: false,
            secret_key: Secret::default(),
            session_token: Secret::default(),
            put_user_metadata: BTreeMap::new(),
            http_config: HttpConfig::default(),
            trace: TraceConfig::default(),
            list_objects_version: String::new(),
            bucket_lookup_type: BucketLookup::Auto,
            send_content_md5: true,
            disable_multipart: false,
            part_size: 64 << 20,
            sse_config: SseConfig::default(),
            sts_endpoint: String::new(),
            max_retries: 0,
        }
    }
}

/// Tracing of requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TraceConfig {
    /// Whether requests are logged (at level debug).
    pub enable: bool,
}

/// Encryption by the server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SseConfig {
    /// `SSE-S3`, `SSE-KMS`, `SSE-C`, or empty for none.
    #[serde(rename = "type", deserialize_with = "text")]
    pub kind: String,
    /// The key, for `SSE-KMS`.
    #[serde(deserialize_with = "text")]
    pub kms_key_id: String,
    /// What the key is asked for with, for `SSE-KMS`; not supported.
    pub kms_encryption_context: BTreeMap<String, String>,
    /// File with the key of 32 bytes, for `SSE-C`.
    #[serde(deserialize_with = "text")]
    pub encryption_key: String,
}

/// Google Cloud Storage.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GcsConfig {
    /// The name of the bucket.
    #[serde(deserialize_with = "text")]
    pub bucket: String,
    /// The JSON of a service account; without it, credentials come from the environment.
    pub service_account: Secret,
    /// Not used: the API over HTTP is.
    pub use_grpc: bool,
    /// Not used.
    pub grpc_conn_pool_size: u32,
    /// Connections.
    pub http_config: HttpConfig,
    /// Bytes of the pieces of an upload; 0 for 16 MiB.
    pub chunk_size_bytes: u64,
    /// Whether requests are not signed.
    pub no_auth: bool,
    /// How often a request is tried; 0 for 10 times.
    pub max_retries: usize,
}

/// Azure Blob Storage.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AzureConfig {
    /// The tenant of an application, with `client_id` and `client_secret`.
    #[serde(deserialize_with = "text")]
    pub az_tenant_id: String,
    /// The application.
    #[serde(deserialize_with = "text")]
    pub client_id: String,
    /// Its secret.
    pub client_secret: Secret,
    /// The storage account.
    #[serde(deserialize_with = "text")]
    pub storage_account: String,
    /// Its key.
    pub storage_account_key: Secret,
    /// Account, key and endpoint in one.
    pub storage_connection_string: Secret,
    /// Whether a container that is missing is made; not supported.
    pub storage_create_container: bool,
    /// The container.
    #[serde(deserialize_with = "text")]
    pub container: String,
    /// The host behind the name of the account.
    #[serde(deserialize_with = "text")]
    pub endpoint: String,
    /// The managed identity.
    #[serde(deserialize_with = "text")]
    pub user_assigned_id: String,
    /// How often a request is tried; 0 for 3 times.
    pub max_retries: usize,
    /// Retries of reading.
    pub reader_config: AzureReaderConfig,
    /// Retries of requests.
    pub pipeline_config: AzurePipelineConfig,
    /// Connections.
    pub http_config: HttpConfig,
    /// Not used.
    #[serde(deserialize_with = "text")]
    pub msi_resource: String,
}

impl Default for AzureConfig {
    fn default() -> Self {
        AzureConfig {
            az_tenant_id: String::new(),
            client_id: String::new(),
            client_secret: Secret::default(),
            storage_account: String::new(),
            storage_account_key: Secret::default(),
            storage_connection_string: Secret::default(),
            storage_create_container: true,
            container: String::new(),
            endpoint: "blob.core.windows.net".to_owned(),
            user_assigned_id: String::new(),
            max_retries: 0,
            reader_config: AzureReaderConfig::default(),
            pipeline_config: AzurePipelineConfig::default(),
            http_config: HttpConfig::default(),
            msi_resource: String::new(),
        }
    }
}

/// Retries of reading.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AzureReaderConfig {
    /// How often a body that breaks off is asked for again; as often as requests are, here.
    pub max_retry_requests: usize,
}

/// Retries of requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AzurePipelineConfig {
    /// How often a request is tried; 0 for 3 times.
    pub max_tries: usize,
    /// How long one try may take; 0 for the timeout of the connection.
    #[serde(deserialize_with = "duration")]
    pub try_timeout: Duration,
    /// How long to wait before the second try; 0 for 4 s.
    #[serde(deserialize_with = "duration")]
    pub retry_delay: Duration,
    /// How long to wait at most; 0 for 120 s.
    #[serde(deserialize_with = "duration")]
    pub max_retry_delay: Duration,
}

/// A directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilesystemConfig {
    /// Where the objects are, as plain files.
    #[serde(deserialize_with = "text")]
    pub directory: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NoConfig {}

/// The whole file, when only the type matters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    #[serde(rename = "type", deserialize_with = "text")]
    kind: String,
    #[serde(default, rename = "config")]
    _config: IgnoredAny,
    #[serde(default, deserialize_with = "text")]
    prefix: String,
    #[serde(default)]
    hedging_config: Hedging,
}

/// The whole file, when the type is known. Read anew, so that errors name places of the file.
#[derive(Deserialize)]
struct Body<T> {
    #[serde(default)]
    config: Option<T>,
}

impl BucketConfig {
    /// Reads a configuration and checks it.
    ///
    /// # Errors
    /// When it is no such configuration, contradicts itself or names another provider.
    pub fn parse(yaml: &str) -> Result<Self, ConfigError> {
        let head: Head = serde_yaml_ng::from_str(yaml)?;
        let provider = match head.kind.to_uppercase().as_str() {
            "S3" => Provider::S3(Box::new(body(yaml)?)),
            "GCS" => Provider::Gcs(Box::new(body(yaml)?)),
            "AZURE" => Provider::Azure(Box::new(body(yaml)?)),
            "FILESYSTEM" => Provider::Filesystem(body(yaml)?),
            "MEMORY" => {
                let NoConfig {} = body(yaml)?;
                Provider::Memory
            }
            other => return Err(unknown(other, head.kind)),
        };
        provider.check().map_err(ConfigError::Invalid)?;
        Ok(BucketConfig {
            provider,
            prefix: head.prefix.trim_matches('/').to_owned(),
            hedging: head.hedging_config,
        })
    }

    /// A bucket in a directory.
    pub fn filesystem(directory: &std::path::Path) -> Self {
        BucketConfig {
            provider: Provider::Filesystem(FilesystemConfig {
                directory: directory.display().to_string(),
            }),
            prefix: String::new(),
            hedging: Hedging::default(),
        }
    }
}

fn body<T: Default + for<'de> Deserialize<'de>>(yaml: &str) -> Result<T, ConfigError> {
    let body: Body<T> = serde_yaml_ng::from_str(yaml)?;
    Ok(body.config.unwrap_or_default())
}

fn unknown(kind: &str, written: String) -> ConfigError {
    match SPEAK_S3.iter().find(|(provider, _)| *provider == kind) {
        Some((provider, endpoint)) => ConfigError::UseS3 {
            provider: (*provider).to_owned(),
            endpoint,
        },
        None => ConfigError::UnknownType(written),
    }
}

impl Provider {
    fn check(&self) -> Result<(), String> {
        match self {
            Provider::S3(config) => config.check(),
            Provider::Gcs(config) => require(&config.bucket, "no GCS bucket"),
            Provider::Azure(config) => config.check(),
            Provider::Filesystem(config) => {
                require(&config.directory, "no directory for the file system bucket")
            }
            Provider::Memory => Ok(()),
        }
    }
}

fn require(value: &str, otherwise: &str) -> Result<(), String> {
    if value.is_empty() {
        Err(otherwise.to_owned())
    } else {
        Ok(())
    }
}

impl S3Config {
    fn check(&self) -> Result<(), String> {
        require(&self.endpoint, "no s3 endpoint")?;
        require(&self.bucket, "no s3 bucket")?;
        let says = |text: &str| Err(text.to_owned());
        if self.aws_sdk_auth && !self.access_key.is_empty() {
            return says("aws_sdk_auth and access_key exclude each other");
        }
        if self.access_key.is_empty() != self.secret_key.is_empty() {
            return says(
                "access_key and secret_key go together; without both, credentials come from the environment or the role of the instance",
            );
        }
        if self.signature_version2 {
            return says("signature_version2 is not supported; all S3 services take version 4");
        }
        if !["", "v1", "v2"].contains(&self.list_objects_version.as_str()) {
            return Err(format!(
                "list_objects_version {:?} is neither v1 nor v2",
                self.list_objects_version
            ));
        }
        if self.part_size < 5 << 20 {
            return says("part_size is below 5 MiB, the least that S3 allows");
        }
        let sse = &self.sse_config;
        match sse.kind.as_str() {
            "" | "SSE-S3" => Ok(()),
            "SSE-KMS" if sse.kms_key_id.is_empty() => {
                says("sse_config type SSE-KMS needs a kms_key_id")
            }
            "SSE-KMS" if !sse.kms_encryption_context.is_empty() => {
                says("sse_config.kms_encryption_context is not supported")
            }
            "SSE-C" if sse.encryption_key.is_empty() => {
                says("sse_config type SSE-C needs an encryption_key")
            }
            "SSE-KMS" | "SSE-C" => Ok(()),
            other => Err(format!(
                "sse_config type {other:?} is none of SSE-S3, SSE-KMS and SSE-C"
            )),
        }
    }
}

impl AzureConfig {
    fn check(&self) -> Result<(), String> {
        let says = |text: &str| Err(text.to_owned());
        let identity = !self.user_assigned_id.is_empty();
        let (key, connection) = (
            !self.storage_account_key.is_empty(),
            !self.storage_connection_string.is_empty(),
        );
        let application = [
            self.az_tenant_id.is_empty(),
            self.client_id.is_empty(),
            self.client_secret.is_empty(),
        ];
        if identity && key {
            return says("user_assigned_id and storage_account_key exclude each other");
        }
        if identity && connection {
            return says("user_assigned_id and storage_connection_string exclude each other");
        }
        if identity && !self.client_id.is_empty() {
            return says("user_assigned_id and client_id exclude each other");
        }
        if application.contains(&true) && application.contains(&false) {
            return says("az_tenant_id, client_id and client_secret go together");
        }
        if key && connection {
            return says("storage_account_key and storage_connection_string exclude each other");
        }
        require(&self.storage_account, "no storage_account")?;
        require(&self.container, "no container")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_thanos() {
        let config = BucketConfig::parse(
            "type: s3\nconfig:\n  bucket: 7\n  endpoint: localhost:9000\n  access_key: a\n  secret_key: b\n  http_config: {idle_conn_timeout: 1m30s}\nprefix: /a/b/\n",
        )
        .unwrap();
        let expected = S3Config {
            bucket: "7".to_owned(),
            endpoint: "localhost:9000".to_owned(),
            access_key: "a".to_owned(),
            secret_key: serde_yaml_ng::from_str("b").unwrap(),
            ..S3Config::default()
        };
        assert_eq!(config.provider, Provider::S3(Box::new(expected)));
        assert_eq!(config.prefix, "a/b");
        assert_eq!(config.hedging, Hedging::default());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let check = |yaml: &str, expected: &str| {
            let error = BucketConfig::parse(yaml).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("objstore.config: {expected}")),
                "{error}"
            );
        };
        check(
            "type: S3\nconfig:\n  bucket: a\n  bukcet: b\n",
            "config: unknown field `bukcet`, expected one of",
        );
        let error = BucketConfig::parse("type: S3\nconfig:\n  bukcet: b\n").unwrap_err();
        assert!(error.to_string().ends_with("at line 3 column 3"), "{error}");
        check("type: S3\nkonfig: {}", "unknown field `konfig`");
        check("type: S3", "no s3 endpoint");
        check(
            "type: S3\nconfig: {endpoint: a, bucket: b, access_key: x}",
            "access_key and secret_key go together",
        );
        check(
            "type: S3\nconfig: {endpoint: a, bucket: b, sse_config: {type: SSE-X}}",
            "sse_config type \"SSE-X\"",
        );
        check("type: GCS\nconfig: {}", "no GCS bucket");
        check("type: AZURE\nconfig: {storage_account: a}", "no container");
        check(
            "type: AZURE\nconfig: {client_id: a}",
            "az_tenant_id, client_id and client_secret go together",
        );
        check(
            "type: FILESYSTEM\nconfig: {directory: [a]}",
            "config: a text is wanted here",
        );
        check("type: TAPE", "type \"TAPE\" is not supported");
        check(
            "type: ALIYUNOSS\nconfig: {x: y}",
            "type ALIYUNOSS has no back end of its own; it speaks the S3 protocol: use type S3 with endpoint oss-<region>.aliyuncs.com",
        );
        check("", "");
    }

    #[test]
    fn secrets_are_not_printed() {
        let config = BucketConfig::parse(
            "type: S3\nconfig: {endpoint: a, bucket: b, access_key: x, secret_key: sesame}",
        )
        .unwrap();
        assert!(!format!("{config:?}").contains("sesame"));
    }
}
