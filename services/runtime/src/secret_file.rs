//! Which other users may read or change a file that a process trusts: its keys, its certificates,
//! its database. It checks only the mode, not owners or access lists beyond the mode, and checks no
//! directory.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::ValueEnum;

/// How to treat a file that others may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Policy {
    /// Do not use it.
    #[default]
    Refuse,
    /// Use it with a warning: on this volume modes cannot be set.
    Warn,
}

/// A file that users other than its owner may read or change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    path: PathBuf,
    mode: u32,
    /// The permissions to remove from the mode, in the notation of `chmod`.
    excess: Vec<&'static str>,
}

const GROUP_WRITES: u32 = 0o020;
const OTHERS_READ: u32 = 0o004;
const OTHERS_WRITE: u32 = 0o002;

impl Exposure {
    /// Checks the file behind all links; `None` when no user has excess permissions, and when it is
    /// not a plain file.
    pub fn of(path: &Path, is_secret: bool) -> io::Result<Option<Self>> {
        Ok(Self::judge(path, &std::fs::metadata(path)?, is_secret))
    }

    fn judge(path: &Path, metadata: &Metadata, is_secret: bool) -> Option<Self> {
        let mode = mode(metadata).filter(|_| metadata.is_file())?;
        let excess = [
            (mode & GROUP_WRITES != 0, "g-w"),
            (mode & OTHERS_READ != 0 && is_secret, "o-r"),
            (mode & OTHERS_WRITE != 0, "o-w"),
        ];
        let excess: Vec<_> = excess
            .into_iter()
            .filter_map(|(is_there, what)| is_there.then_some(what))
            .collect();

        (!excess.is_empty()).then(|| Self {
            path: path.to_owned(),
            mode: mode & 0o7777,
            excess,
        })
    }

    /// Returns whether every user of the machine may change the file, so that its content cannot be
    /// trusted.
    pub fn is_grave(&self) -> bool {
        self.mode & OTHERS_WRITE != 0
    }
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = if self.is_grave() {
            "every user of this machine may change it"
        } else if self.excess.contains(&"o-r") {
            "every user of this machine may read it"
        } else {
            "its group may change it"
        };

        let (path, mode, excess) = (self.path.display(), self.mode, self.excess.join(","));

        write!(
            f,
            "{path} has mode {mode:04o}, so {who}: run `chmod {excess} {path}`"
        )
    }
}

/// Reads a file, and checks that same file.
pub fn read(path: &Path, is_secret: bool) -> io::Result<(Vec<u8>, Option<Exposure>)> {
    let mut file = File::open(path)?;
    let exposure = Exposure::judge(path, &file.metadata()?, is_secret);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok((bytes, exposure))
}

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere nothing is known")]
fn mode(metadata: &Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    Some(metadata.permissions().mode())
}

/// On other systems nothing is known about other users.
#[cfg(not(unix))]
fn mode(_metadata: &Metadata) -> Option<u32> {
    None
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn set(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_others_may_change_is_grave_and_what_they_may_read_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.key");
        std::fs::write(&path, "key").unwrap();

        for (mode, secret, public) in [
            (0o400, None, None),
            (0o600, None, None),
            // Group-readable, as Kubernetes mounts a secret for a user that is not root.
            (0o440, None, None),
            (0o640, None, None),
            // With fsGroup.
            (0o660, Some((false, "g-w")), Some((false, "g-w"))),
            (0o644, Some((false, "o-r")), None),
            (0o664, Some((false, "g-w,o-r")), Some((false, "g-w"))),
            (0o602, Some((true, "o-w")), Some((true, "o-w"))),
            (0o666, Some((true, "g-w,o-r,o-w")), Some((true, "g-w,o-w"))),
            (0o777, Some((true, "g-w,o-r,o-w")), Some((true, "g-w,o-w"))),
        ] {
            set(&path, mode);
            let judged = |is_secret| {
                let found = Exposure::of(&path, is_secret).unwrap();
                found.map(|found| (found.is_grave(), found.excess.join(",")))
            };
            let expected = |found: Option<(bool, &str)>| {
                found.map(|(is_grave, excess)| (is_grave, excess.to_owned()))
            };
            assert_eq!(
                (judged(true), judged(false)),
                (expected(secret), expected(public)),
                "{mode:o}"
            );
        }

        set(&path, 0o646);
        let said = Exposure::of(&path, true).unwrap().unwrap().to_string();
        let path = path.display();
        assert_eq!(
            said,
            format!(
                "{path} has mode 0646, so every user of this machine may change it: run `chmod \
                 o-r,o-w {path}`"
            )
        );
    }

    #[test]
    fn the_file_behind_a_link_is_judged_and_no_directory_is() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (
            folder.path().join("..2026_1"),
            folder.path().join("..2026_2"),
        );
        for (version, mode) in [(&first, 0o640), (&second, 0o666)] {
            std::fs::create_dir(version).unwrap();
            std::fs::write(version.join("tls.key"), "key").unwrap();
            set(&version.join("tls.key"), mode);
            set(version, 0o777);
        }

        // As Kubernetes mounts a secret.
        let (data, key) = (folder.path().join("..data"), folder.path().join("tls.key"));
        symlink("..2026_1", &data).unwrap();
        symlink("..data/tls.key", &key).unwrap();
        assert_eq!(Exposure::of(&key, true).unwrap(), None);

        symlink("..2026_2", folder.path().join("..data_tmp")).unwrap();
        std::fs::rename(folder.path().join("..data_tmp"), &data).unwrap();
        assert!(Exposure::of(&key, true).unwrap().unwrap().is_grave());
        assert!(read(&key, true).unwrap().1.unwrap().is_grave());
        assert_eq!(Exposure::of(&data, true).unwrap(), None, "a directory");
        assert_eq!(
            Exposure::of(Path::new("/dev/null"), true).unwrap(),
            None,
            "a device"
        );
    }
}
