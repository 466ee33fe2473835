//! What a machine can remember: who may import whom, which settings and reasons are documented,
//! which methods have a row.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use prost::Message as _;
use vvs_auth::method;
use vvs_mesh::Cli;
use vvs_proto::types::ErrorReason;
use vvs_tests::root;

mod form;
mod layer;
mod ring;
mod source;
mod word;

pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|cause| panic!("{path}: {cause}"))
}

/// All files of ours with this extension, by their paths from the root.
pub(crate) fn files(extension: &str) -> Vec<PathBuf> {
    let arguments = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let output = std::process::Command::new("git")
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let listed = String::from_utf8(output.stdout).unwrap();
    let files = listed.lines().map(PathBuf::from);
    files
        .filter(|file| file.extension().is_some_and(|found| found == extension))
        .filter(|file| root().join(file).is_file())
        .collect()
}

/// Crate to what it may import of ours.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("vvs-proto", &[]),
    ("vvs-auth", &[]),
    ("vvs-runtime", &[]),
    ("vvs-relay", &["vvs-proto", "vvs-auth", "vvs-runtime"]),
    ("vvs-identity", &["vvs-proto", "vvs-auth", "vvs-runtime"]),
    (
        "vvs-web",
        &["vvs-proto", "vvs-auth", "vvs-runtime", "vvs-identity"],
    ),
    ("vvs-sessions", &["vvs-proto", "vvs-auth", "vvs-runtime"]),
    ("vvs-gateway", &["vvs-proto", "vvs-auth", "vvs-runtime"]),
    (
        "vvs-mesh",
        &[
            "vvs-proto",
            "vvs-auth",
            "vvs-runtime",
            "vvs-identity",
            "vvs-relay",
            "vvs-web",
            "vvs-sessions",
            "vvs-gateway",
            "vvs-client",
        ],
    ),
    ("vvs-client", &["vvs-proto"]),
];

fn metadata() -> serde_json::Value {
    let output = std::process::Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn crates_import_only_what_their_layer_may() {
    let metadata = metadata();
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        seen.insert(name.to_owned());
        if name.starts_with("vvs-test") {
            continue;
        }

        let (_, allowed) = MAY_IMPORT
            .iter()
            .find(|(known, _)| *known == name)
            .unwrap_or_else(|| panic!("{name}"));

        for dependency in package["dependencies"].as_array().unwrap() {
            let is_for_tests = dependency["kind"] == "dev";
            let dependency = dependency["name"].as_str().unwrap();
            if is_for_tests && dependency == "vvs-test-servers" {
                continue;
            }
            assert!(
                !dependency.starts_with("vvs-") || allowed.contains(&dependency),
                "{name} imports {dependency}"
            );
        }
    }

    assert_eq!(seen.len(), MAY_IMPORT.len() + 2);
}

#[test]
fn every_method_of_the_contracts_has_a_row_and_every_row_a_method() {
    let files = prost_types::FileDescriptorSet::decode(vvs_proto::DESCRIPTORS).unwrap();
    let (mut methods, mut streams) = (BTreeSet::new(), BTreeSet::new());
    for file in &files.file {
        for service in &file.service {
            for rpc in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), rpc.name());
                if rpc.client_streaming() || rpc.server_streaming() {
                    streams.insert(path.clone());
                }
                methods.insert(path);
            }
        }
    }

    let rows: BTreeSet<_> = method::TABLE
        .iter()
        .map(|(path, _)| (*path).to_owned())
        .collect();
    assert_eq!(rows.len(), method::TABLE.len(), "a method has two rows");

    let ours = |path: &String| path.starts_with("/vvs.");
    let listed: BTreeSet<_> = method::STREAMS
        .iter()
        .map(|path| (*path).to_owned())
        .collect();
    assert!(listed.is_subset(&rows), "{listed:?}");
    assert_eq!(
        listed.into_iter().filter(ours).collect::<BTreeSet<_>>(),
        streams
    );
    assert_eq!(
        rows.into_iter().filter(ours).collect::<BTreeSet<_>>(),
        methods
    );
}

/// Settings of the server, by the heading that `--help` puts them under.
fn settings() -> BTreeMap<String, Vec<String>> {
    let mut cli = Cli::command();
    cli.build();
    let mut rows: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for name in ["up", "gateway", "web", "relay", "sessions", "pki"] {
        let command = cli.find_subcommand(name).unwrap();
        for arg in command
            .get_arguments()
            .filter(|arg| arg.get_long().is_some())
        {
            let flag = arg.get_long().unwrap();
            if matches!(flag, "help" | "version") || !seen.insert(flag.to_owned()) {
                continue;
            }

            let variable = arg
                .get_env()
                .map(|name| name.to_string_lossy().into_owned());
            let variable =
                variable.unwrap_or_else(|| panic!("--{flag} has no environment variable"));
            let default: Vec<_> = arg
                .get_default_values()
                .iter()
                .map(|value| value.to_string_lossy())
                .collect();
            let help = arg
                .get_help()
                .unwrap_or_else(|| panic!("--{flag} has no help"))
                .to_string();
            let default = if default.is_empty() {
                String::new()
            } else {
                format!("`{}`", default.join(","))
            };

            let row = format!(
                "| `{variable}` | `--{flag}` | {default} | {} |",
                help.replace('|', "\\|")
            );
            rows.entry(arg.get_help_heading().unwrap_or("One process").to_owned())
                .or_default()
                .push(row);
        }
    }

    rows
}

/// Run `VVS_REGENERATE=1 cargo test -p vvs-tests --test it structure` after a change of a setting.
#[test]
fn every_setting_is_documented() {
    const BEGIN: &str = "<!-- settings: begin -->\n";
    const END: &str = "<!-- settings: end -->\n";
    let mut tables = String::new();
    for (heading, rows) in settings() {
        let head = "| variable | flag | default | what it sets |\n| --- | --- | --- | --- |\n";
        tables.extend(["\n## ", &heading, "\n\n", head]);
        tables.push_str(&(rows.join("\n") + "\n"));
    }

    let text = read("docs/configuration.md");
    let (head, rest) = text.split_once(BEGIN).unwrap();
    let (found, tail) = rest.split_once(END).unwrap();

    if std::env::var_os("VVS_REGENERATE").is_some() {
        std::fs::write(
            root().join("docs/configuration.md"),
            [head, BEGIN, &tables, END, tail].concat(),
        )
        .unwrap();
    } else {
        assert_eq!(
            found, tables,
            "docs/configuration.md is out of date: run this test with VVS_REGENERATE=1"
        );
    }
}

#[test]
fn every_reason_is_documented_and_every_documented_reason_exists() {
    let reasons: BTreeSet<_> = (1..)
        .map_while(|number| ErrorReason::try_from(number).ok())
        .map(|reason| reason.word().to_owned())
        .collect();

    // Somebody answers with each of them.
    let files = [
        "services/relay/src/refusal.rs",
        "services/sessions/src/error.rs",
    ];
    let answered = files.map(read).concat();
    for reason in &reasons {
        let variant: String = reason
            .split('_')
            .map(|word| word[..1].to_owned() + &word[1..].to_ascii_lowercase())
            .collect();
        assert!(
            answered.contains(&format!("ErrorReason::{variant})")),
            "{reason}"
        );
    }

    let text = read("docs/errors.md");
    let headings: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`'))
        .filter(|heading| {
            heading
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
        })
        .map(str::to_owned)
        .collect();
    assert_eq!(headings, reasons);
}

/// rustls 0.24 does not have that interface. docs/decisions/0001-own-tls-stream.md has the way out,
/// which is short as long as one file alone stands on it.
#[test]
fn one_module_alone_stands_on_the_unbuffered_interface_of_rustls() {
    let names_it = |file: &PathBuf| {
        let text = read(file.to_str().unwrap());
        text.contains("rustls::unbuffered") || text.contains("Unbuffered")
    };
    let others = files("rs").into_iter();
    let others = others.filter(|file| !file.ends_with("tests/it/structure.rs"));

    let found: Vec<_> = others.filter(names_it).collect();
    assert_eq!(found, [Path::new("services/runtime/src/tls/stream.rs")]);

    let pinned = "rustls = { version = \">=0.23, <0.24\"";
    assert!(read("Cargo.toml").contains(pinned));
}
