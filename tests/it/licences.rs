//! What the programs that we ship are made of: `THIRD-PARTY.md` lists it, with its licences.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use vvs_tests::root;

const PAGE: &str = "THIRD-PARTY.md";

const HEAD: &str = "# Third-party software

The programs `vvs-mesh` and `vvs` contain the crates below. Where a crate can be used under the
Apache License 2.0, we use it under that licence, whose text is in [LICENSE](LICENSE). The texts of
all other licences follow the table, with the notices that come with the crates. SQLite, which
`libsqlite3-sys` contains, is in the public domain.

This page is generated: run `VVS_REGENERATE=1 cargo test -p vvs-tests --test it licences`.

| crate | version | licence | copyright |
| --- | --- | --- | --- |
";

/// For a crate whose package says "MIT" and holds no text.
const MIT: &str = r#"Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE."#;

/// A crate that ends up in a program, on any system.
struct Crate {
    name: String,
    version: String,
    licence: String,
    authors: Vec<String>,
    folder: PathBuf,
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn crates() -> Vec<Crate> {
    let programs = ["--package", "vvs-mesh", "--package", "vvs-client"];
    let tree = [
        "tree", "--locked", "--edges", "normal", "--target", "all", "--prefix", "none",
    ];
    let tree = cargo(&[&tree[..], &programs, &["--format", "{p}"]].concat());
    // "NAME vVERSION", and more behind it for crates of ours.
    let linked: BTreeSet<_> = tree
        .lines()
        .filter_map(|line| line.split_once(" v"))
        .map(|(name, rest)| (name.to_owned(), rest.split(' ').next().unwrap().to_owned()))
        .collect();

    let metadata = cargo(&["metadata", "--locked", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let third = packages.filter(|package| !package["source"].is_null());
    let third = third.map(|package| Crate {
        name: text(&package["name"]),
        version: text(&package["version"]),
        licence: text(&package["license"]),
        authors: package["authors"]
            .as_array()
            .unwrap()
            .iter()
            .map(name_of)
            .collect(),
        folder: Path::new(package["manifest_path"].as_str().unwrap())
            .parent()
            .unwrap()
            .to_owned(),
    });

    let mut crates: Vec<_> = third
        .filter(|it| linked.contains(&(it.name.clone(), it.version.clone())))
        .collect();
    crates.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    crates
}

/// An author without the address: "NAME <ADDRESS>".
fn name_of(author: &Value) -> String {
    let author = author.as_str().unwrap_or_default();
    author.split(" <").next().unwrap_or_default().to_owned()
}

impl Crate {
    fn is_apache(&self) -> bool {
        let alternatives = self.licence.split(" OR ").flat_map(|some| some.split('/'));
        !self.licence.contains(" AND ")
            && alternatives
                .map(str::trim)
                .any(|licence| licence == "Apache-2.0")
    }

    /// The licences, notices and lists of authors that lie in the package, by their names.
    fn files(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();

        for entry in std::fs::read_dir(&self.folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().to_uppercase();
            let kinds = [
                "LICENSE",
                "LICENCE",
                "COPYING",
                "COPYRIGHT",
                "NOTICE",
                "UNLICENSE",
            ];
            if path.is_file() && kinds.iter().any(|kind| name.starts_with(kind)) {
                let bytes = std::fs::read(&path).unwrap();
                files.insert(name, String::from_utf8_lossy(&bytes).into_owned());
            }
        }

        files
    }

    fn copyright(&self) -> String {
        let mut lines = Vec::new();

        for text in self.files().values() {
            for line in text.lines().map(str::trim) {
                let rest = line
                    .strip_prefix("Copyright")
                    .map(str::trim_start)
                    .unwrap_or_default();
                let holds = rest.starts_with(|first: char| first.is_ascii_digit() || first == '(');
                if (holds || rest.starts_with('©')) && !lines.contains(&line.to_owned()) {
                    lines.push(line.to_owned());
                }
            }
        }

        // A long list of copyrights is in the text below, whole.
        lines.truncate(5);
        if lines.is_empty() {
            self.authors.join(", ")
        } else {
            lines.join("; ")
        }
        .replace('|', "/")
    }

    /// What has to be shown besides the Apache License.
    fn texts(&self) -> Vec<String> {
        let is_shown = |name: &str| {
            name.starts_with("NOTICE") || !(self.is_apache() || name.contains("APACHE"))
        };
        let files = self.files().into_iter();
        let texts: Vec<_> = files
            .filter(|(name, _)| is_shown(name))
            .map(|(_, text)| text)
            .collect();
        if !texts.is_empty() || self.is_apache() {
            return texts;
        }

        assert_eq!(
            self.licence, "MIT",
            "{} {} holds no licence text",
            self.name, self.version
        );
        let holder = if self.authors.is_empty() {
            format!("the authors of {}", self.name)
        } else {
            self.authors.join(", ")
        };
        vec![format!("Copyright (c) {holder}\n\n{MIT}")]
    }
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    // By their words: packages break the lines of the same text in different places.
    let mut texts: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();

    for it in crates() {
        let Crate {
            name,
            version,
            licence,
            ..
        } = &it;
        writeln!(
            page,
            "| {name} | {version} | {licence} | {} |",
            it.copyright()
        )
        .unwrap();
        for text in it.texts() {
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let (_, users) = texts.entry(words).or_insert_with(|| (text, Vec::new()));
            users.push(format!("{name} {version}"));
        }
    }

    let mut texts: Vec<_> = texts.into_values().collect();
    texts.sort_by(|(_, a), (_, b)| a.cmp(b));
    for (text, users) in texts {
        let lines: Vec<_> = text.trim_matches('\n').lines().map(str::trim_end).collect();
        write!(
            page,
            "\n## {}\n\n````text\n{}\n````\n",
            users.join(", "),
            lines.join("\n")
        )
        .unwrap();
    }

    page
}

#[test]
fn the_licences_of_all_that_is_shipped_are_listed() {
    let expected = page();
    let path = root().join(PAGE);

    if std::env::var_os("VVS_REGENERATE").is_some() {
        std::fs::write(path, expected).unwrap();
    } else {
        let found = std::fs::read_to_string(path).unwrap_or_default();
        let fresh = found == expected;
        assert!(
            fresh,
            "{PAGE} is out of date: run this test with VVS_REGENERATE=1"
        );
    }
}
