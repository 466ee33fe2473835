//! Which files of a crate speak to the outside; every other file is domain.

use super::source::product;

/// What only a file that speaks to the outside may name.
const OUTSIDE: &[&str] = &[
    "axum",
    "tonic",
    "tungstenite",
    "sqlx",
    "async_nats",
    "vvs_proto::internal",
    "vvs_proto::relay",
    "vvs_proto::session",
    "vvs_proto::token",
];

/// The files of a crate that speak to the outside, from its `src`; a folder is all in it.
const TRANSPORT: &[(&str, &[(&str, &str)])] = &[
    (
        "vvs-relay",
        &[
            ("lib.rs", "puts the ports together"),
            ("refusal.rs", "what callers see of a refusal"),
            ("contract.rs", "the contract in this relay's words"),
            ("rpc.rs", "the calls that a relay answers"),
            ("authority/client.rs", "the calls that a relay makes"),
            ("backplane/message.rs", "what crosses between relays"),
            ("backplane/nats.rs", "the connection to the broker"),
            ("backplane/nats/", "what the broker carries"),
            ("socket.rs", "an editor's WebSocket"),
            ("socket/", "an editor's WebSocket"),
            ("upgrade.rs", "how it begins"),
        ],
    ),
    (
        "vvs-sessions",
        &[
            ("lib.rs", "puts the port together"),
            ("error.rs", "what callers see of an error"),
            ("rpc.rs", "the calls that sessions answers"),
            ("rpc/", "the calls that sessions answers"),
            ("store.rs", "all SQL"),
            ("store/", "all SQL"),
        ],
    ),
    (
        "vvs-web",
        &[
            ("lib.rs", "puts the port together"),
            ("call.rs", "the calls that web makes"),
            ("call/", "the calls that web makes"),
            ("error.rs", "what a browser sees of an error"),
            ("route.rs", "all paths"),
            ("route/", "all paths"),
            ("visit.rs", "a request on its way to a page"),
            ("visit/", "a request on its way to a page"),
        ],
    ),
    ("vvs-auth", &[]),
    ("vvs-identity", &[]),
];

#[test]
fn domain_files_name_no_transport() {
    for of in product() {
        let Some((_, transport)) = TRANSPORT.iter().find(|(name, _)| *name == of.name) else {
            continue;
        };

        let mut unused: Vec<_> = transport.iter().map(|(allowed, _)| *allowed).collect();
        for source in of.files.values() {
            let (_, file) = source.path.split_once("/src/").unwrap();
            let allowed = |allowed: &&str| {
                file == *allowed || allowed.ends_with('/') && file.starts_with(*allowed)
            };
            if transport.iter().any(|(path, _)| allowed(path)) {
                unused.retain(|path| !allowed(path));
                continue;
            }

            for word in OUTSIDE {
                assert!(!source.text.contains(word), "{} names {word}", source.path);
            }
        }

        assert!(unused.is_empty(), "{} has no {unused:?}", of.name);
    }
}

#[test]
fn a_crate_reads_the_clock_in_one_file() {
    for of in product() {
        let reads = |code: &str| code.contains("now_utc()") || code.contains("SystemTime::now()");
        let doors: Vec<_> = of
            .files
            .values()
            .filter(|source| reads(&source.code))
            .collect();
        let is_one = doors.len() < 2 && doors.iter().all(|door| door.path.ends_with("/clock.rs"));
        assert!(
            is_one,
            "{}: {:?}",
            of.name,
            doors.iter().map(|door| &door.path).collect::<Vec<_>>()
        );
    }
}
