//! Makes an object store of a configuration. No request is sent yet.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};
use object_store::limit::LimitStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, RetryConfig, StaticCredentialProvider,
};

use super::attributes::Attributed;
use super::config::{
    AzureConfig, BucketConfig, BucketLookup, GcsConfig, Hedging, HttpConfig, Provider, S3Config,
};
use super::credentials::{self, Environment};
use super::filesystem::Filesystem;
use super::http::{Connector, HttpError};
use super::normal::Normal;

/// A request is not tried again when the first try is longer ago than that.
const RETRY_TIMEOUT: Duration = Duration::from_secs(180);
/// How often a request is tried when the configuration does not say.
const TRIES_DEFAULT: usize = 10;

/// Why no store can be made of a configuration.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The client refuses it.
    #[error("objstore.config: {0}")]
    Store(#[from] object_store::Error),
    /// Connections cannot be made as it says.
    #[error("objstore.config: {0}")]
    Http(#[from] HttpError),
    /// A file or directory that it names cannot be used.
    #[error("objstore.config: {path}: {source}")]
    Io {
        /// Which one.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It says something that makes no sense.
    #[error("objstore.config: {0}")]
    Invalid(String),
}

/// A bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// The objects, without the prefix of the configuration.
    pub store: Arc<dyn ObjectStore>,
    /// What it is called in metrics and logs.
    pub name: String,
    /// Bytes of the pieces in which files are uploaded; `None` when they go as a whole.
    pub part_bytes: Option<u64>,
    /// Fields of the configuration that have no effect here.
    pub remarks: Vec<String>,
}

/// Fields without effect.
struct Remarks(Vec<String>);

impl Remarks {
    fn when(&mut self, set: bool, text: &str) {
        if set {
            self.0.push(text.to_owned());
        }
    }
}

impl Bucket {
    /// Makes the store. `environment` reads variables of the environment.
    ///
    /// # Errors
    /// When files cannot be read or fields do not fit.
    pub fn new(config: &BucketConfig, environment: Environment<'_>) -> Result<Self, BuildError> {
        let mut remarks = Remarks(Vec::new());
        let hedging = &config.hedging;
        let (store, name, part_bytes) = match &config.provider {
            Provider::S3(s3) => {
                remarks.when(
                    s3.list_objects_version == "v1",
                    "list_objects_version v1 has no effect: v2 is used",
                );
                remarks.when(s3.trace.enable, "trace has no effect");
                let part_bytes = (!s3.disable_multipart).then_some(s3.part_size);
                let store = limited(s3_store(s3, hedging, environment)?, &s3.http_config);
                let store = match s3.put_user_metadata.is_empty() {
                    true => store,
                    false => Arc::new(Attributed::new(store, &s3.put_user_metadata)),
                };
                (store, s3.bucket.clone(), part_bytes)
            }
            Provider::Gcs(gcs) => {
                remarks.when(gcs.use_grpc, "use_grpc has no effect: the HTTP API is used");
                let part_bytes = match gcs.chunk_size_bytes {
                    0 => 16 << 20,
                    bytes => bytes.max(5 << 20),
                };
                let store = Normal::of_ends(gcs_store(gcs, hedging, environment)?);
                let store = limited(store, &gcs.http_config);
                (store, gcs.bucket.clone(), Some(part_bytes))
            }
            Provider::Azure(azure) => {
                remarks.when(!azure.msi_resource.is_empty(), "msi_resource has no effect");
                let store = limited(
                    Normal::new(azure_store(azure, hedging)?),
                    &azure.http_config,
                );
                (store, azure.container.clone(), Some(16 << 20))
            }
            Provider::Filesystem(files) => {
                let directory = std::path::Path::new(&files.directory);
                // A slip in the name would otherwise look like a bucket without blocks.
                let remark = format!(
                    "directory {} of the bucket did not exist; it was made and holds no blocks",
                    files.directory
                );
                remarks.when(!directory.exists(), &remark);
                let store = Arc::new(Filesystem::new(directory)?) as Arc<dyn ObjectStore>;
                (store, format!("fs: {}", files.directory), Some(16 << 20))
            }
            Provider::Memory => (
                Arc::new(InMemory::new()) as Arc<dyn ObjectStore>,
                "inmem".to_owned(),
                Some(16 << 20),
            ),
        };
        let store = match config.prefix.as_str() {
            "" => store,
            prefix => {
                let prefix = Path::parse(prefix).map_err(object_store::Error::from)?;
                Arc::new(PrefixStore::new(store, prefix))
            }
        };
        Ok(Bucket {
            store,
            name,
            part_bytes,
            remarks: remarks.0,
        })
    }
}

fn limited<S: ObjectStore>(store: S, http: &HttpConfig) -> Arc<dyn ObjectStore> {
    match http.max_conns_per_host {
        0 => Arc::new(store),
        max => Arc::new(LimitStore::new(store, max)),
    }
}

/// Requests are tried again after errors of the server and of the connection, with growing
/// pauses; `tries` counts the first one, too.
fn retries(tries: usize) -> RetryConfig {
    let tries = if tries == 0 { TRIES_DEFAULT } else { tries };
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: tries - 1,
        retry_timeout: RETRY_TIMEOUT,
    }
}

fn s3_store(
    config: &S3Config,
    hedging: &Hedging,
    environment: Environment<'_>,
) -> Result<object_store::aws::AmazonS3, BuildError> {
    let var = |name: &str| credentials::first(environment, &[name]);
    let region = [
        config.region.clone(),
        region_of(&config.endpoint).to_owned(),
    ]
    .into_iter()
    .find(|region| !region.is_empty())
    .or_else(|| var("AWS_REGION"))
    .unwrap_or_else(|| "us-east-1".to_owned());
    let host = host_of(config, &region);
    let scheme = if config.insecure { "http" } else { "https" };
    let hosted = is_hosted(config, &host);
    let endpoint = match hosted {
        true => format!("{scheme}://{}.{host}", config.bucket),
        false => format!("{scheme}://{host}"),
    };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&config.bucket)
        .with_region(region)
        .with_endpoint(endpoint)
        .with_virtual_hosted_style_request(hosted)
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .with_http_connector(Connector::new(&config.http_config, hedging)?)
        .with_retry(retries(config.max_retries));
    if !config.access_key.is_empty() {
        builder = builder
            .with_access_key_id(&config.access_key)
            .with_secret_access_key(config.secret_key.expose());
        if !config.session_token.is_empty() {
            builder = builder.with_token(config.session_token.expose());
        }
    } else if let Some(keys) = credentials::aws_keys(environment) {
        builder = builder
            .with_access_key_id(keys.access)
            .with_secret_access_key(keys.secret);
        if let Some(token) = keys.token {
            builder = builder.with_token(token);
        }
    } else {
        builder = with_role(builder, config, &var);
    }
    Ok(with_encryption(builder, config)?.build()?)
}

/// Credentials of the role that the process has: a token of the cluster, of the container, or of
/// the instance.
fn with_role(
    mut builder: AmazonS3Builder,
    config: &S3Config,
    var: &dyn Fn(&str) -> Option<String>,
) -> AmazonS3Builder {
    use AmazonS3ConfigKey as Key;
    let keys = [
        (Key::WebIdentityTokenFile, "AWS_WEB_IDENTITY_TOKEN_FILE"),
        (Key::RoleArn, "AWS_ROLE_ARN"),
        (Key::RoleSessionName, "AWS_ROLE_SESSION_NAME"),
        (
            Key::ContainerCredentialsRelativeUri,
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        ),
        (
            Key::ContainerCredentialsFullUri,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        ),
        (
            Key::ContainerAuthorizationTokenFile,
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        ),
        (Key::StsEndpoint, "AWS_ENDPOINT_URL_STS"),
    ];
    for (key, name) in keys {
        if let Some(value) = var(name) {
            builder = builder.with_config(key, value);
        }
    }
    if !config.sts_endpoint.is_empty() {
        builder = builder.with_config(Key::StsEndpoint, &config.sts_endpoint);
    }
    builder.with_imdsv1_fallback()
}

fn with_encryption(
    builder: AmazonS3Builder,
    config: &S3Config,
) -> Result<AmazonS3Builder, BuildError> {
    let sse = &config.sse_config;
    Ok(match sse.kind.as_str() {
        "SSE-S3" => builder.with_config("aws_server_side_encryption".parse()?, "AES256"),
        "SSE-KMS" => builder.with_sse_kms_encryption(&sse.kms_key_id),
        "SSE-C" => {
            let path = &sse.encryption_key;
            let key = std::fs::read(path).map_err(|source| BuildError::Io {
                path: path.clone(),
                source,
            })?;
            if key.len() != 32 {
                let len = key.len();
                let text =
                    format!("sse_config.encryption_key {path} has {len} bytes instead of 32");
                return Err(BuildError::Invalid(text));
            }
            builder.with_ssec_encryption(base64::engine::general_purpose::STANDARD.encode(key))
        }
        _ => builder,
    })
}

/// The region in a host of Amazon: `s3.eu-west-1.amazonaws.com`.
fn region_of(host: &str) -> &str {
    let Some(name) = host
        .strip_suffix(".amazonaws.com")
        .or_else(|| host.strip_suffix(".amazonaws.com.cn"))
    else {
        return "";
    };
    let region = name
        .strip_prefix("s3.dualstack.")
        .or_else(|| name.strip_prefix("s3."))
        .or_else(|| name.strip_prefix("s3-"));
    region.unwrap_or("")
}

/// Amazon's own host is replaced by that of the region, and by the one with IPv6 if wanted.
fn host_of(config: &S3Config, region: &str) -> String {
    let endpoint = config.endpoint.as_str();
    let end = if endpoint.ends_with(".cn") {
        "amazonaws.com.cn"
    } else {
        "amazonaws.com"
    };
    let own = [format!("s3.{end}"), format!("s3.{region}.{end}")];
    match (
        own.iter().any(|host| host == endpoint),
        config.disable_dualstack,
    ) {
        (true, false) => format!("s3.dualstack.{region}.{end}"),
        (true, true) => format!("s3.{region}.{end}"),
        (false, _) => endpoint.to_owned(),
    }
}

fn is_hosted(config: &S3Config, host: &str) -> bool {
    match config.bucket_lookup_type {
        BucketLookup::VirtualHosted => true,
        BucketLookup::Path => false,
        BucketLookup::Auto => {
            // The certificate of Amazon is for one name below the host.
            let dots = config.bucket.contains('.') && !config.insecure;
            let ends = [
                "amazonaws.com",
                "amazonaws.com.cn",
                "aliyuncs.com",
                "googleapis.com",
            ];
            !dots && ends.iter().any(|end| host.ends_with(end))
        }
    }
}

fn gcs_store(
    config: &GcsConfig,
    hedging: &Hedging,
    environment: Environment<'_>,
) -> Result<object_store::gcp::GoogleCloudStorage, BuildError> {
    let var = |name: &str| credentials::first(environment, &[name]);
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&config.bucket)
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .with_http_connector(Connector::new(&config.http_config, hedging)?)
        .with_retry(retries(config.max_retries));
    let emulator = var("STORAGE_EMULATOR_HOST");
    if config.no_auth || emulator.is_some() {
        // Writing asks for a token even where requests are not signed.
        let none = StaticCredentialProvider::new(GcpCredential {
            bearer: String::new(),
        });
        builder = builder
            .with_skip_signature(true)
            .with_credentials(Arc::new(none));
    }
    if let Some(host) = emulator {
        let url = if host.contains("://") {
            host
        } else {
            format!("http://{host}")
        };
        builder = builder.with_base_url(&url);
    }
    if !config.service_account.is_empty() {
        builder = builder.with_service_account_key(config.service_account.expose());
    } else if let Some(path) = var("GOOGLE_APPLICATION_CREDENTIALS") {
        builder = builder.with_application_credentials(path);
    }
    Ok(builder.build()?)
}

fn azure_store(
    config: &AzureConfig,
    hedging: &Hedging,
) -> Result<object_store::azure::MicrosoftAzure, BuildError> {
    let connection = credentials::azure_connection(&config.storage_connection_string);
    let account = connection
        .account
        .as_deref()
        .unwrap_or(&config.storage_account);
    let endpoint = connection
        .endpoint
        .unwrap_or_else(|| format!("https://{account}.{}", config.endpoint));
    let pipeline = &config.pipeline_config;
    let tries = [pipeline.max_tries, config.max_retries, 3];
    let mut retry = retries(tries.into_iter().find(|n| *n > 0).unwrap_or(3));
    if !pipeline.retry_delay.is_zero() {
        retry.backoff.init_backoff = pipeline.retry_delay;
    }
    if !pipeline.max_retry_delay.is_zero() {
        retry.backoff.max_backoff = pipeline.max_retry_delay;
    }
    let mut http = config.http_config.clone();
    if !pipeline.try_timeout.is_zero() {
        http.response_header_timeout = pipeline.try_timeout;
    }
    // Tokens of the cluster's or machine's identity come from the environment.
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_account(account)
        .with_container_name(&config.container)
        .with_endpoint(endpoint)
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .with_http_connector(Connector::new(&http, hedging)?)
        .with_retry(retry);
    let key = connection
        .key
        .as_deref()
        .unwrap_or(config.storage_account_key.expose());
    if !key.is_empty() {
        builder = builder.with_access_key(key);
    } else if !config.client_id.is_empty() {
        builder = builder.with_client_secret_authorization(
            &config.client_id,
            config.client_secret.expose(),
            &config.az_tenant_id,
        );
    } else if !config.user_assigned_id.is_empty() {
        builder = builder.with_config(AzureConfigKey::ClientId, &config.user_assigned_id);
    }
    Ok(builder.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(yaml: &str) -> Result<Bucket, BuildError> {
        Bucket::new(&BucketConfig::parse(yaml).unwrap(), &|_| None)
    }

    #[test]
    fn hosts_of_amazon() {
        let check = |endpoint: &str, region: &str, disable_dualstack, expected: &str| {
            let config = S3Config {
                endpoint: endpoint.to_owned(),
                disable_dualstack,
                ..S3Config::default()
            };
            assert_eq!(host_of(&config, region), expected);
        };
        check(
            "s3.amazonaws.com",
            "eu-west-1",
            false,
            "s3.dualstack.eu-west-1.amazonaws.com",
        );
        check(
            "s3.eu-west-1.amazonaws.com",
            "eu-west-1",
            true,
            "s3.eu-west-1.amazonaws.com",
        );
        check("minio:9000", "us-east-1", false, "minio:9000");
        assert_eq!(region_of("s3.eu-west-1.amazonaws.com"), "eu-west-1");
        assert_eq!(
            region_of("s3.dualstack.eu-west-1.amazonaws.com"),
            "eu-west-1"
        );
        assert_eq!(region_of("s3.amazonaws.com"), "");
        assert_eq!(region_of("minio:9000"), "");
    }

    #[test]
    fn stores_are_built_without_a_request() {
        let key = base64::engine::general_purpose::STANDARD.encode(b"key");
        for yaml in [
            "{type: S3, config: {bucket: b, endpoint: localhost:1, insecure: true, access_key: a, secret_key: s}}",
            "{type: S3, config: {bucket: b, endpoint: s3.amazonaws.com, sse_config: {type: SSE-S3}}, prefix: x/y}",
            "{type: GCS, config: {bucket: b, no_auth: true}}",
            &format!(
                "{{type: AZURE, config: {{storage_account: a, storage_account_key: {key}, container: c}}}}"
            ),
            "{type: MEMORY}",
        ] {
            let bucket = build(yaml).unwrap_or_else(|e| panic!("{yaml}: {e}"));
            assert_eq!(bucket.remarks, [""; 0]);
        }
        let bucket =
            build("{type: GCS, config: {bucket: b, no_auth: true, use_grpc: true}}").unwrap();
        assert_eq!(
            bucket.remarks,
            ["use_grpc has no effect: the HTTP API is used"]
        );
    }

    #[test]
    fn files_that_are_missing_are_named() {
        let check = |yaml: &str, expected: &str| {
            let error = build(yaml).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        };
        check(
            "{type: S3, config: {bucket: b, endpoint: e, sse_config: {type: SSE-C, encryption_key: /none/key}}}",
            "objstore.config: /none/key: ",
        );
        check(
            "{type: S3, config: {bucket: b, endpoint: e, http_config: {tls_config: {ca_file: /none/ca}}}}",
            "objstore.config: http_config: /none/ca: ",
        );
    }
}
