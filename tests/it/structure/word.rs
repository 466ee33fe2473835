//! One word for one thing: a type name means the same everywhere, and a file that says what it does
//! not know does not import it.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, product};

/// Type names that stand in more than one file, and why.
const SHARED: &[(&str, &str)] = &[
    (
        "Answer",
        "what is given back for what was asked, at each seam",
    ),
    ("App", "the editor's program, in its frame and for a person"),
    ("Attempt", "one login, at the relay and at its editor"),
    ("Bounds", "how much there may be, of what a module counts"),
    (
        "Change",
        "a row that changes; how an editor's connection changes",
    ),
    (
        "Check",
        "a peer's certificate is checked; the command that checks settings",
    ),
    ("Claims", "what a token says, by who signed it"),
    (
        "Connection",
        "one connection, at the server and at the editor",
    ),
    ("Counts", "a role's own metrics"),
    ("Cut", "a connection is cut, from either end"),
    (
        "Device",
        "the editor's machine, in a frame, in the database and for a person",
    ),
    (
        "DeviceKey",
        "one key: its public half, and the whole of it at the editor",
    ),
    ("Distrust", "why a token is not trusted, by who signed it"),
    (
        "End",
        "how something ends: a socket, a sign-in to a browser, a session",
    ),
    ("Error", "a crate's or a module's errors"),
    (
        "Event",
        "what happens, to a login and as the audit log and a person are told",
    ),
    ("Feed", "the feed of revocations, at both ends"),
    ("Fresh", "a fresh token, at the relay and at the editor"),
    ("Full", "no place is left"),
    ("Held", "held until something is over"),
    (
        "Identity",
        "who somebody is: a process by its certificate, a person by a provider",
    ),
    ("Key", "one key of a set; what a count is kept by"),
    ("Limits", "the limits of a port or a role"),
    ("Login", "one login, at the relay and at its editor"),
    ("Place", "one place under a limit, until it is dropped"),
    (
        "Profile",
        "what is known of a person, and what an editor keeps of one",
    ),
    ("Purpose", "what a socket is for, at both ends"),
    (
        "Reason",
        "why something failed or ended, as a person and as an editor is told",
    ),
    ("Refusal", "why a role turns a caller away"),
    ("Relay", "the relay's calls, served and made"),
    ("Rotation", "when keys change; the command that changes one"),
    ("Rules", "what a provider's tokens must fulfil"),
    ("Running", "what serves: one role, or all of them"),
    (
        "Server",
        "the server: what it needs, and its address at the editor",
    ),
    (
        "Session",
        "a session: in a frame, in the database and on a socket",
    ),
    (
        "Sessions",
        "the calls at sessions that a provider needs, and who makes them",
    ),
    (
        "Settings",
        "what can be set about a role or a part of every process",
    ),
    (
        "SignIn",
        "a person's sign-in to a browser, in the domain and in a request",
    ),
    ("Socket", "one WebSocket, at both ends"),
    ("Terms", "what a role goes by, made of its settings"),
    ("Use", "what a proof is for, at both ends"),
    ("User", "who signed in, in a frame and in a login"),
    ("UserId", "our id of a user, in a frame and in the database"),
    ("View", "a login as others see it, at the relay and at web"),
    ("Whose", "whose sessions or sign-ins are meant"),
];

/// The type names that a file declares.
fn declared(source: &Source) -> BTreeSet<&str> {
    let kinds = ["struct ", "enum ", "trait ", "type "];
    source
        .code
        .lines()
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| {
            let line = line.strip_prefix("pub").unwrap_or(line);
            let line = line
                .split_once(") ")
                .filter(|(scope, _)| scope.starts_with('('))
                .map_or(line, |(_, rest)| rest);
            let line = line.trim_start();
            let name = kinds.iter().find_map(|kind| line.strip_prefix(kind))?;
            name.split(|letter: char| !letter.is_alphanumeric()).next()
        })
        .collect()
}

#[test]
fn a_type_name_means_one_thing() {
    let crates = product();
    let mut homes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for source in crates.iter().flat_map(|of| of.files.values()) {
        for name in declared(source) {
            homes.entry(name).or_default().push(&source.path);
        }
    }
    homes.retain(|_, files| files.len() > 1);

    for (name, why) in SHARED {
        assert!(
            homes.remove(name).is_some(),
            "{name} stands in one file by now: {why}"
        );
    }
    assert!(homes.is_empty(), "{homes:#?}");
}

/// A word of a header, and what a file may then not import. A path of the crate's own, or of ours;
/// anything else is a crate.
const NOT_KNOWN: &[(&str, &[&str])] = &[
    ("browser", &["crate::cookie", "crate::visit", "axum"]),
    (
        "call",
        &[
            "crate::call",
            "tonic",
            "vvs_proto::internal",
            "vvs_proto::relay",
            "vvs_proto::session",
            "vvs_proto::token",
        ],
    ),
    ("clock", &["now_utc()", "Instant::now", "SystemTime::now"]),
    ("code flow", &["oauth2"]),
    ("cookie", &["crate::cookie"]),
    ("database", &["sqlx", "crate::store"]),
    ("discovery", &["reqwest"]),
    (
        "frame",
        &["frame::RelayFrame", "frame::EditorFrame", "crate::wire"],
    ),
    ("identity provider", &["vvs_auth::provider"]),
    ("key", &["vvs_auth::key", "crate::key"]),
    ("login", &["crate::login", "crate::attempt"]),
    ("logins", &["crate::login"]),
    ("network", &["tokio::net", "reqwest", "hyper"]),
    ("page", &["crate::page"]),
    ("page text", &["crate::page"]),
    ("provider", &["vvs_identity::Provider"]),
    ("particular provider", &["crate::provider::clerk"]),
    ("relay", &["vvs_proto::relay", "crate::call"]),
    ("route", &["crate::route"]),
    ("sessions", &["crate::session"]),
    ("setting", &["clap", "crate::settings"]),
    ("signing key", &["SigningKey"]),
    ("socket", &["crate::socket", "tungstenite", "tokio::net"]),
    (
        "sockets",
        &[
            "crate::line",
            "crate::connection",
            "tungstenite",
            "tokio::net",
        ],
    ),
    ("stores", &["crate::vault", "crate::profile"]),
    ("terminals and logs", &["tracing"]),
    ("token", &["vvs_auth::token"]),
    (
        "wire",
        &[
            "vvs_proto::internal",
            "vvs_proto::relay",
            "vvs_proto::session",
            "vvs_proto::token",
            "tonic",
            "prost_types",
        ],
    ),
];

/// The words of a header's "Knows no A, no B and no C."
fn not_known(source: &Source) -> Vec<String> {
    let header = source
        .text
        .lines()
        .map_while(|line| line.strip_prefix("//!"));
    let header = header.collect::<Vec<_>>().join(" ");
    let header = header.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((_, rest)) = header.split_once("nows no ") else {
        return Vec::new();
    };
    let said = rest.split(['.', ':', ';']).next().unwrap();
    said.replace(" and no ", ", no ")
        .split(", no ")
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_file_does_not_import_what_its_header_says_it_does_not_know() {
    for source in product().iter().flat_map(|of| of.files.values()) {
        for word in not_known(source) {
            let Some((_, imports)) = NOT_KNOWN.iter().find(|(known, _)| *known == word) else {
                panic!("{}: what would \"no {word}\" not import?", source.path);
            };
            for import in *imports {
                assert!(
                    !source.code.contains(import),
                    "{} knows no {word}, and names {import}",
                    source.path
                );
            }
        }
    }
}
