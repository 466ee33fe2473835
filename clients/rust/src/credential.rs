//! The stored sign-in: one file, for its owner's eyes. Does not judge whether the token is still good.

use std::fs::DirBuilder;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vvs_proto::frame::{Secret, User};

use crate::text::plain;

const FILE: &str = "credential.json";

/// What an editor keeps of a sign-in. Times are RFC 3339, by the server's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credential {
    /// The origin that the token is for.
    pub server: String,
    pub user: User,
    pub session_id: String,
    pub session_expires_at: String,
    pub token: Secret,
    pub token_expires_at: String,
}

impl Credential {
    /// Writes `credential.json` in `dir`, in place of an earlier one, and makes `dir` when there is none. A reader sees
    /// the old file or the new one, whole; when this returns `Ok` the new one outlives a power cut.
    pub fn store(&self, dir: &Path) -> io::Result<PathBuf> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(dir)?;
        // Made with mode 0600 before there is anything in it.
        let mut file = tempfile::Builder::new().prefix(".credential-").tempfile_in(dir)?;
        file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
        file.as_file().sync_all()?;
        let path = dir.join(FILE);
        file.persist(&path)?;
        #[cfg(unix)]
        std::fs::File::open(dir)?.sync_all()?;
        Ok(path)
    }

    /// The user's name and email address, or id, safe to print.
    pub fn who(&self) -> String {
        let who = match (&self.user.name, &self.user.email) {
            (Some(name), Some(email)) => format!("{name} <{email}>"),
            (Some(one), None) | (None, Some(one)) => one.clone(),
            (None, None) => self.user.id.clone(),
        };
        plain(&who, 200)
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn credential(token: &str) -> Credential {
        Credential {
            server: "http://127.0.0.1:8080".to_owned(),
            user: User { id: "usr_1".to_owned(), email: None, name: Some("Ada\u{1b}[2J".to_owned()), avatar_url: None },
            session_id: "ses_1".to_owned(),
            session_expires_at: "2026-03-31T12:00:00Z".to_owned(),
            token: Secret::new(token),
            token_expires_at: "2026-03-31T12:00:00Z".to_owned(),
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn only_the_owner_can_read_what_is_stored() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("state/vvs");
        let path = credential("fake-token").store(&dir).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(dir.parent().unwrap()), 0o700);
        let read: Credential = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        assert_eq!(read, credential("fake-token"));
    }

    #[test]
    fn a_later_sign_in_replaces_the_file_and_follows_no_link() {
        let home = tempfile::tempdir().unwrap();
        let other = home.path().join("other");
        fs::write(&other, "not ours").unwrap();
        let dir = home.path().join("vvs");
        fs::create_dir(&dir).unwrap();
        symlink(&other, dir.join(FILE)).unwrap();
        for token in ["fake-token-1", "fake-token-2"] {
            let path = credential(token).store(&dir).unwrap();
            assert!(fs::symlink_metadata(&path).unwrap().is_file());
            assert!(fs::read_to_string(path).unwrap().contains(token));
        }
        assert_eq!(fs::read_to_string(other).unwrap(), "not ours");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "a temporary file was left behind");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(credential("fake-token").store(&file.join("vvs")).is_err());
    }

    #[test]
    fn who_is_safe_to_print_and_debug_hides_the_token() {
        assert_eq!(credential("fake-token").who(), "Ada[2J");
        assert!(!format!("{:?}", credential("fake-token")).contains("fake-token"));
    }
}
