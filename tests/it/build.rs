//! The build behind `tests/run`: no crate is compiled twice, and no suite is left out by mistake.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use vvs_tests::root;

/// Third-party crates with the features that cargo picks for such a selection.
fn features(selection: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--prefix",
            "none",
            "--format",
            "{p} {f}",
        ])
        .args(selection)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let tree = String::from_utf8(output.stdout).unwrap();
    let third_party = tree.lines().filter(|line| !line.contains("(/"));
    third_party
        .map(|line| line.trim_end_matches(" (*)").to_owned())
        .collect()
}

#[test]
fn programs_and_scenarios_are_built_of_the_crates_that_all_tests_are_built_of() {
    let all = features(&["--workspace"]);
    for selection in [
        &["--workspace", "--edges", "no-dev"][..],
        &["--package", "vvs-tests"],
    ] {
        let others: Vec<_> = features(selection).difference(&all).cloned().collect();
        assert!(
            others.is_empty(),
            "{selection:?} compiles again: {others:#?}"
        );
    }
}

#[test]
fn each_suite_that_is_left_out_at_first_is_there_and_says_why() {
    let root = root();
    let list = std::fs::read_to_string(root.join("tests/slow.txt")).unwrap();
    for line in list.lines() {
        let (suite, reason) = line.split_once(' ').unwrap_or_default();
        let module = suite
            .strip_suffix("::")
            .unwrap_or_default()
            .replace("::", "/");
        let is_there = |path: &Path| path.join(format!("{module}.rs")).exists();
        assert!(is_there(&root.join("tests/it")), "no such suite: {line}");
        assert!(!reason.trim().is_empty(), "no reason: {line}");
    }
}
