use super::*;

const NOW: i64 = 1_000_000;

struct Issuer(SigningKey);

impl Issuer {
    fn new(kid: &str) -> Self {
        Self(SigningKey::from_pkcs8(kid, &SigningKey::generate().unwrap()).unwrap())
    }

    fn sign(&self, claims: &Claims) -> String {
        use secrecy::ExposeSecret as _;
        self.0.sign(claims).unwrap().expose_secret().to_owned()
    }

    fn verifier(&self) -> Verifier {
        Verifier::new(
            &JwkSet {
                keys: vec![self.0.public().clone()],
            },
            "https://auth.example.com",
            "vvs",
        )
    }
}

fn claims() -> Claims {
    Claims {
        iss: "https://auth.example.com".to_owned(),
        sub: "usr_1".to_owned(),
        aud: "vvs".to_owned(),
        sid: "ses_1".to_owned(),
        jti: "j".to_owned(),
        iat: NOW - 10,
        exp: NOW + 10,
        sxp: NOW + 100,
        cnf: None,
        pending: false,
    }
}

#[test]
fn a_token_is_good_until_the_second_it_expires() {
    let issuer = Issuer::new("k");
    let token = issuer.sign(&claims());
    assert_eq!(issuer.verifier().verify(&token, NOW + 9).unwrap(), claims());
    assert_eq!(
        issuer.verifier().verify(&token, NOW + 10),
        Err(Distrust::Expired)
    );

    let short = issuer.sign(&Claims {
        sxp: NOW,
        ..claims()
    });
    assert_eq!(
        issuer.verifier().verify(&short, NOW),
        Err(Distrust::Expired)
    );
}

#[test]
fn a_token_that_is_not_ours_is_told_from_one_of_a_key_that_is_not_known_yet() {
    let (issuer, other) = (Issuer::new("k"), Issuer::new("other"));
    let verify = |token: &str| issuer.verifier().verify(token, NOW);
    assert_eq!(verify(&other.sign(&claims())), Err(Distrust::UnknownKey));
    assert_eq!(
        verify(&Issuer::new("k").sign(&claims())),
        Err(Distrust::BadSignature)
    );
    assert_eq!(
        verify(&issuer.sign(&Claims {
            iss: "https://old.example.com".into(),
            ..claims()
        })),
        Err(Distrust::WrongIssuer)
    );
    assert_eq!(
        verify(&issuer.sign(&Claims {
            aud: "else".into(),
            ..claims()
        })),
        Err(Distrust::WrongAudience)
    );

    let token = issuer.sign(&claims());
    let signature = token.rsplit_once('.').unwrap().1;
    let plain = |header: &str| {
        let payload = serde_json::to_vec(&claims()).unwrap();
        format!(
            "{}.{}.{signature}",
            base64url(header.as_bytes()),
            base64url(&payload)
        )
    };

    for bad in [
        String::new(),
        "a.b.c".to_owned(),
        "x".repeat(10_000),
        plain(r#"{"alg":"none","typ":"at+jwt","kid":"k"}"#),
        plain(r#"{"alg":"HS256","typ":"at+jwt","kid":"k"}"#),
        plain(r#"{"alg":"ES256","typ":"JWT","kid":"k"}"#),
        plain(r#"{"alg":"ES256","typ":"at+jwt"}"#),
        plain(r#"{"alg":"ES256","typ":"at+jwt","kid":"k","crit":["x"]}"#),
    ] {
        assert_eq!(verify(&bad), Err(Distrust::Malformed), "{bad}");
        assert_eq!(unverified(&bad), None, "{bad}");
    }
}

#[test]
fn what_a_token_says_of_itself_can_be_read_by_whoever_trusts_nobody() {
    let claims = Claims { exp: 1, ..claims() };
    assert_eq!(unverified(&Issuer::new("gone").sign(&claims)), Some(claims));
}

#[test]
fn a_token_names_the_key_it_is_bound_to() {
    let issuer = Issuer::new("k");
    let jkt: Thumbprint = base64url(&[7; 32]).parse().unwrap();
    let bound = Claims {
        cnf: Some(Confirmation { jkt: jkt.clone() }),
        ..claims()
    };
    assert_eq!(
        issuer
            .verifier()
            .verify(&issuer.sign(&bound), NOW)
            .unwrap()
            .cnf
            .unwrap()
            .jkt,
        jkt
    );
}
