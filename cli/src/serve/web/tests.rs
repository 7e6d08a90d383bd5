//! Files with the protection of an HTTP server: what is taken and what is refused, beside promtool.

use std::path::Path;
use std::process::Command;

use super::Current;
use super::config::WebConfig;

/// Files that both take; CERT and KEY stand for those of a certificate.
const GOOD: [&str; 14] = [
    "",
    "{}",
    "tls_server_config:\nhttp_server_config:\nbasic_auth_users:\n",
    "basic_auth_users: {alice: $2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi}",
    "tls_server_config: {cert_file: CERT, key_file: KEY}",
    "tls_server_config: {cert_file: CERT, key_file: KEY, client_auth_type: NoClientCert}",
    "tls_server_config: {cert_file: CERT, key_file: KEY, client_auth_type: RequestClientCert}",
    "tls_server_config: {cert_file: CERT, key_file: KEY, client_auth_type: RequireAnyClientCert}",
    "tls_server_config: {cert_file: CERT, key_file: KEY, client_auth_type: VerifyClientCertIfGiven, client_ca_file: CERT}",
    "tls_server_config: {cert_file: CERT, key_file: KEY, client_auth_type: RequireAndVerifyClientCert, client_ca_file: CERT}",
    "tls_server_config: {cert_file: CERT, key_file: KEY, min_version: TLS10, max_version: TLS12, prefer_server_cipher_suites: false}",
    "tls_server_config: {cert_file: CERT, key_file: KEY, cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, TLS_AES_128_GCM_SHA256]}",
    "tls_server_config: {cert_file: CERT, key_file: KEY, curve_preferences: [CurveP521, X25519]}",
    "{tls_server_config: {cert_file: CERT, key_file: KEY}, http_server_config: {http2: true, headers: {X-Frame-Options: deny, X-XSS-Protection: '1', Content-Security-Policy: x, Strict-Transport-Security: max-age=1, X-Content-Type-Options: nosniff}}}",
];

/// Files that both refuse, with a part of our message.
const BAD: [(&str, &str); 18] = [
    ("[", "invalid type"),
    ("some: thing", "unknown field `some`"),
    ("tls_server_config: {some: thing}", "unknown field `some`"),
    ("basic_auth_users: [alice]", "invalid type"),
    ("basic_auth_users: {alice: plain}", "the hash of \"alice\""),
    (
        "tls_server_config: {cert_file: CERT}",
        "missing one of key or key_file",
    ),
    (
        "tls_server_config: {key_file: KEY}",
        "missing one of cert or cert_file",
    ),
    (
        "tls_server_config: {client_auth_type: NoClientCert}",
        "missing one of cert",
    ),
    (
        "tls_server_config: {cert_file: KEY, key_file: KEY}",
        "certificate",
    ),
    (
        "tls_server_config: {cert_file: CERT, key_file: CERT}",
        "key",
    ),
    (
        "tls_server_config: {cert_file: /nonexistent, key_file: KEY}",
        "/nonexistent",
    ),
    (
        "tls_server_config: {cert_file: CERT, key_file: KEY, client_ca_file: CERT}",
        "without a Client Auth Policy",
    ),
    (
        "tls_server_config: {cert_file: CERT, key_file: KEY, client_auth_type: Some}",
        "unknown variant `Some`",
    ),
    (
        "tls_server_config: {cert_file: CERT, key_file: KEY, min_version: TLS9}",
        "unknown variant `TLS9`",
    ),
    (
        "tls_server_config: {cert_file: CERT, key_file: KEY, cipher_suites: [SOME]}",
        "unknown cipher: SOME",
    ),
    (
        "tls_server_config: {cert_file: CERT, key_file: KEY, curve_preferences: [Some]}",
        "unknown curve: Some",
    ),
    (
        "http_server_config: {headers: {X-Frame-Options: some}}",
        "invalid value for X-Frame-Options",
    ),
    (
        "http_server_config: {headers: {Server: some}}",
        "HTTP header \"Server\" can not be configured",
    ),
];

/// Files that promtool takes and we refuse, with the reason.
const NOT_HERE: [(&str, &str); 4] = [
    (
        "tls_server_config: {cert_file: CERT, key_file: KEY, client_auth_type: RequireAndVerifyClientCert}",
        "needs client_ca_file",
    ),
    (
        "tls_server_config: {cert_file: CERT, key_file: KEY, min_version: TLS10, max_version: TLS11}",
        "TLS before 1.2 is not spoken",
    ),
    (
        "tls_server_config: {cert_file: CERT, key_file: KEY, min_version: TLS13, max_version: TLS12}",
        "min_version is above max_version",
    ),
    (
        "tls_server_config: {cert_file: CERT, key_file: KEY, curve_preferences: [CurveP521]}",
        "none of them is spoken here",
    ),
];

/// What the promtool on the path may be too old to know.
const NEWER: [(&str, Result<(), &str>); 3] = [
    (
        "tls_server_config: {cert_file: CERT, key_file: KEY, client_auth_type: RequireAnyClientCert, client_allowed_sans: [a.example, 10.0.0.1]}",
        Ok(()),
    ),
    (
        "tls_server_config: {cert_file: CERT, key_file: KEY, client_allowed_sans: [a@b.example]}",
        Err("addresses of mail"),
    ),
    ("rate_limit: {interval: 1s}", Err("rate_limit")),
];

/// What promtool thinks of a file; `None` where it is not installed.
fn promtool_takes(file: &Path) -> Option<bool> {
    let asked = Command::new("promtool")
        .args(["check", "web-config"])
        .arg(file)
        .output();
    match asked {
        Ok(output) => Some(output.status.success()),
        Err(_not_installed) => {
            let required = std::env::var_os("ISOBAR_REQUIRE_PEERS").is_some_and(|it| it == "1");
            assert!(!required, "promtool is not installed");
            None
        }
    }
}

#[test]
fn files_are_taken_and_refused_as_by_promtool() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(dir.path().join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let file = dir.path().join("web.yml");
    let check = |text: &str, expected: Result<(), &str>, promtools: Option<bool>| {
        // Paths are relative to the file.
        let text = text.replace("CERT", "cert.pem").replace("KEY", "key.pem");
        std::fs::write(&file, &text).unwrap();
        match (Current::read(&file), expected) {
            (Ok(_), Ok(())) => {}
            (Err(error), Err(part)) => {
                let error = format!("{error:#}");
                assert!(error.contains(part), "{text}: {error}");
            }
            (Err(error), Ok(())) => panic!("{text}: {error:#}"),
            (Ok(_), Err(part)) => panic!("{text} is taken, expected {part}"),
        }
        if let (Some(expected), Some(takes)) = (promtools, promtool_takes(&file)) {
            assert_eq!(takes, expected, "promtool: {text}");
        }
    };
    for text in GOOD {
        check(text, Ok(()), Some(true));
    }
    for (text, part) in BAD {
        check(text, Err(part), Some(false));
    }
    for (text, part) in NOT_HERE {
        check(text, Err(part), Some(true));
    }
    for (text, expected) in NEWER {
        check(text, expected, None);
    }
}

#[test]
fn the_example_is_taken() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/web-config.yml");
    let text = std::fs::read_to_string(path).unwrap();
    let config = WebConfig::parse(&text, Path::new("/etc/isobar")).unwrap();
    let files: Vec<_> = config.files().map(|it| it.display().to_string()).collect();
    let expected = ["server.crt", "server.key", "clients.crt"];
    assert_eq!(files, expected.map(|it| format!("/etc/isobar/{it}")));
    let hash = &config.users["alice"];
    assert!(bcrypt::verify("fakepassword", hash).unwrap());
}

#[test]
fn text_stands_for_files() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("web.yml");
    let text = serde_json::json!({"tls_server_config": {
        "cert": made.cert.pem(),
        "key": made.signing_key.serialize_pem(),
        "client_ca": made.cert.pem(),
        "client_auth_type": "RequireAndVerifyClientCert",
    }});
    std::fs::write(&file, text.to_string()).unwrap();
    let current = Current::read(&file).unwrap();
    assert!(current.tls.is_some());
    assert_eq!(current.config.files().count(), 0);
}
