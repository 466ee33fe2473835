//! Texts that must not appear in any log line, span or URL.

use std::path::Path;
use std::sync::{Arc, Mutex};

/// What the editors, browsers and files of one test have shown that nobody else may see.
#[derive(Debug, Clone, Default)]
pub struct Secrets(Arc<Mutex<Vec<Text>>>);

#[derive(Debug)]
struct Text {
    text: String,
    /// Shown to a person on purpose, who types or compares it.
    is_shown: bool,
}

impl Secrets {
    pub fn add(&self, secret: &str) {
        self.push(secret, false);
    }

    /// A code that an editor's program may print, because a person reads it there.
    pub fn add_shown(&self, code: &str) {
        self.push(code, true);
    }

    fn push(&self, text: &str, is_shown: bool) {
        if text.len() >= 8 {
            self.0.lock().unwrap().push(Text {
                text: text.to_owned(),
                is_shown,
            });
        }
    }

    /// The lines of all key files below a folder.
    pub fn add_key_files(&self, folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.add_key_files(&path);
            } else if path.extension().is_some_and(|end| end == "key") {
                let text = std::fs::read_to_string(path).unwrap();
                text.lines()
                    .filter(|line| !line.starts_with("-----"))
                    .for_each(|line| self.add(line));
            }
        }
    }

    /// All of them, as texts that an attacker would try.
    pub fn all(&self) -> Vec<String> {
        self.0
            .lock()
            .unwrap()
            .iter()
            .map(|secret| secret.text.clone())
            .collect()
    }

    #[track_caller]
    pub fn assert_absent(&self, text: &str, place: &str) {
        self.search(text, place, |_| true);
    }

    /// The same, of what an editor's program has said to the person before it.
    #[track_caller]
    pub fn assert_absent_but_shown(&self, text: &str, place: &str) {
        self.search(text, place, |secret| !secret.is_shown);
    }

    #[track_caller]
    fn search(&self, text: &str, place: &str, is_meant: impl Fn(&Text) -> bool) {
        for secret in self
            .0
            .lock()
            .unwrap()
            .iter()
            .filter(|secret| is_meant(secret))
        {
            assert!(
                !text.contains(secret.text.as_str()),
                "a secret stands in {place}"
            );
        }
    }

    /// URLs end in histories, in proxies' logs and in referrers.
    #[track_caller]
    pub fn assert_not_in_url(&self, url: &str) {
        self.assert_absent(url, "a URL");
    }
}
