//! The service without a socket: what callers get, and what is left when the database cannot be used.

use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use sqlx::{ConnectOptions as _, Connection as _};
use tonic::Code;
use tonic_types::StatusExt as _;
use vvs_auth::key::Keyring;
use vvs_auth::token::Claims;
use vvs_runtime::metrics::Metrics;
use vvs_runtime::rpc::reason;

use super::*;
use crate::store::tests::{Place, count, terms};

struct Bench {
    place: Place,
    service: Service,
    metrics: Metrics,
}

async fn bench() -> Bench {
    let place = Place::new();
    let store = place.open().await;
    let keyring = Keyring::parse(&Keyring::generate().unwrap()).unwrap();
    let keys = Keys::load(&store, &keyring, clock()).await.unwrap();
    let metrics = Metrics::default();
    let counts = Counts::register(&metrics);
    Bench { place, service: Service { store, keys, terms: terms(), counts }, metrics }
}

fn request(number: u32, subject: &str) -> wire::CreateSessionRequest {
    wire::CreateSessionRequest {
        request_id: format!("00000000-0000-4000-8000-{number:012}"),
        identity: Some(wire::Identity {
            provider: "dev".into(),
            subject: subject.into(),
            email: Some("ada@example.com".into()),
            ..wire::Identity::default()
        }),
        device: Some(wire::Device { name: "laptop".into(), ..wire::Device::default() }),
        address: "192.0.2.1".into(),
    }
}

impl Bench {
    async fn create(&self, request: wire::CreateSessionRequest) -> Result<(wire::Session, wire::Token), Status> {
        let created = self.service.create_session(Request::new(request)).await?.into_inner();
        Ok((created.session.unwrap(), created.token.unwrap()))
    }

    async fn activate(&self, id: &str) -> Result<Option<Timestamp>, Status> {
        let request = wire::ActivateSessionRequest { session_id: id.to_owned() };
        Ok(self.service.activate_session(Request::new(request)).await?.into_inner().activated_at)
    }

    async fn execute(&self, sql: &'static str) {
        sqlx::query(sql).execute(self.service.store.pool()).await.unwrap();
    }

    async fn left(&self) -> (i64, i64) {
        let store = &self.service.store;
        (count(store, "SELECT count(*) FROM users").await, count(store, "SELECT count(*) FROM sessions").await)
    }

    /// As a backend does that knows nothing of us but the key set.
    async fn verify(&self, token: &str) -> Claims {
        let jwks = self.service.get_signing_keys(Request::new(wire::GetSigningKeysRequest {})).await.unwrap();
        let set: JwkSet = serde_json::from_str(&jwks.into_inner().jwks).unwrap();
        let header = decode_header(token).unwrap();
        assert_eq!(header.typ.as_deref(), Some("at+jwt"));
        let key = DecodingKey::from_jwk(set.find(&header.kid.unwrap()).unwrap()).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&["vvs"]);
        validation.set_issuer(&["https://auth.test"]);
        decode(token, &key, &validation).unwrap().claims
    }

    /// What a caller is told while the database is down, and that it is counted.
    fn down(&self, told: &Status, kind: &str) {
        assert_eq!((told.code(), reason(told).as_str()), (Code::Unavailable, "DATABASE_DOWN"));
        assert_eq!(told.message(), "DATABASE_DOWN", "the cause was told");
        assert!(told.get_details_retry_info().is_some());
        let counted = format!("vvs_database_errors_total{{kind=\"{kind}\"}}");
        assert!(self.metrics.scrape().contains(&counted), "{counted} is missing: {}", self.metrics.scrape());
    }
}

#[tokio::test]
async fn a_token_verifies_against_the_published_keys() {
    let bench = bench().await;
    let (session, token) = bench.create(request(1, "ada")).await.unwrap();
    let claims = bench.verify(&token.token).await;
    assert_eq!(claims.sid, session.id);
    assert_eq!(claims.sub, session.user.unwrap().id);
    assert_eq!((claims.exp, claims.sxp), (claims.iat + 2_592_000, claims.iat + 2_592_000));
    assert_eq!(token.expires_at, timestamp(claims.exp));
    assert_eq!(session.expires_at, timestamp(claims.sxp));
    assert_eq!(session.activated_at, None);
}

#[tokio::test]
async fn a_repeat_signs_a_new_token_for_the_same_session() {
    let bench = bench().await;
    let (session, token) = bench.create(request(1, "ada")).await.unwrap();
    let (session_again, token_again) = bench.create(request(1, "ada")).await.unwrap();
    assert_eq!(session, session_again);
    assert_ne!(token.token, token_again.token);
    let (claims, claims_again) = (bench.verify(&token.token).await, bench.verify(&token_again.token).await);
    assert_eq!((claims.sid, claims.sub, claims.sxp), (claims_again.sid, claims_again.sub, claims_again.sxp));
    assert_ne!(claims.jti, claims_again.jti);
    assert!(bench.metrics.scrape().contains("vvs_sessions_created_total 1\n"));
}

#[tokio::test]
async fn a_second_activation_changes_nothing_and_is_not_counted() {
    let bench = bench().await;
    let id = bench.create(request(1, "ada")).await.unwrap().0.id;
    let first = bench.activate(&id).await.unwrap();
    assert!(first.is_some());
    assert_eq!(bench.activate(&id).await.unwrap(), first);
    assert!(bench.metrics.scrape().contains("vvs_sessions_activated_total 1\n"));
}

#[tokio::test]
async fn a_refusal_has_its_documented_code_and_reason() {
    let bench = bench().await;
    bench.create(request(1, "ada")).await.unwrap();
    let claimed = bench.create(request(1, "bob")).await.unwrap_err();
    assert_eq!((claimed.code(), reason(&claimed).as_str()), (Code::AlreadyExists, "REQUEST_CLAIMED"));
    let unknown = bench.activate("ses_AAAAAAAAAAAAAAAAAAAAAA").await.unwrap_err();
    assert_eq!((unknown.code(), reason(&unknown).as_str()), (Code::NotFound, "SESSION_UNKNOWN"));
    let malformed = bench.activate("' OR 1=1 --").await.unwrap_err();
    assert_eq!((malformed.code(), reason(&malformed).as_str()), (Code::InvalidArgument, "MALFORMED"));
}

#[tokio::test]
async fn a_malformed_field_is_named_and_nothing_is_made() {
    type Spoil = fn(&mut wire::CreateSessionRequest);
    let cases: [(&str, Spoil); 13] = [
        ("request_id", |request| request.request_id = "1".into()),
        ("identity", |request| request.identity = None),
        ("identity.provider", |request| request.identity.as_mut().unwrap().provider.clear()),
        ("identity.subject", |request| request.identity.as_mut().unwrap().subject = "s".repeat(256)),
        ("identity.provider_session", |request| {
            request.identity.as_mut().unwrap().provider_session = "s".repeat(256);
        }),
        ("identity.email", |request| request.identity.as_mut().unwrap().email = Some("e".repeat(321))),
        ("identity.name", |request| request.identity.as_mut().unwrap().name = Some("n\0".into())),
        ("identity.avatar_url", |request| request.identity.as_mut().unwrap().avatar_url = Some("u".repeat(2049))),
        ("device.name", |request| request.device.as_mut().unwrap().name = "n".repeat(256)),
        ("device.os", |request| request.device.as_mut().unwrap().os = "o".repeat(256)),
        ("device.app", |request| request.device.as_mut().unwrap().app = "a".repeat(256)),
        ("device.jwk", |request| request.device.as_mut().unwrap().jwk = "{}".into()),
        ("address", |request| request.address = "a".repeat(65)),
    ];
    let bench = bench().await;
    for (field, spoil) in cases {
        let mut request = request(1, "ada");
        spoil(&mut request);
        let told = bench.create(request).await.unwrap_err();
        assert_eq!((told.code(), reason(&told).as_str()), (Code::InvalidArgument, "MALFORMED"), "{field}");
        let named = told.get_details_bad_request().unwrap().field_violations;
        assert_eq!(named.iter().map(|violation| violation.field.as_str()).collect::<Vec<_>>(), [field]);
    }
    assert_eq!(bench.left().await, (0, 0));
}

#[tokio::test]
async fn what_comes_later_says_so() {
    let bench = bench().await;
    let told = bench.service.refresh_token(Request::new(wire::RefreshTokenRequest::default())).await.unwrap_err();
    assert_eq!((told.code(), reason(&told).as_str()), (Code::Unimplemented, "NOT_IMPLEMENTED"));
    assert_eq!(told.message(), "RefreshToken is not implemented in this version");
    let watch = bench.service.watch_revocations(Request::new(wire::WatchRevocationsRequest::default())).await;
    assert_eq!(watch.err().unwrap().code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_locked_database_loses_nothing() {
    let bench = bench().await;
    let id = bench.create(request(1, "ada")).await.unwrap().0.id;
    bench.execute("PRAGMA busy_timeout = 0").await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(bench.place.file());
    let mut other = options.connect().await.unwrap();
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await.unwrap();
    bench.down(&bench.create(request(2, "bob")).await.unwrap_err(), "locked");
    bench.down(&bench.activate(&id).await.unwrap_err(), "locked");

    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    assert_eq!(bench.left().await, (1, 1));
    bench.create(request(2, "bob")).await.unwrap();
    bench.activate(&id).await.unwrap();
}

#[tokio::test]
async fn a_database_that_cannot_be_written_loses_nothing() {
    let bench = bench().await;
    let id = bench.create(request(1, "ada")).await.unwrap().0.id;
    bench.execute("PRAGMA query_only = ON").await;
    bench.down(&bench.create(request(2, "bob")).await.unwrap_err(), "read_only");
    bench.down(&bench.activate(&id).await.unwrap_err(), "read_only");

    bench.execute("PRAGMA query_only = OFF").await;
    assert_eq!(bench.left().await, (1, 1));
    bench.create(request(2, "bob")).await.unwrap();
    bench.activate(&id).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_loses_nothing() {
    let bench = bench().await;
    // No page more than there is: users still fit in theirs when sessions, which are long, do not.
    bench.execute("PRAGMA max_page_count = 1").await;
    let long = |number: u32| {
        let mut request = request(number, &format!("user {number}"));
        request.device.as_mut().unwrap().app = "app".repeat(85);
        request
    };
    let mut made = 0;
    let told = loop {
        match bench.create(long(made)).await {
            Ok(_) => made += 1,
            Err(told) => break told,
        }
    };
    bench.down(&told, "full");
    assert_eq!(bench.left().await, (made.into(), made.into()));

    bench.execute("PRAGMA max_page_count = 1000000").await;
    bench.create(long(made)).await.unwrap();
    assert_eq!(bench.left().await, (i64::from(made) + 1, i64::from(made) + 1));
}

#[tokio::test]
async fn a_database_file_that_is_gone_is_missed_and_not_replaced() {
    let bench = bench().await;
    let (session, _) = bench.create(request(1, "ada")).await.unwrap();
    let away = bench.place.file().with_extension("away");
    std::fs::rename(bench.place.file(), &away).unwrap();
    bench.down(&bench.create(request(2, "bob")).await.unwrap_err(), "missing");
    assert!(!bench.place.file().exists());

    std::fs::rename(&away, bench.place.file()).unwrap();
    assert_eq!(bench.create(request(1, "ada")).await.unwrap().0, session);
    assert_eq!(bench.left().await, (1, 1));
}

#[tokio::test]
async fn a_database_that_is_always_busy_is_not_waited_for_without_end() {
    let bench = bench().await;
    let held = bench.service.store.pool().acquire().await.unwrap();
    tokio::time::pause();
    let asked = tokio::time::Instant::now();
    let told = bench.create(request(1, "ada")).await.unwrap_err();
    assert!(asked.elapsed() < Duration::from_secs(5));
    tokio::time::resume();
    bench.down(&told, "busy");

    drop(held);
    bench.create(request(1, "ada")).await.unwrap();
}
