//! Which files a running process picks up. It does not pick up files that others may change.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::*;
use crate::bench::certify;

/// A secret as Kubernetes mounts it: `..data` points to the current version, and is swapped for
/// another one.
struct Volume(tempfile::TempDir);

impl Volume {
    fn new() -> Self {
        let volume = Self(tempfile::tempdir().unwrap());
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            symlink(format!("..data/{name}"), volume.0.path().join(name)).unwrap();
        }
        volume
    }

    /// Swaps in new certificates with this mode.
    fn swap(&self, version: &str, mode: u32) {
        let folder = self.0.path().join(version);
        std::fs::create_dir(&folder).unwrap();
        let files = certify(&folder);
        for (made, name) in [
            (files.cert, "tls.crt"),
            (files.key, "tls.key"),
            (files.ca.unwrap(), "ca.crt"),
        ] {
            let file = folder.join(name);
            if made != file {
                std::fs::rename(made, &file).unwrap();
            }
            set(&file, mode);
        }

        symlink(version, self.0.path().join("..data_tmp")).unwrap();
        std::fs::rename(
            self.0.path().join("..data_tmp"),
            self.0.path().join("..data"),
        )
        .unwrap();
    }

    fn files(&self) -> Files {
        let path = |name| self.0.path().join(name);
        Files {
            cert: path("tls.crt"),
            key: path("tls.key"),
            ca: Some(path("ca.crt")),
        }
    }
}

fn set(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn key(identity: &Identity) -> Vec<u8> {
    identity.current.load().raw[1].clone()
}

/// Returns how many of the new files are open to others; `None` when there are no new ones.
fn reload(identity: &Identity) -> Option<usize> {
    identity
        .reload(Policy::Refuse)
        .unwrap()
        .map(|exposures| exposures.len())
}

#[test]
fn a_new_secret_is_taken_up_with_the_modes_that_kubernetes_gives_it() {
    let volume = Volume::new();
    volume.swap("..1", 0o640);
    let identity = Identity::load(volume.files()).unwrap();
    assert_eq!(reload(&identity), None);

    volume.swap("..2", 0o640);
    assert_eq!(reload(&identity), Some(0));

    // With fsGroup: its group may change them. That is said once, when they are taken up.
    volume.swap("..3", 0o660);
    assert_eq!(reload(&identity), Some(3));
    assert_eq!(reload(&identity), None);

    // Everybody may read them, of which only the key is a secret.
    volume.swap("..4", 0o644);
    assert_eq!(reload(&identity), Some(1));
}

#[test]
fn a_new_secret_that_every_user_may_change_is_not_taken_up_until_its_mode_is_right() {
    let volume = Volume::new();
    volume.swap("..1", 0o640);
    let identity = Identity::load(volume.files()).unwrap();
    let old = key(&identity);

    volume.swap("..2", 0o666);

    for _ in 0..2 {
        let refused = identity.reload(Policy::Refuse).unwrap_err();
        assert!(
            matches!(&refused, Error::Exposed(_)) && refused.to_string().contains("chmod"),
            "{refused}"
        );
        assert_eq!(key(&identity), old);
    }

    // A certificate and a CA are no secrets, and as bad when others choose them.
    set(&volume.0.path().join("..2/tls.key"), 0o600);
    assert!(matches!(
        identity.reload(Policy::Refuse),
        Err(Error::Exposed(_))
    ));

    for name in ["tls.crt", "ca.crt"] {
        set(&volume.0.path().join("..2").join(name), 0o600);
    }

    assert_eq!(reload(&identity), Some(0));
    assert_ne!(key(&identity), old);
}

#[test]
fn on_a_volume_without_modes_files_are_taken_up_with_a_warning() {
    let volume = Volume::new();
    volume.swap("..1", 0o640);
    let identity = Identity::load(volume.files()).unwrap();
    volume.swap("..2", 0o777);
    let exposures = identity.reload(Policy::Warn).unwrap().unwrap();
    assert!(exposures.len() == 3 && exposures.iter().all(Exposure::is_grave));
}
