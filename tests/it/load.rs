//! The load tool, with numbers so small that they say nothing: that it runs, compares what it
//! promises to compare, and writes what it promises to write.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;
use vvs_auth::peer::Role;
use vvs_mesh::pki;
use vvs_tests::Stack;
use vvs_tests::command::command;

/// It starts many servers, one after the other.
const PATIENCE: Duration = Duration::from_mins(3);

/// Its exit code and what it said on both ends.
async fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = command("vvs-load", arguments).output();
    let output = timeout(PATIENCE, output).await.unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

async fn told(arguments: &[&str]) -> String {
    let (code, out, errors) = run(arguments).await;
    assert_eq!(code, 0, "{errors}");
    out
}

/// The rows of the one report.
async fn rows(arguments: &[&str]) -> Vec<Value> {
    let out = told(&[arguments, &["--json"]].concat()).await;
    let report: Value = serde_json::from_str(&out).unwrap_or_else(|cause| panic!("{cause}: {out}"));
    report["rows"].as_array().unwrap().clone()
}

fn column<'a>(rows: &'a [Value], name: &str) -> Vec<&'a Value> {
    rows.iter().map(|row| &row[name]).collect()
}

/// Each of these says something in each of these columns.
fn assert_numbers(rows: &[Value], columns: &[&str]) {
    for row in rows {
        for column in columns {
            assert!(
                row[column].as_f64().unwrap_or_default() > 0.0,
                "{column} of {row}"
            );
        }
    }
}

/// A plot with so many points.
fn assert_drawn(plot: &Path, points: usize) {
    let drawn = std::fs::read_to_string(plot).unwrap();
    assert!(
        drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n"),
        "{drawn}"
    );
    assert_eq!(
        (
            drawn.matches("<circle ").count(),
            drawn.matches("NaN").count()
        ),
        (points, 0),
        "{drawn}"
    );
}

/// What a user says of a system that runs already.
fn whereabouts(stack: &Stack) -> Vec<String> {
    let (at, files) = (
        stack.addresses(),
        pki::files(stack.data().path(), Role::Web),
    );
    let path = |path: PathBuf| path.to_str().unwrap().to_owned();
    let pairs = [
        ("--url", at.public_url.to_string()),
        ("--sessions", at.sessions_rpc.to_string()),
        ("--cert", path(files.cert)),
        ("--key", path(files.key)),
        ("--ca", path(files.ca.unwrap())),
        ("--pid", std::process::id().to_string()),
    ];

    pairs
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect()
}

/// A command, and the system that it is run against.
async fn rows_of(stack: &Stack, arguments: &[&str]) -> Vec<Value> {
    let whereabouts = whereabouts(stack);
    let whereabouts: Vec<_> = whereabouts.iter().map(String::as_str).collect();
    rows(&[arguments, &whereabouts].concat()).await
}

#[tokio::test]
async fn deliveries_are_measured_at_each_number_of_connections_beside_the_floor() {
    let folder = tempfile::tempdir().unwrap();
    let plot = folder.path().join("plot.svg");
    let arguments = [
        "deliver",
        "--connections",
        "4,8",
        "--rounds",
        "2",
        "--rate",
        "100",
        "--plot",
        plot.to_str().unwrap(),
    ];
    let rows = rows(&arguments).await;
    let names = [
        "floor",
        "relay",
        "relay / floor",
        "gateway and relay",
        "gateway and relay / floor",
    ];
    assert_eq!(column(&rows, "server"), [names, names].concat());
    assert_eq!(column(&rows, "connections"), [[4; 5], [8; 5]].concat());

    assert_numbers(
        &rows,
        &[
            "median ms",
            "p90 ms",
            "p99 ms",
            "p99.9 ms",
            "a second",
            "processor µs each",
        ],
    );

    for row in &rows {
        // Half of the connections, in each of two rounds.
        let buckets = row["histogram µs"].as_array().unwrap();
        let counted: u64 = buckets
            .iter()
            .map(|bucket| bucket[1].as_u64().unwrap())
            .sum();
        let is_ratio = row["server"].as_str().unwrap().ends_with("/ floor");
        let expected = if is_ratio {
            0
        } else {
            row["connections"].as_u64().unwrap()
        };

        assert_eq!(counted, expected, "{row}");
    }

    assert_drawn(&plot, 6);
}

#[tokio::test]
async fn whole_logins_are_counted_and_timed_beside_the_floor() {
    let rows = rows(&["login", "--logins", "6", "--at-once", "2"]).await;
    assert_eq!(column(&rows, "server"), ["floor", "four roles"]);
    assert_numbers(
        &rows,
        &[
            "logins a second",
            "median ms",
            "p99 ms",
            "processor ms each",
        ],
    );
}

#[tokio::test]
async fn memory_is_measured_of_each_kind_of_server_and_has_a_limit() {
    // Enough that a process needs memory for them that it did not have before.
    let folder = tempfile::tempdir().unwrap();
    let plot = folder.path().join("plot.svg");
    let arguments = ["idle", "--connections", "200,400", "--heartbeat", "1"];
    let told = rows(&[&arguments[..], &["--plot", plot.to_str().unwrap()]].concat()).await;
    let names = [
        "floor",
        "relay, plain",
        "relay, mutual TLS",
        "gateway before a relay",
    ];
    assert_eq!(column(&told, "server"), [names, names].concat());
    assert_eq!(column(&told, "connections"), [[200; 4], [400; 4]].concat());

    assert_numbers(&told, &["bytes per connection", "to the floor"]);
    assert_drawn(&plot, 8);
    let arguments = [
        "idle",
        "--connections",
        "200",
        "--heartbeat",
        "1",
        "--max-bytes",
        "1",
    ];
    let (code, out, errors) = run(&arguments).await;
    assert_eq!(code, 1, "{errors}");
    assert!(
        out.contains("bytes per connection") && errors.contains("more than 1"),
        "{out}{errors}"
    );
}

#[tokio::test]
async fn editors_that_come_back_are_counted() {
    let rows = rows(&["reconnect", "--editors", "5"]).await;
    assert_eq!(
        column(&rows, "server"),
        ["floor", "relay", "relay, tokens run out"]
    );
    assert_eq!(
        column(&rows, "calls to sessions"),
        [&Value::Null, &0.into(), &5.into()]
    );

    assert_numbers(
        &rows,
        &[
            "all back after ms",
            "median ms",
            "p99 ms",
            "processor µs each",
        ],
    );
    assert_numbers(&rows[1..], &["revoked, median ms", "revoked, p99 ms"]);
}

#[tokio::test]
async fn a_system_that_runs_already_is_measured_beside_the_floor_and_left_without_sessions() {
    let stack = Stack::start_with(&["--relay-heartbeat-interval", "1s"]).await;
    let (relay, admin) = (
        stack.addresses().relay_rpc.to_string(),
        stack.addresses().admin.to_string(),
    );

    let rows = rows_of(&stack, &["idle", "--connections", "30"]).await;
    assert_eq!(column(&rows, "server"), ["floor", "the system"]);

    let rows = rows_of(
        &stack,
        &[
            "deliver",
            "--connections",
            "30",
            "--rounds",
            "1",
            "--relay",
            &relay,
        ],
    )
    .await;
    assert_eq!(
        column(&rows, "server"),
        ["floor", "the system", "the system / floor"]
    );

    assert_numbers(&rows, &["median ms", "a second", "processor µs each"]);

    let rows = rows_of(
        &stack,
        &["reconnect", "--editors", "30", "--sessions-admin", &admin],
    )
    .await;
    assert_eq!(column(&rows, "server"), ["floor", "the system"]);
    assert_eq!(
        column(&rows, "calls to sessions"),
        [&Value::Null, &0.into()]
    );

    assert_eq!(
        stack.sessions().await,
        120,
        "30 each for idle, for deliver, and for reconnect at the system and at the floor"
    );
    assert_eq!(
        stack
            .database()
            .count("SELECT count(*) FROM sessions WHERE revoked_at IS NULL")
            .await,
        0
    );

    let url = stack.addresses().public_url.to_string();
    let rows = self::rows(&["login", "--logins", "4", "--url", &url]).await;
    assert_eq!(column(&rows, "server"), ["floor", "the system"]);
    assert!(
        rows[1]["median ms"].as_f64().unwrap() > 0.0 && rows[1]["processor ms each"].is_null(),
        "{}",
        rows[1]
    );
}

#[tokio::test]
async fn what_cannot_be_measured_of_a_system_that_runs_already_is_said() {
    let stack = Stack::start().await;
    let whereabouts = whereabouts(&stack);
    let whereabouts: Vec<_> = whereabouts.iter().map(String::as_str).collect();
    let (code, _, errors) = run(&[&["idle"], &whereabouts[..whereabouts.len() - 2]].concat()).await;
    assert!(code == 1 && errors.contains("--pid"), "{code} {errors}");

    let (code, _, errors) = run(&["reconnect", "--url", "http://127.0.0.1:1"]).await;
    assert!(
        code == 2 && errors.contains("--sessions") && errors.contains("--cert"),
        "{code} {errors}"
    );

    let (code, _, errors) = run(&["login", "--url", "https://vvs.example"]).await;
    assert!(
        code == 1 && errors.contains("http://127.0.0.1:8080"),
        "{code} {errors}"
    );
}

#[tokio::test]
async fn without_json_a_table_is_printed_that_a_person_reads() {
    let out = told(&["deliver", "--connections", "2", "--rounds", "1"]).await;
    let lines: Vec<_> = out.lines().collect();
    assert!(lines[0].starts_with("DeliverAuth: 500 a second"), "{out}");
    assert!(
        lines[1].contains("processor µs each") && !lines[1].contains("histogram"),
        "{out}"
    );
    assert!(
        lines[2].contains("floor")
            && lines[3].contains("relay")
            && lines[4].contains("relay / floor"),
        "{out}"
    );
}

#[tokio::test]
async fn sign_ins_are_compared_under_attack_beside_one_and_undisturbed() {
    let weak = [
        "neighbours",
        "--addresses",
        "1",
        "--streams",
        "4",
        "--rounds",
        "1",
        "--logins",
        "1",
        "--most",
    ];
    let rows = rows(&[&weak[..], &["1000"]].concat()).await;
    assert_eq!(rows.len(), 3);

    assert_numbers(
        &rows,
        &["count", "median ms", "p90 ms", "times undisturbed"],
    );
    let (code, _, errors) = run(&[&weak[..], &["0.001"]].concat()).await;
    assert!(
        code != 0 && errors.contains("under attack a sign-in takes"),
        "{errors}"
    );
}
