//! All input from strangers, changed at random: changed input is refused, unchanged input is judged
//! as a simple model says, and noise never does more than fail.

use std::sync::LazyLock;

use jsonwebtoken::jwk::{CommonParameters, Jwk};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::device::DeviceKey;
use crate::key::Keyring;
use crate::peer::{Entry, SpiffeId};
use crate::proof::{self, Expected, Use};
use crate::token::{Claims, Confirmation, Distrust, JwkSet, SigningKey, Verifier, unverified};

const NOW: i64 = 1_000_000;

static PRIVATE: LazyLock<Vec<u8>> = LazyLock::new(|| SigningKey::generate().unwrap());
static ISSUER: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::from_pkcs8("k", &PRIVATE).unwrap());

fn verify(token: &str) -> Result<Claims, Distrust> {
    Verifier::new(
        &JwkSet {
            keys: vec![ISSUER.public().clone()],
        },
        "https://a.test",
        "vvs",
    )
    .verify(token, NOW)
}

/// The public half of an editor's key.
fn jwk() -> Jwk {
    let mut jwk =
        Jwk::from_encoding_key(&EncodingKey::from_ec_der(&PRIVATE), Algorithm::ES256).unwrap();
    jwk.common = CommonParameters::default();
    jwk
}

/// Makes a proof as an editor does.
fn prove(payload: &Value) -> String {
    let header = Header {
        typ: Some(proof::TYPE.to_owned()),
        jwk: Some(jwk()),
        ..Header::new(Algorithm::ES256)
    };
    jsonwebtoken::encode(&header, payload, &EncodingKey::from_ec_der(&PRIVATE)).unwrap()
}

/// Any characters, including control, bidi, NUL and those outside the basic plane.
fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 0..12).prop_map(String::from_iter)
}

/// Usually the right one.
fn name(right: &'static str, wrong: &'static str) -> impl Strategy<Value = String> {
    select(vec![right, right, right, wrong]).prop_map(str::to_owned)
}

prop_compose! {
    fn claims()(
        (iss, aud) in (name("https://a.test", "https://a.test/"), name("vvs", "VVS")),
        (sub, sid, jti) in (text(), text(), text()),
        // Before, at and after the second they are judged at.
        (iat, exp, sxp) in (any::<i64>(), NOW - 1..NOW + 4, NOW - 1..NOW + 4),
        (is_bound, pending) in any::<(bool, bool)>(),
    ) -> Claims {
        let key = DeviceKey::from_value(&serde_json::to_value(jwk()).unwrap()).unwrap();
        let cnf = is_bound.then(|| Confirmation { jkt: key.thumbprint() });
        Claims { iss, sub, aud, sid, jti, iat, exp, sxp, cnf, pending }
    }
}

/// One character replaced, cut out or put in.
#[derive(Debug, Clone)]
struct Change {
    at: Index,
    put: Option<char>,
    cut: bool,
}

impl Change {
    /// `None` when the change has no effect.
    fn bend(&self, text: &str) -> Option<String> {
        let mut bent: Vec<char> = text.chars().collect();
        let at = self.at.index(bent.len());
        bent.splice(at..at + usize::from(self.cut), self.put);
        let bent: String = bent.into_iter().collect();
        (bent != text).then_some(bent)
    }
}

/// Usually with characters of base64url: others are refused before anything is decoded.
fn change() -> impl Strategy<Value = Change> {
    let letters = select(
        ('A'..='Z')
            .chain('a'..='z')
            .chain('0'..='9')
            .chain(['-', '_', '.', '='])
            .collect::<Vec<_>>(),
    );
    let put = of(prop_oneof![9 => letters, 1 => any::<char>()]);
    (any::<Index>(), put, any::<bool>()).prop_map(|(at, put, cut)| Change { at, put, cut })
}

const USES: [(Use, &str); 5] = [
    (Use::Hello, "hello"),
    (Use::Resume, "resume"),
    (Use::Authenticate, "authenticate"),
    (Use::Refresh, "refresh"),
    (Use::Logout, "logout"),
];

/// base64url SHA-256 of `abc` (FIPS 180-4, example).
const ABC: &str = "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0";

proptest! {
    #[test]
    fn a_token_is_judged_by_what_it_says(claims in claims()) {
        let token = ISSUER.sign(&claims).unwrap();
        let expected = match &claims {
            Claims { iss, .. } if iss != "https://a.test" => Err(Distrust::WrongIssuer),
            Claims { aud, .. } if aud != "vvs" => Err(Distrust::WrongAudience),
            Claims { exp, sxp, .. } if *exp.min(sxp) <= NOW => Err(Distrust::Expired),
            Claims { .. } => Ok(claims.clone()),
        };
        prop_assert_eq!(verify(token.expose_secret()), expected);
        prop_assert_eq!(unverified(token.expose_secret()), Some(claims));
    }

    #[test]
    fn a_token_with_one_character_changed_is_refused(claims in claims(), change in change()) {
        let token = ISSUER.sign(&Claims { exp: NOW + 1, sxp: NOW + 1, ..claims }).unwrap();
        let Some(bent) = change.bend(token.expose_secret()) else { return Ok(()) };
        let refused = verify(&bent);
        let is_forged = matches!(refused, Err(Distrust::BadSignature | Distrust::Malformed | Distrust::UnknownKey));
        prop_assert!(is_forged, "{:?}", refused);
    }

    /// A proof is valid for this origin, this socket, one of these uses and, when a token comes
    /// with it, only for that token.
    #[test]
    fn a_proof_holds_for_what_it_says_only(
        (aud, nonce) in (name("https://a.test", "https://a.test.evil"), name("n", "m")),
        (r#use, tag) in select(USES.to_vec()),
        jti in prop_oneof![9 => "[a-z]{1,128}", 1 => "", 1 => "[a-z]{129,140}"],
        ath in of(name(ABC, "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa1")),
        token in of(name("abc", "abd")),
        uses in subsequence(USES.map(|(r#use, _)| r#use).to_vec(), 1..=5),
    ) {
        let compact = prove(&json!({"aud": aud, "nonce": nonce, "jti": jti, "use": tag, "ath": ath}));
        let expected = Expected { audience: "https://a.test", nonce: "n", uses: &uses, token: token.as_deref() };
        let is_for_token = token.as_deref() == Some("abc") && ath.as_deref() == Some(ABC);
        let is_good = aud == "https://a.test"
            && nonce == "n"
            && uses.contains(&r#use)
            && (1..=128).contains(&jti.len())
            && (r#use != Use::Authenticate || is_for_token);
        let proof = proof::check(&compact, &expected);
        prop_assert_eq!(proof.is_ok(), is_good, "{:?}", proof);
        if let Ok(proof) = proof {
            prop_assert_eq!((proof.jti, proof.r#use), (jti, r#use));
        }
    }

    #[test]
    fn a_proof_with_one_character_changed_is_refused(change in change()) {
        let compact = prove(&json!({"aud": "https://a.test", "nonce": "n", "jti": "j", "use": "hello"}));
        let expected = Expected { audience: "https://a.test", nonce: "n", uses: &[Use::Hello], token: None };
        prop_assert!(proof::check(&compact, &expected).is_ok());
        if let Some(bent) = change.bend(&compact) {
            prop_assert!(proof::check(&bent, &expected).is_err());
        }
    }

    #[test]
    fn what_was_sealed_opens_whole_or_not_at_all(
        plain in prop::collection::vec(any::<u8>(), 0..64),
        context in text(),
        (at, bits) in (any::<Index>(), 1..=u8::MAX),
        end in any::<Index>(),
    ) {
        let ring = Keyring::parse(&Keyring::generate().unwrap()).unwrap();
        let mut sealed = ring.seal(&context, &plain).unwrap();
        prop_assert_eq!(ring.open(&context, &sealed).unwrap(), plain);
        prop_assert!(ring.open(&context, &sealed[..end.index(sealed.len())]).is_err());
        let at = at.index(sealed.len());
        sealed[at] ^= bits;
        prop_assert!(ring.open(&context, &sealed).is_err());
    }

    /// Two spellings of one name could have two roles.
    #[test]
    fn a_name_that_is_taken_is_spelled_as_it_came(name in r"spiffe://[a-z.]{0,4}[A-Z0-9_:@%-]?(/([a-zA-Z]{0,3}%?|\.{1,3})){0,3}") {
        if let Ok(id) = name.parse::<SpiffeId>() {
            prop_assert_eq!(id.as_str(), &name);
            prop_assert_eq!(format!("{id}=web").parse::<Entry>().unwrap().id, id);
            let (domain, path) = name.strip_prefix("spiffe://").unwrap().split_once('/').unwrap();
            prop_assert!(!domain.is_empty() && !name[9..].contains(['%', '@', ':']));
            prop_assert!(!path.split('/').any(|part| matches!(part, "" | "." | "..")));
        }
    }

    #[test]
    fn noise_is_refused(noise in text(), bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let expected = Expected { audience: "https://a.test", nonce: "n", uses: &[Use::Hello], token: None };
        prop_assert_eq!(verify(&noise), Err(Distrust::Malformed));
        prop_assert_eq!(unverified(&noise), None);
        prop_assert!(proof::check(&noise, &expected).is_err());
        prop_assert!(DeviceKey::from_json(&noise).is_err());
        prop_assert!(noise.parse::<SpiffeId>().is_err() && noise.parse::<Entry>().is_err());
        prop_assert!(Keyring::parse(&noise).is_err());
        prop_assert!(SpiffeId::from_certificate(&bytes).is_err());
    }
}
