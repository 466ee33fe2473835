//! One entry in the operating system's keyring: Keychain, Credential Manager or Secret Service. May
//! block until the person has unlocked it.

#[cfg(feature = "keyring")]
pub(crate) use real::Vault;
#[cfg(not(feature = "keyring"))]
pub(crate) use stub::Vault;

#[cfg(feature = "keyring")]
mod real {
    use keyring::{Entry, Error};

    use crate::text::plain;

    const SERVICE: &str = "vvs";

    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Vault {
        pub(crate) open: fn(&str, &str) -> keyring::Result<Entry>,
    }

    impl Vault {
        pub(crate) fn system() -> Self {
            Self { open: Entry::new }
        }

        /// Returns `None` when there is no entry of this name. Errors are texts for a person, here
        /// and below.
        pub(crate) fn get(self, name: &str) -> Result<Option<Vec<u8>>, String> {
            match (self.open)(SERVICE, name).and_then(|entry| entry.get_secret()) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(Error::NoEntry) => Ok(None),
                Err(cause) => Err(words(&cause)),
            }
        }

        pub(crate) fn set(self, name: &str, bytes: &[u8]) -> Result<(), String> {
            (self.open)(SERVICE, name)
                .and_then(|entry| entry.set_secret(bytes))
                .map_err(|cause| words(&cause))
        }

        pub(crate) fn remove(self, name: &str) -> Result<(), String> {
            match (self.open)(SERVICE, name).and_then(|entry| entry.delete_credential()) {
                Ok(()) | Err(Error::NoEntry) => Ok(()),
                Err(cause) => Err(words(&cause)),
            }
        }
    }

    fn words(cause: &Error) -> String {
        // It says only that there is no store; why stands with the store.
        let why = matches!(cause, Error::NoDefaultStore)
            .then(|| Entry::store_status().as_ref().err())
            .flatten();
        plain(&why.unwrap_or(cause).to_string(), 200)
    }
}

#[cfg(not(feature = "keyring"))]
mod stub {
    const NONE: &str = "this program was built without support for it";

    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Vault;

    #[expect(clippy::unused_self, reason = "it is called like the real one")]
    impl Vault {
        pub(crate) fn system() -> Self {
            Self
        }

        pub(crate) fn get(self, _name: &str) -> Result<Option<Vec<u8>>, String> {
            Err(NONE.to_owned())
        }

        pub(crate) fn set(self, _name: &str, _bytes: &[u8]) -> Result<(), String> {
            Err(NONE.to_owned())
        }

        pub(crate) fn remove(self, _name: &str) -> Result<(), String> {
            Err(NONE.to_owned())
        }
    }
}
