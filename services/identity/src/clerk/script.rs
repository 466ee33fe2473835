//! ClerkJS's own scripts, served from a directory instead of from Clerk. They are read once, so
//! that no path in a request ever reaches the file system.

use std::collections::HashMap;
use std::path::Path;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::provider::{Response, bare};

/// The packages, and the first script of each.
const PACKAGES: [(&str, &str); 2] = [("clerk-js", "clerk.browser.js"), ("ui", "ui.browser.js")];

/// The scripts of both packages.
#[derive(Debug)]
pub(super) struct Scripts(HashMap<(&'static str, String), Bytes>);

impl Scripts {
    /// Reads `@clerk/clerk-js/dist/*.js` and `@clerk/ui/dist/*.js` below a directory.
    pub(super) fn read(directory: &Path) -> Result<Self, String> {
        let mut files = HashMap::new();
        for (package, first) in PACKAGES {
            let dist = directory.join("@clerk").join(package).join("dist");
            let unreadable =
                |cause: std::io::Error| format!("cannot be read: {}: {cause}", dist.display());
            for entry in std::fs::read_dir(&dist).map_err(unreadable)? {
                let path = entry.map_err(unreadable)?.path();
                let is_script =
                    path.extension().is_some_and(|extension| extension == "js") && path.is_file();

                if let Some(name) = path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .filter(|_| is_script)
                {
                    files.insert(
                        (package, name.to_owned()),
                        std::fs::read(&path).map_err(unreadable)?.into(),
                    );
                }
            }

            if !files.contains_key(&(package, first.to_owned())) {
                return Err(format!("has no {first}: {}", dist.display()));
            }
        }

        Ok(Self(files))
    }

    /// Returns the answer for a file of a package such as `ui@1`. ClerkJS asks for the exact
    /// version of the script that it began with, and only one version is here.
    pub(super) fn answer(&self, package: &str, file: &str) -> Response {
        let name = package
            .split_once('@')
            .map_or(package, |(name, _version)| name);
        let package = PACKAGES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(known, _)| *known);
        match package.and_then(|package| self.0.get(&(package, file.to_owned()))) {
            Some(script) => {
                let mut answer = Response::new(script.clone());
                *answer.headers_mut() = headers();
                answer
            }
            None => bare(StatusCode::NOT_FOUND),
        }
    }
}

/// Five minutes, as for our own files: with a longer time, the first script could ask for parts
/// that are gone after an update.
fn headers() -> HeaderMap {
    HeaderMap::from_iter([
        (
            CONTENT_TYPE,
            HeaderValue::from_static("text/javascript; charset=utf-8"),
        ),
        (
            CACHE_CONTROL,
            HeaderValue::from_static("public, max-age=300"),
        ),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("secret.js"), "no").unwrap();
        for (package, first) in PACKAGES {
            let dist = directory.path().join("@clerk").join(package).join("dist");
            std::fs::create_dir_all(dist.join("folder.js")).unwrap();
            std::fs::write(dist.join(first), package).unwrap();
            std::fs::write(dist.join("types.d.ts"), "no").unwrap();
        }
        directory
    }

    #[test]
    fn only_the_packages_scripts_are_served_whatever_their_version() {
        let directory = directory();
        let files = Scripts::read(directory.path()).unwrap();
        for package in ["ui", "ui@1", "ui@1.34.0", "ui@latest"] {
            let answer = files.answer(package, "ui.browser.js");
            assert_eq!(answer.status(), StatusCode::OK, "{package}");
            assert_eq!(
                answer.headers()[CONTENT_TYPE],
                "text/javascript; charset=utf-8"
            );
            assert_eq!(answer.headers()[CACHE_CONTROL], "public, max-age=300");
        }

        for (package, file) in [
            ("ui@1", "clerk.browser.js"),
            ("ui@1", "types.d.ts"),
            ("ui@1", "folder.js"),
            ("ui@1", ""),
            ("ui@1", "../../../secret.js"),
            ("ui@1", "..%2f..%2f..%2fsecret.js"),
            ("../ui@1", "ui.browser.js"),
            ("backend@1", "index.js"),
        ] {
            assert_eq!(
                files.answer(package, file).status(),
                StatusCode::NOT_FOUND,
                "{package} {file}"
            );
        }
    }

    #[test]
    fn a_directory_without_the_scripts_is_refused_by_name() {
        let directory = directory();
        std::fs::remove_file(directory.path().join("@clerk/ui/dist/ui.browser.js")).unwrap();
        assert!(
            Scripts::read(directory.path())
                .unwrap_err()
                .contains("ui.browser.js")
        );
        assert!(
            Scripts::read(&directory.path().join("missing"))
                .unwrap_err()
                .contains("cannot be read")
        );
    }
}
