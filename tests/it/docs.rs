//! What the pages for people say about the repository: links lead somewhere, tests that a page
//! names exist, and code that a page shows is code that runs.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use vvs_auth::method::TABLE;
use vvs_tests::root;

use crate::structure::{files, read};

/// The lines of a page that are no code.
fn prose(text: &str) -> Vec<&str> {
    let mut fence = None;
    let mut lines = Vec::new();

    for line in text.lines() {
        let ticks = line
            .trim_start()
            .chars()
            .take_while(|it| *it == '`')
            .count();
        match fence {
            None if ticks >= 3 => fence = Some(ticks),
            None => lines.push(line),
            Some(opened) if ticks >= opened => fence = None,
            Some(_) => {}
        }
    }

    lines
}

/// What the headings of a page are linked by, as GitHub makes it.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).into_iter().filter(|line| line.starts_with('#'));
    let slug = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words
            .chars()
            .filter(|it| it.is_alphanumeric() || " -_".contains(*it));
        kept.map(|it| if it == ' ' { '-' } else { it }).collect()
    };
    headings.map(slug).collect()
}

/// The targets of the links and pictures of a page.
fn links(text: &str) -> Vec<String> {
    let text = prose(text).join("\n");
    let target = |begin, end| {
        let rests = text.split(begin).skip(1);
        rests.filter_map(move |rest: &str| Some(rest.split_once(end)?.0.to_owned()))
    };
    target("](", ')').chain(target("src=\"", '"')).collect()
}

/// `page` and the target of a link in it, put together.
fn resolve(page: &Path, target: &str) -> PathBuf {
    let mut path = page.parent().unwrap().to_owned();

    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => assert!(path.pop(), "{} leaves with {target}", page.display()),
            part => path.push(part),
        }
    }

    path
}

/// Why a link leads nowhere.
fn broken(page: &Path, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }

    let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
    let file = if target.is_empty() {
        page.to_owned()
    } else {
        resolve(page, target)
    };
    if !root().join(&file).exists() {
        return Some(format!("{}: there is no {link}", page.display()));
    }

    let is_known = anchor.is_empty() || anchors(&read(file.to_str().unwrap())).contains(anchor);
    (!is_known).then(|| format!("{}: {link} is no heading", page.display()))
}

#[test]
fn every_link_leads_to_a_file_or_a_heading() {
    let mut lost = Vec::new();

    for page in files("md") {
        let text = read(page.to_str().unwrap());
        lost.extend(links(&text).iter().filter_map(|link| broken(&page, link)));
    }

    assert!(lost.is_empty(), "{}", lost.join("\n"));
}

/// A claim names its test so: [`the_test`](its/file.rs).
#[test]
fn every_test_that_a_page_names_exists() {
    for page in files("md") {
        let text = read(page.to_str().unwrap());
        for claim in text.split("[`").skip(1) {
            let Some((name, rest)) = claim.split_once("`](") else {
                continue;
            };
            let (path, _) = rest.split_once(')').unwrap();
            let is_test = path.contains(".rs") && name.contains('_') && !name.contains('.');
            if is_test {
                let code = read(resolve(&page, path).to_str().unwrap());
                let head = format!("fn {name}(");
                assert!(code.contains(&head), "{}: {name} in {path}", page.display());
            }
        }
    }
}

#[test]
fn the_readme_names_what_exists() {
    let readme = read("README.md");

    for entry in std::fs::read_dir(root()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let is_ours = path.is_dir() && !name.starts_with('.');
        if is_ours && !["target", "node_modules"].contains(&name.as_str()) {
            assert!(
                readme.contains(&format!("({name})")),
                "README.md does not link {name}"
            );
        }
    }

    assert!(readme.contains("tests/run") && readme.contains("cargo run --release -- demo"));
}

#[test]
fn the_readme_names_every_program_that_the_tests_need() {
    let readme = read("README.md");
    let script = read("tests/run");
    let needed: Vec<_> = script
        .lines()
        .filter_map(|line| line.trim().strip_prefix("need ")?.split(' ').next())
        .collect();
    assert!(needed.contains(&"git"), "{needed:?}");

    for program in needed {
        let is_compiler = program == "cc" && readme.contains("a C compiler");
        assert!(
            is_compiler || readme.contains(&format!("`{program}`")),
            "{program}"
        );
    }
}

#[test]
fn the_code_that_the_readme_shows_is_the_example_that_the_tests_run() {
    let example = read("examples/node/verify.mjs");
    assert!(read("README.md").contains(&format!("```js\n{example}```")));
}

#[test]
fn the_architecture_page_leads_to_every_crate() {
    let page = Path::new("docs/architecture.md");
    let text = read("docs/architecture.md");
    let linked: Vec<_> = links(&text)
        .iter()
        .map(|link| resolve(page, link))
        .collect();

    for manifest in files("toml") {
        let folder = manifest.parent().unwrap();
        let is_crate = manifest.ends_with("Cargo.toml") && folder != Path::new("");
        let is_led_to = linked.iter().any(|link| link.starts_with(folder));
        assert!(!is_crate || is_led_to, "{} is not there", folder.display());
    }
}

#[test]
fn every_decision_says_why_what_it_cost_and_when_to_take_it_back() {
    const HEADINGS: [&str; 4] = ["Context", "Decision", "Measured", "When to take it back"];
    let list = read("docs/decisions/README.md");
    let is_decision =
        |file: &PathBuf| file.starts_with("docs/decisions") && !file.ends_with("README.md");
    let decisions: Vec<_> = files("md").into_iter().filter(is_decision).collect();
    assert!(!decisions.is_empty());

    for decision in decisions {
        let text = read(decision.to_str().unwrap());
        let headings: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("## "))
            .collect();
        assert_eq!(headings, HEADINGS, "{}", decision.display());

        let name = decision.file_name().unwrap().to_str().unwrap();
        assert!(
            list.contains(&format!("({name})")),
            "docs/decisions/README.md lacks {name}"
        );
    }
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let page = Path::new("docs/flow.md");
    assert_eq!(broken(page, "../Cargo.toml"), None);
    assert_eq!(broken(page, "https://example.com/nothing"), None);
    assert!(broken(page, "../nothing.rs").is_some());
    assert!(broken(page, "#no-such-heading").is_some());

    let text = "# A `b`: c\n```text\n[x](y)\n# no\n```\n[d](e)<img src=\"f\">";
    assert_eq!(anchors(text).into_iter().collect::<Vec<_>>(), ["a-b-c"]);
    assert_eq!(links(text), ["e", "f"]);
}

#[test]
fn the_contracts_page_says_who_may_call_what() {
    let page = read("proto/README.md");
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `vvs.")?.split(" | ");
        let method = cells.next()?.strip_suffix('`')?;
        let roles = cells.nth(1)?.strip_suffix(" |")?;
        Some((format!("/vvs.{method}"), roles.to_owned()))
    });
    let said: Vec<_> = rows
        .filter(|(method, _)| method.contains("/vvs.") && method[1..].contains('/'))
        .collect();

    let may: Vec<_> = TABLE
        .iter()
        .filter(|(method, _)| method.starts_with("/vvs."))
        .map(|(method, roles)| {
            let roles: Vec<_> = roles.iter().map(ToString::to_string).collect();
            ((*method).to_owned(), roles.join(", "))
        })
        .collect();
    assert_eq!(said, may);
}
