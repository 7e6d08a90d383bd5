//! Holds our flags against those of a real Thanos, as they were recorded.

use std::path::Path;

use clap::{ArgAction, CommandFactory, Parser};
use serde_json::Value;

use super::Cli;

/// The flags of a component as recorded; `None`, after saying so, where the recording is not there.
fn recorded(component: &str) -> Option<Vec<Value>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/contract/flags.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("skipped: {} not found", path.display());
        return None;
    };
    let mut flags: Value = serde_json::from_str(&text).unwrap();
    Some(flags[component].as_array_mut().unwrap().drain(..).collect())
}

/// A value that a flag of this type takes, when its default is none.
fn example(kind: &str) -> &'static str {
    match kind {
        "float64" => "0.5",
        "int" | "uint64" => "3",
        "Duration" | "duration" => "5m",
        "enum" => "",
        "url" => "http://localhost:9090",
        _ => "some",
    }
}

/// Every recorded flag is there with its default, alone and repeated, and, when it is a switch, in both
/// directions.
fn check(component: &str, required: &[&str]) {
    let (Some(own), Some(global)) = (recorded(component), recorded("global")) else {
        return;
    };
    let mut command = Cli::command();
    command.build();
    let part = command.find_subcommand(component).unwrap();
    for flag in own.iter().chain(&global) {
        let name = flag["name"].as_str().unwrap();
        let arg = part.get_arguments().find(|it| it.get_long() == Some(name));
        let arg = arg.unwrap_or_else(|| panic!("{component} has no --{name}"));
        let ours: Vec<_> = arg.get_default_values().iter().collect();
        let ours = ours.first().map_or("", |it| it.to_str().unwrap());
        let theirs = flag["default"][0].as_str().unwrap_or("");
        let switch = flag["bool"].as_bool().unwrap();
        let leaves = matches!(
            arg.get_action(),
            ArgAction::HelpLong | ArgAction::Help | ArgAction::Version
        );
        if !switch || !theirs.is_empty() {
            assert_eq!(ours, theirs, "default of --{name}");
        }
        if leaves {
            continue;
        }
        let mut lines = if switch {
            vec![vec![format!("--{name}")]]
        } else {
            let kind = flag["type"].as_str().unwrap();
            let value = if theirs.is_empty() {
                example(kind)
            } else {
                theirs
            };
            vec![
                vec![format!("--{name}={value}")],
                vec![format!("--{name}"), value.to_owned()],
            ]
        };
        if switch && !theirs.is_empty() {
            lines.push(vec![format!("--no-{name}")]);
        }
        if flag["repeated"].as_bool().unwrap() {
            lines.push([lines[0].clone(), lines[0].clone()].concat());
        }
        for line in lines {
            let given = ["isobar", component]
                .into_iter()
                .chain(required.iter().copied());
            let given = given.map(Into::into).chain(line.iter().map(Into::into));
            let given = super::kingpin::arguments(&Cli::command(), given).unwrap();
            if let Err(error) = Cli::try_parse_from(given) {
                panic!("{line:?}: {error}");
            }
        }
    }
}

#[test]
fn flags_of_the_sidecar() {
    check("sidecar", &[]);
}

#[test]
fn flags_of_the_store() {
    check("store", &[]);
}

/// What prometheus-operator gives to the sidecar.
#[test]
fn arguments_of_prometheus_operator() {
    let given = [
        "isobar",
        "sidecar",
        "--prometheus.url=http://localhost:9090/prefix",
        "--grpc-address=:10901",
        "--http-address=:10902",
        "--grpc-server-tls-cert=/etc/cert",
        "--grpc-server-tls-key=/etc/key",
        "--grpc-server-tls-client-ca=/etc/ca",
        "--grpc-server-tls-min-version=1.2",
        "--objstore.config=type: FILESYSTEM\nconfig: {directory: /tmp}\n",
        "--tsdb.path=/prometheus",
        "--shipper.meta-file-name=thanos.shipper.json",
        "--shipper.ignore-unequal-block-size",
        "--tracing.config=type: OTLP\n",
        "--log.level=info",
        "--log.format=logfmt",
        "--min-time=-2h",
        "--prometheus.ready_timeout=20m",
        "--prometheus.get_config_timeout=10s",
        "--prometheus.get_config_interval=10s",
        "--prometheus.http-client-file=/etc/thanos/config/prometheus.http-client-file.yaml",
    ];
    if let Err(error) = Cli::try_parse_from(given) {
        panic!("{error}");
    }
}
