//! Errors in names, keys and tokens.

/// Why a caller, a key or a token was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not a SPIFFE id (SPIFFE-ID, section 2).
    #[error("{0:?} is not a SPIFFE id such as spiffe://vvs.internal/web")]
    SpiffeId(String),
    /// An entry of the peer list that is not `SPIFFE-ID=ROLE`.
    #[error("{0:?} is not SPIFFE-ID=ROLE; roles are gateway, web, relay, sessions, backend")]
    PeerEntry(String),
    /// The certificate cannot be read.
    #[error("the peer's certificate cannot be read")]
    Certificate,
    /// The certificate may sign others; a caller's must not.
    #[error("the peer's certificate belongs to a certificate authority")]
    CertificateAuthority,
    /// The certificate's key is for signing certificates or revocation lists (X.509-SVID, section
    /// 4.3).
    #[error(
        "the key usage of the peer's certificate has {0}, which is for certificate authorities"
    )]
    KeyUsage(&'static str),
    /// The certificate names nobody, or more than one.
    #[error("the peer's certificate has {0} URI names instead of one")]
    UriNames(usize),
    /// A peer that is not in the list.
    #[error("{0} is not a known peer")]
    UnknownPeer(String),
    /// A known peer that is not the intended one, or may not do what it asked for.
    #[error("{peer} may not {action}")]
    NotAllowed { peer: String, action: String },
    /// A known peer that already has the maximum number of calls or streams under way.
    #[error("{peer} has as much under way as {setting} allows")]
    PeerBusy { peer: String, setting: &'static str },
    /// The key file does not contain base64 of 32 bytes on each line.
    #[error("a key file holds one or two lines, each the base64 of 32 random bytes")]
    KeyFile,
    /// A sealed value does not open: it was sealed with another key or for another purpose, or was
    /// tampered with.
    #[error("this was not sealed by us, or for something else")]
    Sealed,
    /// Not a public EC P-256 key.
    #[error("not a public device key: {0}")]
    DeviceKey(&'static str),
    /// A proof of possession that is invalid; says which check failed.
    #[error("the proof of possession does not hold: {0}")]
    Proof(&'static str),
    /// Not a set of public keys.
    #[error("this is not a JWK set: an object whose member keys is a list")]
    KeySet,
    /// Not a key to verify with.
    #[error(
        "this is not one public RSA key of 2048 to 8192 bits in PEM, -----BEGIN PUBLIC KEY-----"
    )]
    PublicKey,
    /// The cryptographic library refused a key or an operation.
    #[error("the cryptographic library refused: {0}")]
    Crypto(&'static str),
}
