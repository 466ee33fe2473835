//! The text that people read is plain English: it contains no phrase of the list below, and the
//! documentation of a function begins with a verb or a noun.

use std::path::{Path, PathBuf};

use vvs_tests::root;

/// Inverted, archaic or translated turns. Each has a plain equivalent.
const PHRASES: &[&str] = &[
    "all the same",
    "any more",
    "anew",
    "are let in",
    "are none",
    "be had",
    "be it",
    "but for",
    "came of it",
    "comes of it",
    "for ever",
    "go without",
    "goes without",
    "hear of",
    "heard of",
    "hears of",
    "in vain",
    "is let in",
    "is none",
    "let in",
    "lets in",
    "mostly",
    "nobody but",
    "none of these",
    "nothing but",
    "of his own",
    "of its own",
    "of their own",
    "so many",
    "stand in",
    "stands in",
    "such a",
    "such an",
    "what nobody",
    "whoever",
    "whom",
    "whomever",
];

/// Where to look: a file, or a folder and the extension of its files.
const PLACES: &[(&str, &str)] = &[
    ("docs", "md"),
    ("deploy", "md"),
    ("clients", "md"),
    ("proto/vvs", "proto"),
    ("services/web/templates", "html"),
    ("services/identity/templates", "html"),
    ("services/identity/templates", "html"),
    ("services/web/assets", "js"),
    ("proto/src", "rs"),
    ("proto/tests", "rs"),
    ("services", "rs"),
    ("gateway", "rs"),
    ("clients/rust", "rs"),
    ("CHANGELOG.md", "md"),
    ("README.md", "md"),
    ("SECURITY.md", "md"),
    ("examples", "md"),
];

/// The files with this extension in a folder and in all folders below it.
fn files(place: &Path, extension: &str) -> Vec<PathBuf> {
    if place.is_file() {
        return vec![place.to_owned()];
    }

    let entries = std::fs::read_dir(place)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let with_extension = files
        .into_iter()
        .filter(|path| path.extension().is_some_and(|found| found == extension));

    let below = folders
        .iter()
        .filter(|folder| !folder.ends_with("node_modules"))
        .flat_map(|folder| self::files(folder, extension));
    with_extension.chain(below).collect()
}

/// The words of a text with the numbers of their lines, without the marks that begin a comment.
fn words(text: &str) -> Vec<(usize, &str)> {
    let lines = text.lines().enumerate();
    let words = lines.flat_map(|(index, line)| {
        let words = line.split(|letter: char| letter.is_whitespace() || letter == '"');
        words.map(move |word| (index + 1, word))
    });

    words
        .filter(|(_, word)| !matches!(*word, "" | "//" | "///" | "//!" | "#" | ">"))
        .collect()
}

/// Returns whether these words are the phrase. Punctuation may stand around it, not inside.
fn is_phrase(words: &[(usize, &str)], phrase: &[&str]) -> bool {
    let mark = |letter: char| !letter.is_alphanumeric() && letter != '_';
    let last = phrase.len() - 1;

    words
        .iter()
        .zip(phrase)
        .enumerate()
        .all(|(index, ((_, word), wanted))| {
            let word = if index == 0 {
                word.trim_start_matches(mark)
            } else {
                word
            };
            let word = if index == last {
                word.trim_end_matches(mark)
            } else {
                word
            };
            word.eq_ignore_ascii_case(wanted)
        })
}

/// The lines of a text on which a phrase of the list begins.
fn found(text: &str) -> Vec<(usize, &'static str)> {
    let words = words(text);
    let mut found = Vec::new();

    for phrase in PHRASES {
        let parts: Vec<_> = phrase.split(' ').collect();
        let places = words
            .windows(parts.len())
            .filter(|words| is_phrase(words, &parts));
        found.extend(places.map(|words| (words[0].0, *phrase)));
    }

    found.sort_unstable();
    found
}

/// How the documentation of a function does not begin: it would be a clause, and no sentence.
const CLAUSES: &[&str] = &[
    "How", "That", "What", "When", "Where", "Whether", "Which", "Who", "Whose", "Why",
];

/// The lines of Rust code on which the documentation of a function begins with a clause.
fn clauses(code: &str) -> Vec<usize> {
    let lines: Vec<_> = code.lines().map(str::trim_start).collect();
    let is_documentation = |line: &&str| line.starts_with("///");
    let mut found = Vec::new();

    for (index, line) in lines.iter().enumerate() {
        let begins = is_documentation(line) && !lines[..index].last().is_some_and(is_documentation);
        let first = line.trim_start_matches('/').split_whitespace().next();
        if !begins || !first.is_some_and(|word| CLAUSES.contains(&word)) {
            continue;
        }

        let mut rest = lines[index..].iter();
        let item = rest.find(|line| !is_documentation(line) && !line.starts_with("#["));
        if item.is_some_and(|item| item.split_whitespace().any(|word| word == "fn")) {
            found.push(index + 1);
        }
    }

    found
}

#[test]
fn no_text_contains_a_phrase_of_the_list() {
    let mut all = Vec::new();
    for (place, extension) in PLACES {
        for file in files(&root().join(place), extension) {
            let text = std::fs::read_to_string(&file).unwrap();
            let name = file.strip_prefix(root()).unwrap().display();
            all.extend(
                found(&text)
                    .into_iter()
                    .map(|(line, phrase)| format!("{name}:{line}: {phrase}")),
            );
        }
    }

    all.sort_unstable();
    assert!(all.is_empty(), "{} places:\n{}", all.len(), all.join("\n"));
}

#[test]
fn no_documentation_of_a_function_begins_with_a_clause() {
    let mut all = Vec::new();
    for (place, _) in PLACES.iter().filter(|(_, extension)| *extension == "rs") {
        for file in files(&root().join(place), "rs") {
            let code = std::fs::read_to_string(&file).unwrap();
            let name = file.strip_prefix(root()).unwrap().display();
            all.extend(
                clauses(&code)
                    .into_iter()
                    .map(|line| format!("{name}:{line}")),
            );
        }
    }

    all.sort_unstable();
    assert!(all.is_empty(), "{} places:\n{}", all.len(), all.join("\n"));
}

#[test]
fn a_clause_is_found_above_attributes_and_only_above_a_function() {
    let code =
        "/// Whether it is so,\n/// or not.\n#[must_use]\nfn so() {}\n/// Whether.\nso: bool,\n";
    assert_eq!(clauses(code), [1]);
}

#[test]
fn a_phrase_is_found_across_lines_and_in_any_case_and_words_that_contain_it_are_not() {
    let text = "/// Whoever calls, be\n/// it (anew), is `whoever_calls`.\nLet it be. It is of its owner.\n\
        error(\"whoever\")";
    assert_eq!(
        found(text),
        [(1, "be it"), (1, "whoever"), (2, "anew"), (4, "whoever")]
    );
}
