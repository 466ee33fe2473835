//! Where credentials are kept.

use vvs_proto::frame::{Secret, User};

use super::*;
use crate::key::DeviceKey;

fn credential(session: &str, token: &str) -> Credential {
    Credential {
        server: "http://127.0.0.1:8080".to_owned(),
        user: User {
            id: "usr_1".to_owned(),
            email: None,
            name: Some("Ada".to_owned()),
            avatar_url: None,
        },
        session_id: session.to_owned(),
        session_expires_at: "2026-03-31T12:00:00Z".to_owned(),
        token: Secret::new(token),
        token_expires_at: "2026-03-31T12:00:00Z".to_owned(),
        device_key: DeviceKey::generate().unwrap(),
    }
}

fn profile(dir: &Path, keep: Keep) -> Profile {
    Profile::new(dir, DEFAULT, keep).unwrap()
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_read_a_file_and_it_follows_no_link() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("state/vvs");
    let profile = profile(&dir, Keep::File);
    let stored = credential("ses_1", "fake-token-1");
    assert_eq!(
        profile.store(&stored, None).unwrap(),
        StoredIn::File(dir.join("credential.json"), None)
    );
    assert_eq!(profile.load().unwrap(), Some(stored));
    assert_eq!(
        (
            mode(&profile.file()),
            mode(&dir),
            mode(dir.parent().unwrap())
        ),
        (0o600, 0o700, 0o700)
    );

    let other = home.path().join("other");
    fs::write(&other, "not ours").unwrap();
    fs::remove_file(profile.file()).unwrap();
    symlink(&other, profile.file()).unwrap();
    profile
        .store(&credential("ses_2", "fake-token-2"), None)
        .unwrap();
    assert!(fs::symlink_metadata(profile.file()).unwrap().is_file());
    assert_eq!(fs::read_to_string(other).unwrap(), "not ours");
    assert_eq!(
        fs::read_dir(&dir).unwrap().count(),
        2,
        "a temporary file was left behind"
    );
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(
        profile(&file.join("vvs"), Keep::File)
            .store(&credential("ses_1", "fake"), None)
            .is_err()
    );
}

#[test]
fn what_cannot_be_read_is_an_error_and_no_sign_out() {
    let home = tempfile::tempdir().unwrap();
    let profile = profile(home.path(), Keep::File);
    assert_eq!(profile.load().unwrap(), None);
    fs::write(profile.file(), "{").unwrap();
    assert!(matches!(profile.load(), Err(Error::Store { .. })));
}

#[test]
fn signing_out_keeps_the_server_and_its_certificates_and_no_secret() {
    let home = tempfile::tempdir().unwrap();
    let profile = profile(home.path(), Keep::File);
    profile
        .store(
            &credential("ses_1", "fake-token"),
            Some(Path::new("/etc/ca.crt")),
        )
        .unwrap();
    profile.forget("ses_other").unwrap();
    assert!(profile.load().unwrap().is_some());

    profile.forget("ses_1").unwrap();
    assert_eq!(profile.load().unwrap(), None);

    let record = profile.record().unwrap();
    assert_eq!(record.server.as_deref(), Some("http://127.0.0.1:8080"));
    assert_eq!(record.ca_file.as_deref(), Some(Path::new("/etc/ca.crt")));
    assert!(
        !fs::read_to_string(profile.file())
            .unwrap()
            .contains("fake-token")
    );
}

#[test]
fn a_renewed_token_never_replaces_another_session_nor_undoes_a_sign_out() {
    let home = tempfile::tempdir().unwrap();
    let profile = profile(home.path(), Keep::File);
    let old = credential("ses_1", "fake-1");
    profile.renew(&old).unwrap();
    assert_eq!(profile.load().unwrap(), None);

    profile.store(&old, None).unwrap();
    let fresh = Credential {
        token: Secret::new("fake-2"),
        ..old.clone()
    };
    profile.renew(&fresh).unwrap();
    assert_eq!(profile.load().unwrap(), Some(fresh));

    let new = credential("ses_2", "fake-3");
    profile.store(&new, None).unwrap();
    profile.renew(&old).unwrap();
    assert_eq!(profile.load().unwrap(), Some(new));
}

#[test]
fn windows_that_write_at_once_lose_nothing() {
    let home = tempfile::tempdir().unwrap();
    let profile = profile(home.path(), Keep::File);
    let first = credential("ses_1", "fake-0");
    profile.store(&first, None).unwrap();
    std::thread::scope(|scope| {
        for window in 0..8 {
            let (profile, mut mine) = (profile.clone(), first.clone());
            scope.spawn(move || {
                for turn in 0..20 {
                    mine.token = Secret::new(format!("fake-{window}-{turn}"));
                    profile.renew(&mine).unwrap();
                    assert_eq!(profile.load().unwrap().unwrap().device_key, mine.device_key);
                }
            });
        }
    });
    profile.forget("ses_1").unwrap();
    assert_eq!(profile.load().unwrap(), None);
}

#[test]
fn while_one_window_writes_no_other_does() {
    let home = tempfile::tempdir().unwrap();
    let profile = profile(home.path(), Keep::File);
    let writing = profile.lock().unwrap();
    let another = File::options()
        .write(true)
        .open(home.path().join("lock"))
        .unwrap();
    assert!(another.try_lock().is_err());
    drop(writing);
    another.try_lock().unwrap();
}

#[test]
fn profiles_have_files_of_their_own_and_plain_names() {
    let home = tempfile::tempdir().unwrap();
    for name in [DEFAULT, "work", "a-1_b"] {
        let profile = Profile::new(home.path(), name, Keep::File).unwrap();
        profile.store(&credential(name, "fake"), None).unwrap();
        assert_eq!(profile.load().unwrap().unwrap().session_id, name);
    }

    fs::write(home.path().join("credential.Not A Name.json"), "").unwrap();
    assert_eq!(Profile::names(home.path()), ["a-1_b", DEFAULT, "work"]);
    assert!(Profile::names(&home.path().join("none")).is_empty());

    for name in ["", "A", "..", "a/b", "a.b", &"x".repeat(33)] {
        assert!(
            matches!(
                Profile::new(home.path(), name, Keep::File),
                Err(Error::Profile(_))
            ),
            "{name}"
        );
    }
}

/// The `keyring` crate over its own mock, one for all tests; each test has a separate folder, and
/// so a separate entry.
#[cfg(feature = "keyring")]
mod keyring {
    use std::sync::{Arc, LazyLock};

    use ::keyring::{Entry, Error as Refusal, Result};
    use keyring_core::api::CredentialStoreApi as _;
    use keyring_core::mock;

    use super::*;

    static MOCK: LazyLock<Arc<mock::Store>> = LazyLock::new(|| mock::Store::new().unwrap());

    fn open(service: &str, name: &str) -> Result<Entry> {
        Ok(Entry {
            inner: MOCK.build(service, name, None)?,
        })
    }

    fn none(_service: &str, _name: &str) -> Result<Entry> {
        Err(Refusal::NoStorageAccess("nobody listens".into()))
    }

    fn with(dir: &Path, keep: Keep, open: fn(&str, &str) -> Result<Entry>) -> Profile {
        Profile {
            vault: Vault { open },
            ..profile(dir, keep)
        }
    }

    #[test]
    fn a_credential_in_the_keyring_is_nowhere_else_and_comes_back() {
        let home = tempfile::tempdir().unwrap();
        let profile = with(home.path(), Keep::Anywhere, open);
        let stored = credential("ses_1", "fake-token");
        assert_eq!(profile.store(&stored, None).unwrap(), StoredIn::Keyring);

        let file = fs::read_to_string(profile.file()).unwrap();
        assert!(
            !file.contains("fake-token") && !file.contains("deviceKey") && file.contains("8080"),
            "{file}"
        );
        assert_eq!(profile.load().unwrap(), Some(stored.clone()));

        let fresh = Credential {
            token: Secret::new("fake-2"),
            ..stored
        };
        profile.renew(&fresh).unwrap();
        assert_eq!(profile.load().unwrap(), Some(fresh));

        profile.forget("ses_1").unwrap();
        assert_eq!(profile.load().unwrap(), None);
        assert_eq!(profile.vault.get(&profile.entry()), Ok(None));
    }

    #[test]
    fn without_a_keyring_it_is_a_file_that_says_why_unless_only_the_keyring_will_do() {
        let home = tempfile::tempdir().unwrap();
        let stored = credential("ses_1", "fake-token");
        let StoredIn::File(_, Some(why)) = with(home.path(), Keep::Anywhere, none)
            .store(&stored, None)
            .unwrap()
        else {
            panic!("not in a file")
        };

        assert!(why.contains("nobody listens"), "{why}");
        assert_eq!(
            profile(home.path(), Keep::Anywhere).load().unwrap(),
            Some(stored.clone())
        );

        let only = with(home.path(), Keep::Keyring, none);
        assert!(matches!(only.check(), Err(Error::Keyring(_))));
        assert!(matches!(only.store(&stored, None), Err(Error::Keyring(_))));
    }

    #[test]
    fn a_keyring_that_is_away_for_a_while_is_an_error_and_no_sign_out() {
        let home = tempfile::tempdir().unwrap();
        with(home.path(), Keep::Anywhere, open)
            .store(&credential("ses_1", "fake"), None)
            .unwrap();
        let away = with(home.path(), Keep::Anywhere, none);
        assert!(matches!(away.load(), Err(Error::Keyring(_))));
        assert!(matches!(away.forget("ses_1"), Err(Error::Keyring(_))));
        assert!(
            with(home.path(), Keep::Anywhere, open)
                .load()
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn a_credential_that_moves_into_a_file_leaves_the_keyring() {
        let home = tempfile::tempdir().unwrap();
        with(home.path(), Keep::Anywhere, open)
            .store(&credential("ses_1", "fake"), None)
            .unwrap();
        let file = with(home.path(), Keep::File, open);
        file.store(&credential("ses_2", "fake-2"), None).unwrap();
        assert_eq!(file.vault.get(&file.entry()), Ok(None));
        assert_eq!(file.load().unwrap().unwrap().session_id, "ses_2");
    }
}
