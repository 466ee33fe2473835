//! Where the sign-in of one account on one server is stored: the operating system's keyring, or a
//! file that only its owner can read. Several programs may use a profile at the same time.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::credential::Credential;
use crate::error::Error;
use crate::vault::Vault;

/// Where to store a new sign-in. An existing one is found wherever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// In the keyring, or in a file when there is no keyring or it refuses.
    Anywhere,
    Keyring,
    File,
}

/// Where a sign-in is stored. `Display` describes it to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredIn {
    Keyring,
    /// With the reason why it is not in the keyring, if it should have been.
    File(PathBuf, Option<String>),
}

impl fmt::Display for StoredIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keyring => f.write_str("The credential is in the system's keyring."),
            Self::File(file, None) => write!(f, "The credential is in {}", file.display()),
            Self::File(file, Some(why)) => {
                let file = file.display();
                write!(
                    f,
                    "No keyring can be used here ({why}), so the credential is in a file that only \
                     you can read:\n{file}"
                )
            }
        }
    }
}

/// A name, and a folder with a file for it. A different name is a different account or server.
#[derive(Debug, Clone)]
pub struct Profile {
    dir: PathBuf,
    name: String,
    keep: Keep,
    vault: Vault,
}

/// The file of a profile. It stays when the editor signs out, and then remembers the server.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub server: Option<String>,
    /// The certificates that were used to sign in to the server.
    pub ca_file: Option<PathBuf>,
    /// The credential is in the keyring, and not here.
    #[serde(default)]
    pub keyring: bool,
    credential: Option<Credential>,
}

/// The name of the default profile.
pub const DEFAULT: &str = "default";

impl Profile {
    /// Names are lower-case letters, digits, `-` and `_`, because they become file names.
    pub fn new(dir: impl Into<PathBuf>, name: &str, keep: Keep) -> Result<Self, Error> {
        if !is_name(name) {
            return Err(Error::Profile(name.to_owned()));
        }
        Ok(Self {
            dir: dir.into(),
            name: name.to_owned(),
            keep,
            vault: Vault::system(),
        })
    }

    /// Returns the names of the profiles in a folder, in order.
    pub fn names(dir: &Path) -> Vec<String> {
        let name = |file: &str| match file.strip_prefix("credential.")?.strip_suffix("json")? {
            "" => Some(DEFAULT.to_owned()),
            name => name
                .strip_suffix('.')
                .filter(|name| is_name(name))
                .map(str::to_owned),
        };
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries
            .filter_map(|entry| name(entry.file_name().to_str()?))
            .collect();
        names.sort();

        names
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the content of the file, without asking the keyring; empty when there is no file.
    pub fn record(&self) -> Result<Record, Error> {
        match fs::read(self.file()) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|cause| self.failed(cause.into())),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(Record::default()),
            Err(cause) => Err(self.failed(cause)),
        }
    }

    /// Returns the stored sign-in. A sign-in that cannot be read is an error, not a sign-out.
    pub fn load(&self) -> Result<Option<Credential>, Error> {
        self.take_out(self.record()?)
    }

    fn take_out(&self, record: Record) -> Result<Option<Credential>, Error> {
        if !record.keyring {
            return Ok(record.credential);
        }
        let bytes = self.vault.get(&self.entry()).map_err(Error::Keyring)?;
        // What cannot be read there was not written by us.
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Checks that a sign-in can be stored. Call it before a person goes through one.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.lock()?;
        if self.keep == Keep::Keyring {
            self.vault.get(&self.entry()).map_err(Error::Keyring)?;
        }
        Ok(())
    }

    /// Stores a new sign-in in place of the previous one. When this returns, it survives a power
    /// cut.
    pub(crate) fn store(
        &self,
        credential: &Credential,
        ca_file: Option<&Path>,
    ) -> Result<StoredIn, Error> {
        let _lock = self.lock()?;
        let before = self.record().unwrap_or_default();
        let mut record = Record {
            server: Some(credential.server.clone()),
            ca_file: ca_file.map(Path::to_owned),
            ..Record::default()
        };
        let refused = match self.keep {
            Keep::File => Some(None),
            Keep::Keyring | Keep::Anywhere => match (self.hide(credential), self.keep) {
                (Ok(()), _) => None,
                (Err(cause), Keep::Anywhere) => Some(Some(cause)),
                (Err(cause), Keep::Keyring | Keep::File) => return Err(Error::Keyring(cause)),
            },
        };

        record.keyring = refused.is_none();
        record.credential = refused.is_some().then(|| credential.clone());
        self.write(&record)?;
        if before.keyring && !record.keyring {
            // It is dead weight by now, and the keyring may be gone.
            self.vault.remove(&self.entry()).ok();
        }

        Ok(refused.map_or(StoredIn::Keyring, |why| StoredIn::File(self.file(), why)))
    }

    /// Stores a newer token of the same session. Changes nothing if the stored session differs or
    /// is missing: another program has signed in or out meanwhile, and must not be overwritten.
    pub(crate) fn renew(&self, renewed: &Credential) -> Result<(), Error> {
        let _lock = self.lock()?;
        let mut record = self.record()?;
        let Some(before) = self.take_out(record.clone())? else {
            return Ok(());
        };

        if before.session_id != renewed.session_id || before == *renewed {
            return Ok(());
        }

        if record.keyring {
            return self.hide(renewed).map_err(Error::Keyring);
        }

        record.credential = Some(renewed.clone());

        self.write(&record)
    }

    /// Forgets this session, and no other.
    pub(crate) fn forget(&self, session_id: &str) -> Result<(), Error> {
        let _lock = self.lock()?;
        let record = self.record()?;
        if self
            .take_out(record.clone())?
            .is_none_or(|stored| stored.session_id != session_id)
        {
            return Ok(());
        }

        if record.keyring {
            self.vault.remove(&self.entry()).map_err(Error::Keyring)?;
        }

        self.write(&Record {
            keyring: false,
            credential: None,
            ..record
        })
    }

    fn hide(&self, credential: &Credential) -> Result<(), String> {
        let bytes = serde_json::to_vec(credential).map_err(|cause| cause.to_string())?;
        self.vault.set(&self.entry(), &bytes)
    }

    /// Replaces the file atomically: a reader sees the whole old file or the whole new one.
    fn write(&self, record: &Record) -> Result<(), Error> {
        let write = || {
            // Made with mode 0600 before there is anything in it.
            let mut file = tempfile::Builder::new()
                .prefix(".credential-")
                .tempfile_in(&self.dir)?;
            file.write_all(serde_json::to_string_pretty(record)?.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(self.file())?;
            #[cfg(unix)]
            File::open(&self.dir)?.sync_all()?;
            Ok(())
        };
        write().map_err(|cause| self.failed(cause))
    }

    /// Locks the profile for as long as the returned file is open; creates the folder if it is
    /// missing.
    fn lock(&self) -> Result<File, Error> {
        let lock = || {
            let mut builder = DirBuilder::new();
            builder.recursive(true);

            #[cfg(unix)]
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.create(&self.dir)?;
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(self.dir.join("lock"))?;
            file.lock()?;

            Ok(file)
        };
        lock().map_err(|cause| self.failed(cause))
    }

    fn file(&self) -> PathBuf {
        let name = if self.name == DEFAULT {
            String::new()
        } else {
            format!("{}.", self.name)
        };
        self.dir.join(format!("credential.{name}json"))
    }

    /// Returns the name of the entry. One keyring serves all folders, so the folder is part of the
    /// name.
    fn entry(&self) -> String {
        let dir = self
            .dir
            .canonicalize()
            .unwrap_or_else(|_none| self.dir.clone());
        format!("{} {}", self.name, dir.display())
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Store {
            dir: self.dir.clone(),
            source,
        }
    }
}

/// Runs outside the tasks of others, because a keyring may wait for its owner to unlock it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let panicked = |cause: tokio::task::JoinError| Err(Error::Keyring(cause.to_string()));
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(panicked)
}

fn is_name(name: &str) -> bool {
    let good =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    (1..=32).contains(&name.len()) && name.bytes().all(good)
}

#[cfg(test)]
mod tests;
