//! Programs and packages that `tests/run` installs below `target/tools`.

use std::path::{Path, PathBuf};

/// Where one is.
///
/// # Panics
///
/// Panics when it is not there.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    let mut root = Path::new(env!("CARGO_MANIFEST_DIR"));
    while !root.join("Cargo.lock").is_file() {
        root = root.parent().unwrap();
    }
    let path = root.join("target/tools").join(name);
    assert!(
        path.exists(),
        "{name} is missing: run tests/run once, which installs it below target/tools"
    );

    path
}

/// Node.js, in the version that the tests use.
#[must_use]
pub fn node() -> PathBuf {
    path("node/bin/node")
}
