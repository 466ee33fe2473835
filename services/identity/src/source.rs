//! The sources from which a page with a provider's part may load and run code.

use std::fmt;

use vvs_auth::key::base64url;

/// Allows one response's own script tags; fresh for each response.
#[derive(Debug, Clone)]
pub struct Nonce(String);

impl Nonce {
    pub fn new(random: [u8; 16]) -> Self {
        Self(base64url(&random))
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The additional sources from which a page may load and to which it may connect, for the scripts
/// of an identity provider: source expressions (Content Security Policy Level 3, section 2.3.1),
/// separated by spaces.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub script: String,
    pub style: String,
    pub connect: String,
    pub img: String,
    pub frame: String,
    pub worker: String,
}
