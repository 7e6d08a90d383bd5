//! What every component of Thanos takes for its servers: `--http-*` and `--grpc-*`.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use clap::{Args, ValueEnum};

use super::units::FlagDuration;

/// Where to listen: `host:port`, or `:port` for all addresses of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListenAddress(pub(crate) SocketAddr);

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let full = if text.starts_with(':') {
            format!("0.0.0.0{text}")
        } else {
            text.to_owned()
        };
        full.to_socket_addrs()
            .map_err(|e| format!("{e}; write host:port or :port, for example 127.0.0.1:10902"))?
            .next()
            .map(ListenAddress)
            .ok_or_else(|| format!("{text:?} has no address"))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The HTTP server of a component.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTP")]
pub(crate) struct HttpFlags {
    /// Where to listen for HTTP.
    #[arg(
        long = "http-address",
        value_name = "ADDRESS",
        default_value = "0.0.0.0:10902"
    )]
    pub(crate) http_address: ListenAddress,

    /// How long requests may go on after the signal to stop.
    #[arg(
        long = "http-grace-period",
        value_name = "DURATION",
        default_value = "2m"
    )]
    pub(crate) http_grace_period: FlagDuration,

    #[command(flatten)]
    pub(crate) web: WebConfigFlags,
}

/// The protection of an HTTP server.
#[derive(Debug, Clone, Args)]
pub(crate) struct WebConfigFlags {
    /// File with TLS, passwords and headers of the HTTP server, in the form of Prometheus'
    /// --web.config.file. It is read again when it, or a certificate that it names, changes.
    #[arg(
        long = "http.config",
        value_name = "FILE",
        default_value = "",
        hide_default_value = true,
        help_heading = "HTTP"
    )]
    pub(crate) http_config: String,
}

/// The gRPC server of a component.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "gRPC")]
pub(crate) struct GrpcFlags {
    /// Where to listen for gRPC.
    #[arg(
        long = "grpc-address",
        value_name = "ADDRESS",
        default_value = "0.0.0.0:10901"
    )]
    pub(crate) grpc_address: ListenAddress,

    /// How long calls may go on after the signal to stop.
    #[arg(
        long = "grpc-grace-period",
        value_name = "DURATION",
        default_value = "2m"
    )]
    pub(crate) grpc_grace_period: FlagDuration,

    /// Ask clients to connect anew after this time. 0 leaves connections alone.
    #[arg(
        long = "grpc-server-max-connection-age",
        value_name = "DURATION",
        default_value = "60m"
    )]
    pub(crate) grpc_max_connection_age: FlagDuration,

    #[command(flatten)]
    pub(crate) tls: GrpcTlsFlags,
}

/// TLS of the gRPC server.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "gRPC")]
pub(crate) struct GrpcTlsFlags {
    /// Certificate of the server, in PEM. With none the server speaks plain text. It, its key and the
    /// certificates for clients are read again when a file changes.
    #[arg(
        long = "grpc-server-tls-cert",
        value_name = "FILE",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) cert: String,

    /// Key of the certificate, in PEM.
    #[arg(
        long = "grpc-server-tls-key",
        value_name = "FILE",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) key: String,

    /// Certificates, in PEM, of those who sign clients' certificates. With some, clients must have one.
    #[arg(
        long = "grpc-server-tls-client-ca",
        value_name = "FILE",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) client_ca: String,

    /// The oldest version of TLS that is spoken. 1.0 and 1.1 are accepted and mean 1.2.
    #[arg(
        long = "grpc-server-tls-min-version",
        value_name = "VERSION",
        default_value = "1.3"
    )]
    pub(crate) min_version: TlsVersion,

    /// Cipher suites of TLS 1.2 that may be used, by their names in Go; can be repeated. All that are
    /// safe when there is none.
    #[arg(long = "grpc-server-tls-ciphers", value_name = "NAME")]
    pub(crate) ciphers: Vec<String>,

    /// Curves for the exchange of keys, by their names in Go; can be repeated. Best first.
    #[arg(long = "grpc-server-tls-curves", value_name = "NAME")]
    pub(crate) curves: Vec<String>,
}

impl GrpcTlsFlags {
    /// Names and values, for the page of flags.
    pub(crate) fn listed(&self) -> Vec<(&'static str, String)> {
        let version = self.min_version.to_possible_value();
        let version = version.map_or_else(String::new, |it| it.get_name().to_owned());
        vec![
            ("grpc-server-tls-cert", self.cert.clone()),
            ("grpc-server-tls-key", self.key.clone()),
            ("grpc-server-tls-client-ca", self.client_ca.clone()),
            ("grpc-server-tls-min-version", version),
            ("grpc-server-tls-ciphers", self.ciphers.join(",")),
            ("grpc-server-tls-curves", self.curves.join(",")),
        ]
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TlsVersion {
    /// Not spoken by anyone any more.
    #[value(name = "1.0")]
    Tls10,
    /// Not spoken by anyone any more.
    #[value(name = "1.1")]
    Tls11,
    /// The oldest that is spoken.
    #[value(name = "1.2")]
    Tls12,
    /// The newest.
    #[value(name = "1.3")]
    Tls13,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_host_is_all_addresses() {
        let check = |text: &str, expected: &str| {
            let address: ListenAddress = text.parse().expect("an address");
            assert_eq!(address.to_string(), expected);
        };
        check(":10901", "0.0.0.0:10901");
        check("127.0.0.1:1", "127.0.0.1:1");
        check("[::1]:1", "[::1]:1");
        let error = "nonsense".parse::<ListenAddress>().expect_err("no address");
        assert!(error.contains("host:port"), "{error}");
    }
}
