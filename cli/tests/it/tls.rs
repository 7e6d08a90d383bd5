//! Who gets in: gRPC and HTTP over TLS, with clients' certificates and passwords. The right client is
//! served, every other is not, and new certificates are taken while the server runs.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use isobar_proto::thanos::info::InfoRequest;
use isobar_proto::thanos::info::info_client::InfoClient;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use reqwest::blocking::Client;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::components::Component;
use crate::harness::{PATIENCE, Server, eventually};

/// One who signs certificates.
struct Authority {
    cert: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
struct Signed {
    cert: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap().pem();
        Authority {
            cert,
            issuer: Issuer::new(params, key),
        }
    }

    fn sign(&self) -> Signed {
        self.sign_for(&["localhost", "127.0.0.1"])
    }

    fn sign_for(&self, names: &[&str]) -> Signed {
        let names: Vec<String> = names.iter().map(|&it| it.to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names).unwrap();
        Signed {
            cert: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

/// A directory with a server's certificate and who signs those of clients.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new(server: &Signed, clients: &Authority) -> Self {
        let files = Files {
            dir: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(files.path("bucket")).unwrap();
        fs::write(files.path("clients.pem"), &clients.cert).unwrap();
        files.put(server);
        files
    }

    fn put(&self, server: &Signed) {
        fs::write(self.path("cert.pem"), &server.cert).unwrap();
        fs::write(self.path("key.pem"), &server.key).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn flag(&self, flag: &str, name: &str) -> String {
        format!("--{flag}={}", self.path(name).display())
    }

    fn bucket(&self) -> String {
        let bucket = self.path("bucket");
        format!("{{type: FILESYSTEM, config: {{directory: {bucket:?}}}}}")
    }
}

/// Asks for what a server is; the reason when that does not work.
fn info(component: &Component, tls: Option<ClientTlsConfig>) -> Result<String, String> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{}", component.grpc)).unwrap();
    let endpoint = endpoint.timeout(PATIENCE).connect_timeout(PATIENCE);
    component.runtime.block_on(async {
        let endpoint = match tls {
            Some(tls) => endpoint.tls_config(tls).map_err(|it| format!("{it:?}"))?,
            None => endpoint,
        };
        let channel = endpoint.connect().await.map_err(|it| format!("{it:?}"))?;
        let answer = InfoClient::new(channel).info(InfoRequest {}).await;
        let answer = answer.map_err(|it| format!("{it:?}"))?;
        Ok(answer.into_inner().component_type)
    })
}

fn trusting(authority: &Authority) -> ClientTlsConfig {
    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&authority.cert))
}

fn with(tls: ClientTlsConfig, client: &Signed) -> ClientTlsConfig {
    tls.identity(Identity::from_pem(&client.cert, &client.key))
}

#[test]
fn grpc_is_spoken_with_the_right_clients_alone() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let files = Files::new(&ours.sign(), &ours);
    let flags = [
        files.flag("grpc-server-tls-cert", "cert.pem"),
        files.flag("grpc-server-tls-key", "key.pem"),
        files.flag("grpc-server-tls-client-ca", "clients.pem"),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let bucket = files.bucket();

    // Without clients' certificates: whoever trusts the server is served.
    let store = Component::store(&bucket, &files.path("data"), &flags[..2]);
    assert_eq!(info(&store, Some(trusting(&ours))), Ok("store".to_owned()));
    let plain = info(&store, None).unwrap_err();
    assert!(!plain.is_empty());
    let unknown = info(&store, Some(trusting(&others))).unwrap_err();
    assert!(unknown.contains("UnknownIssuer"), "{unknown}");
    // A new certificate is taken while it runs.
    files.put(&others.sign());
    assert_eq!(
        info(&store, Some(trusting(&others))),
        Ok("store".to_owned())
    );
    info(&store, Some(trusting(&ours))).unwrap_err();
    // One that cannot be used is not, and the old one goes on.
    fs::write(files.path("key.pem"), "none").unwrap();
    assert_eq!(
        info(&store, Some(trusting(&others))),
        Ok("store".to_owned())
    );
    drop(store);

    files.put(&ours.sign());
    let store = Component::store(&bucket, &files.path("data"), &flags);
    let right = with(trusting(&ours), &ours.sign());
    assert_eq!(info(&store, Some(right)), Ok("store".to_owned()));
    info(&store, Some(trusting(&ours))).unwrap_err();
    info(&store, Some(with(trusting(&ours), &others.sign()))).unwrap_err();
    info(&store, None).unwrap_err();
    // Who signs for clients may change, too.
    fs::write(files.path("clients.pem"), &others.cert).unwrap();
    let other = with(trusting(&ours), &others.sign());
    assert_eq!(info(&store, Some(other)), Ok("store".to_owned()));
    info(&store, Some(with(trusting(&ours), &ours.sign()))).unwrap_err();
}

fn https(authority: &Authority, client: Option<&Signed>) -> Client {
    let root = reqwest::Certificate::from_pem(authority.cert.as_bytes()).unwrap();
    let mut builder = Client::builder()
        .use_rustls_tls()
        .tls_built_in_root_certs(false)
        .add_root_certificate(root)
        .timeout(Duration::from_secs(10));
    if let Some(client) = client {
        let pem = format!("{}{}", client.cert, client.key);
        builder = builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
    }
    builder.build().unwrap()
}

/// A file for `--http.config`, with clients' certificates if wanted.
fn web_config(files: &Files, clients: bool, password: &str) {
    let hash = bcrypt::hash(password, 4).unwrap();
    let clients = match clients {
        true => {
            "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: clients.pem\n  \
             client_allowed_sans: [other.example, client.example]\n"
        }
        false => "",
    };
    let text = format!(
        "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n{clients}\
         http_server_config:\n  headers:\n    X-Frame-Options: deny\n\
         basic_auth_users:\n  alice: {hash}\n"
    );
    fs::write(files.path("web.yml"), text).unwrap();
}

/// The status of an answer to a request with a password, as soon as there is an answer.
fn status(client: &Client, server: &Server, path: &str, password: Option<&str>) -> u16 {
    eventually("an answer over TLS", || {
        let mut request = client.get(format!("{}{path}", server.url));
        if let Some(password) = password {
            request = request.basic_auth("alice", Some(password));
        }
        let answer = request.send().ok()?;
        assert_eq!(answer.headers()["x-frame-options"], "deny");
        Some(answer.status().as_u16())
    })
}

fn start(files: &Files, component: &str) -> Component {
    let flag = files.flag("http.config", "web.yml");
    let mut component = match component {
        "store" => Component::store_unready(&files.bucket(), &files.path("data"), &[&flag]),
        _ => Component::standalone_unready(&files.path("data"), &[&flag]),
    };
    component.server.url = component.server.url.replace("http://", "https://");
    component
}

#[test]
fn http_is_spoken_with_the_right_clients_alone() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    for (component, path) in [
        ("store", "/api/v1/status/flags"),
        ("standalone", "/api/v1/query?query=1"),
    ] {
        let files = Files::new(&ours.sign(), &ours);
        web_config(&files, true, "sesame");
        let running = start(&files, component);
        let server = &running.server;
        let right = https(&ours, Some(&ours.sign_for(&["client.example"])));
        eventually("readiness", || {
            let status = status(&right, server, "/-/ready", Some("sesame"));
            (status == 200).then_some(())
        });
        assert_eq!(status(&right, server, path, Some("sesame")), 200);
        assert_eq!(status(&right, server, path, Some("wrong")), 401);
        assert_eq!(status(&right, server, path, None), 401);
        assert_eq!(status(&right, server, "/metrics", None), 401);
        let url = format!("{}{path}", server.url);
        https(&ours, None).get(&url).send().unwrap_err();
        let other = https(&ours, Some(&others.sign()));
        other.get(&url).send().unwrap_err();
        let unnamed = https(&ours, Some(&ours.sign_for(&["example"])));
        unnamed.get(&url).send().unwrap_err();
        let plain = url.replace("https://", "http://");
        Client::new().get(plain).send().unwrap_err();

        // All of it follows the files.
        web_config(&files, false, "open");
        files.put(&others.sign());
        let anyone = https(&others, None);
        assert_eq!(status(&anyone, server, path, Some("open")), 200);
        assert_eq!(status(&anyone, server, path, Some("sesame")), 401);
        fs::write(files.path("web.yml"), "what: ever").unwrap();
        assert_eq!(status(&anyone, server, path, Some("open")), 200);
        assert!(server.process.log().contains("unknown field `what`"));
    }
}

#[test]
fn a_server_that_cannot_be_protected_does_not_start() {
    let ours = Authority::new("ours");
    let files = Files::new(&ours.sign(), &ours);
    for (text, part) in [
        ("rate_limit: {interval: 1s}", "rate_limit"),
        (
            "tls_server_config: {cert_file: cert.pem}",
            "missing one of key or key_file",
        ),
    ] {
        fs::write(files.path("web.yml"), text).unwrap();
        let mut component = start(&files, "store");
        assert_eq!(component.server.process.wait(), Some(1));
        let log = component.server.process.log();
        assert!(
            log.contains(part) && log.contains("--http.config="),
            "{log}"
        );
    }
    fs::remove_file(files.path("web.yml")).unwrap();
    let mut component = start(&files, "store");
    assert_eq!(component.server.process.wait(), Some(1));
}
