//! A provider for the tests: its keys, generated in every process, and its tokens, valid or wrong.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaEncoding,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::Distrust;
use crate::key::base64url;

/// The second at which everything is checked.
pub(super) const NOW: i64 = 1_700_000_000;
/// The same, for times with fractions.
pub(super) const NOW_EXACTLY: f64 = 1_700_000_000.0;

pub(super) static RSA: LazyLock<KeyPair> =
    LazyLock::new(|| KeyPair::generate(KeySize::Rsa2048).unwrap());
pub(super) static OTHER: LazyLock<KeyPair> =
    LazyLock::new(|| KeyPair::generate(KeySize::Rsa2048).unwrap());
pub(super) static EC: LazyLock<EcdsaKeyPair> =
    LazyLock::new(|| EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap());
pub(super) static ED: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::generate().unwrap());

fn der(key: &KeyPair) -> PublicKeyX509Der<'static> {
    key.public_key().as_der().unwrap()
}

pub(super) fn pem(key: &KeyPair) -> String {
    let text = STANDARD.encode(der(key).as_ref());
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(|line| str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        lines.join("\n")
    )
}

pub(super) fn rsa_jwk(key: &KeyPair, kid: &str) -> Value {
    let der = der(key);
    let (_, info) = SubjectPublicKeyInfo::from_der(der.as_ref()).unwrap();
    let PublicKey::RSA(public) = info.parsed().unwrap() else {
        panic!("not RSA")
    };
    let modulus = &public.modulus[usize::from(public.modulus[0] == 0)..];
    json!({"kty": "RSA", "use": "sig", "kid": kid, "n": base64url(modulus), "e": base64url(public.exponent)})
}

pub(super) fn ec_jwk(kid: &str) -> Value {
    let point = EC.public_key().as_ref();
    json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": base64url(&point[1..33]), "y": base64url(&point[33..])})
}

pub(super) fn ed_jwk(kid: &str) -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": base64url(ED.public_key().as_ref())})
}

/// Ways to sign.
#[derive(Clone, Copy)]
pub(super) enum By {
    /// RS256 with the right key.
    Rsa,
    /// RS256 with another provider's key.
    Other,
    Rs384,
    Rs512,
    Ps256,
    Es256,
    EdDsa,
    /// HS256 with the public key, which everybody can read.
    Hmac,
}

pub(super) fn sign(by: By, message: &str) -> String {
    let rsa = |key: &KeyPair, padding: &'static dyn RsaEncoding| {
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(
            padding,
            &SystemRandom::new(),
            message.as_bytes(),
            &mut signature,
        )
        .unwrap();
        signature
    };
    base64url(&match by {
        By::Rsa => rsa(&RSA, &RSA_PKCS1_SHA256),
        By::Other => rsa(&OTHER, &RSA_PKCS1_SHA256),
        By::Rs384 => rsa(&RSA, &RSA_PKCS1_SHA384),
        By::Rs512 => rsa(&RSA, &RSA_PKCS1_SHA512),
        By::Ps256 => rsa(&RSA, &RSA_PSS_SHA256),
        By::Es256 => EC
            .sign(&SystemRandom::new(), message.as_bytes())
            .unwrap()
            .as_ref()
            .to_vec(),
        By::EdDsa => ED.sign(message.as_bytes()).as_ref().to_vec(),
        By::Hmac => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, pem(&RSA).as_bytes());
            hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
        }
    })
}

/// Signs two parts unchanged.
pub(super) fn compact(header: &str, payload: &str) -> String {
    let message = format!("{header}.{payload}");
    let signature = sign(By::Rsa, &message);
    format!("{message}.{signature}")
}

/// Signs two texts, which need not be JSON.
pub(super) fn texts(header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
    compact(&base64url(header.as_ref()), &base64url(payload.as_ref()))
}

/// A token that is not signed yet.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) header: Map<String, Value>,
    pub(super) payload: Map<String, Value>,
}

impl Draft {
    pub(super) fn new(header: Value, payload: Value) -> Self {
        let (Value::Object(header), Value::Object(payload)) = (header, payload) else {
            panic!("not objects")
        };
        Self { header, payload }
    }

    /// Sets a member of the header, or removes it with `None`.
    pub(super) fn head(mut self, name: &str, value: impl Into<Option<Value>>) -> Self {
        set(&mut self.header, name, value.into());
        self
    }

    /// Sets a claim, or removes it with `None`.
    pub(super) fn claim(mut self, name: &str, value: impl Into<Option<Value>>) -> Self {
        set(&mut self.payload, name, value.into());
        self
    }

    pub(super) fn message(&self) -> String {
        let part = |object: &Map<String, Value>| base64url(&serde_json::to_vec(object).unwrap());
        format!("{}.{}", part(&self.header), part(&self.payload))
    }

    pub(super) fn by(self, by: By) -> String {
        let message = self.message();
        let signature = sign(by, &message);
        format!("{message}.{signature}")
    }

    /// Signs it correctly.
    pub(super) fn sign(self) -> String {
        self.by(By::Rsa)
    }
}

fn set(object: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    match value {
        Some(value) => object.insert(name.to_owned(), value),
        None => object.remove(name),
    };
}

/// A token and the expected result.
pub(super) type Row = (&'static str, String, Result<(), Distrust>);

/// Fails with all rows whose result differs, and with duplicate names.
pub(super) fn check(rows: &[Row], verify: impl Fn(&str) -> Result<(), Distrust>) {
    let mut names = BTreeSet::new();
    let wrong: Vec<_> = rows
        .iter()
        .map(|(name, token, expected)| (name, verify(token), expected, names.insert(name)))
        .filter(|(_, judged, expected, is_new)| judged != *expected || !is_new)
        .collect();
    assert!(
        wrong.is_empty(),
        "name, judged, expected, is new: {wrong:#?}"
    );
}
