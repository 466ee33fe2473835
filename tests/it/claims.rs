//! The security page promises nothing that no test holds.

use vvs_tests::root;

const PAGE: &str = "docs/security.md";
/// What stands below these headings is admitted, not promised.
const ADMITTED: [&str; 7] = [
    "## What is worth stealing",
    "### What a link leaves open",
    "### Tokens at your own services",
    "### What it takes to exhaust the edge",
    "### What the development sign-in leaves open",
    "## What each stolen thing gives",
    "## What is not defended",
];

/// Paragraphs, list items and rows of tables, each on one line. Headings and the heads of tables
/// are none of them.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = vec![String::new()];
    let mut lines = text.lines().peekable();

    while let Some(line) = lines.next() {
        let is_rule = |line: &str| line.starts_with("| ---");
        let is_table_head = lines.peek().is_some_and(|next| is_rule(next));
        if line.is_empty() || line.starts_with('#') || is_rule(line) || is_table_head {
            blocks.push(String::new());
            continue;
        }

        if line.starts_with("- ") || line.starts_with('|') {
            blocks.push(String::new());
        }

        let block = blocks.last_mut().unwrap();
        block.push_str(line.trim());
        block.push(' ');
    }

    blocks.retain(|block| !block.is_empty());

    blocks
}

/// The tests that a block names: [`the_test`](its/file.rs).
fn tests(block: &str) -> Vec<(&str, &str)> {
    let named = block
        .split("[`")
        .skip(1)
        .filter_map(|rest| rest.split_once("`]("));
    let named = named.filter_map(|(name, rest)| Some((name, rest.split_once(')')?.0)));
    named
        .filter(|(name, path)| path.contains(".rs") && name.contains('_'))
        .collect()
}

/// Whether this function of the file is a test: by its attribute, or because a macro that makes
/// tests names it.
fn is_test(code: &str, name: &str) -> bool {
    let Some((before, after)) = code.split_once(&format!("fn {name}(")) else {
        return false;
    };

    let head = before.rsplit("\n\n").next().unwrap();

    let has_attribute = head.contains("#[test]") || head.contains("#[tokio::test");
    let around = [before, after];
    let is_listed = [",", "\n"].iter().any(|end| {
        around
            .iter()
            .any(|rest| rest.contains(&format!("    {name}{end}")))
    });

    has_attribute || is_listed || head.contains("proptest! {")
}

/// What the page promises: all of it but its opening and what it admits.
fn promised(page: &str) -> String {
    let sections = page
        .split("\n#")
        .skip(1)
        .map(|section| format!("#{section}"));
    sections
        .filter(|section| !ADMITTED.contains(&section.lines().next().unwrap()))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn every_claim_of_the_security_page_names_a_test_or_is_listed_as_not_defended() {
    let page = std::fs::read_to_string(root().join(PAGE)).unwrap();
    for heading in ADMITTED {
        assert!(page.lines().any(|line| line == heading), "{heading}");
    }

    let mut open = Vec::new();
    for block in blocks(&promised(&page)) {
        // One that ends so leads over to claims with tests of their own.
        if tests(&block).is_empty() && !block.ends_with(": ") {
            open.push(block);
        }
    }

    assert!(open.is_empty(), "no test holds:\n{}", open.join("\n"));
}

#[test]
fn every_test_that_the_security_page_names_exists() {
    let text = std::fs::read_to_string(root().join(PAGE)).unwrap();
    for block in blocks(&text) {
        for (name, path) in tests(&block) {
            let code = std::fs::read_to_string(root().join("docs").join(path)).unwrap();
            assert!(is_test(&code, name), "{path} has no test {name}");
        }
    }
}

#[test]
fn a_claim_without_a_test_is_found() {
    let page = "A:\n\n- one\n  line ([`a_b`](x.rs))\n- two\n\n| what | why |\n| --- | --- |\n| c | \
        [`c_d`](y.rs) |\n| e | f |\n";
    let open: Vec<_> = blocks(page)
        .into_iter()
        .filter(|block| tests(block).is_empty())
        .collect();
    assert_eq!(open, ["A: ", "- two ", "| e | f | "]);
}

#[test]
fn one_cryptographic_library_is_linked_and_no_code_of_ours_is_unsafe() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let arguments = [
        "tree",
        "--workspace",
        "--offline",
        "--prefix",
        "none",
        "--edges",
        "normal",
    ];
    let tree = std::process::Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        tree.status.success(),
        "{}",
        String::from_utf8_lossy(&tree.stderr)
    );

    let linked = String::from_utf8(tree.stdout).unwrap();
    assert!(linked.contains("aws-lc-rs v"));

    for other in ["openssl", "openssl-sys", "native-tls", "ring", "rsa"] {
        assert!(
            !linked
                .lines()
                .any(|line| line.starts_with(&format!("{other} v"))),
            "{other}"
        );
    }

    let workspace = read("Cargo.toml");
    assert!(workspace.contains("unsafe_code = \"forbid\""));

    let (_, members) = workspace.split_once("members = [").unwrap();

    for member in members
        .split(']')
        .next()
        .unwrap()
        .split('"')
        .skip(1)
        .step_by(2)
    {
        let lints = read(&format!("{member}/Cargo.toml"));
        // Generated code has lints of its own.
        assert!(
            member == "proto" || lints.contains("[lints]\nworkspace = true"),
            "{member}"
        );
    }
}
