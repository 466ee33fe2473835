//! The service without a socket: what callers get, and the state that remains when the database
//! cannot be used.

use std::time::Duration;

use futures_util::StreamExt as _;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header,
};
use prost_types::Timestamp;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_types::StatusExt as _;
use vvs_auth::key::Keyring;
use vvs_auth::token::{Claims, Jwk, SigningKey};
use vvs_proto::session::watch_revocations_response::Event;
use vvs_proto::timestamp;
use vvs_runtime::metrics::Metrics;
use vvs_runtime::rpc::reason;

use super::*;
use crate::key::Rotation;
use crate::limit::tests::refreshes;
use crate::store::Room;
use crate::store::feed::PAGE;
use crate::store::tests::{Location, count, on_both_databases, terms};
use vvs_test_servers::postgres::{PASSWORD, Postgres};

mod audit;
mod browser;
mod end;
mod often;

struct Bench {
    service: Service,
    metrics: Metrics,
    stop: CancellationToken,
}

async fn bench(place: &Location) -> Bench {
    bench_with(place, 1024).await
}

async fn bench_with(place: &Location, backlog: u32) -> Bench {
    let store = place.open().await;
    // Replicas have the same key file.
    let keyring = Keyring::parse("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
    let rotation = Rotation {
        interval: 1_000_000,
        lead: 1000,
    };
    let keys = Arc::new(
        SigningKeys::load(&store, &keyring, rotation, clock())
            .await
            .unwrap(),
    );
    let metrics = Metrics::default();
    let counts = Counts::register(&metrics);
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let store = store.with_room(Room {
        ends: 3,
        reached: metrics.reached.clone(),
    });
    let bounds = feed::Bounds {
        backlog,
        turn_time: Duration::from_secs(1),
    };
    let feed = Feed::start(
        &store,
        counts.clone(),
        metrics.reached.clone(),
        bounds,
        &stop,
        &tasks,
    );
    let service = Service {
        store,
        keys,
        terms: terms(),
        refreshes: refreshes(),
        counts,
        feed,
        peers: Arc::new(Peers::new(Vec::new(), "vvs.internal").unwrap()),
        tasks,
    };

    Bench {
        service,
        metrics,
        stop,
    }
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
        device: Some(wire::Device {
            name: "laptop".into(),
            ..wire::Device::default()
        }),
        address: "192.0.2.1".into(),
        connection_id: "1b4e28ba-2fa1-41d2-883f-0016d3cca427".into(),
    }
}

impl Bench {
    async fn create(
        &self,
        request: wire::CreateSessionRequest,
    ) -> Result<(wire::Session, wire::Token), Status> {
        let created = self
            .service
            .create_session(Request::new(request))
            .await?
            .into_inner();
        Ok((created.session.unwrap(), created.token.unwrap()))
    }

    async fn activate(&self, id: &str) -> Result<Option<Timestamp>, Status> {
        let request = wire::ActivateSessionRequest {
            session_id: id.to_owned(),
            address: "203.0.113.5".into(),
        };
        Ok(self
            .service
            .activate_session(Request::new(request))
            .await?
            .into_inner()
            .activated_at)
    }

    async fn execute(&self, sql: &'static str) {
        sqlx::query(sql)
            .execute(self.service.store.pool())
            .await
            .unwrap();
    }

    async fn left(&self) -> (i64, i64) {
        let store = &self.service.store;
        (
            count(store, "SELECT count(*) FROM users").await,
            count(store, "SELECT count(*) FROM sessions").await,
        )
    }

    /// Verifies as a backend does that knows only our key set.
    async fn verify(&self, token: &str) -> Claims {
        let jwks = self
            .service
            .get_signing_keys(Request::new(wire::GetSigningKeysRequest {}))
            .await
            .unwrap();
        let set: JwkSet = serde_json::from_str(&jwks.into_inner().jwks).unwrap();
        let header = decode_header(token).unwrap();
        assert_eq!(header.typ.as_deref(), Some("at+jwt"));

        let key = DecodingKey::from_jwk(set.find(&header.kid.unwrap()).unwrap()).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&["vvs"]);
        validation.set_issuer(&["https://auth.test"]);

        decode(token, &key, &validation).unwrap().claims
    }

    /// Checks what a caller is told while the database is down, and that it is counted.
    fn down(&self, told: &Status, kind: &str) {
        assert_eq!(
            (told.code(), reason(told).as_str()),
            (Code::Unavailable, "DATABASE_DOWN")
        );
        assert_eq!(told.message(), "DATABASE_DOWN", "the cause was told");
        assert!(told.get_details_retry_info().is_some());

        let counted = format!("vvs_database_errors_total{{kind=\"{kind}\"}}");
        assert!(
            self.metrics.scrape().contains(&counted),
            "{counted} is missing: {}",
            self.metrics.scrape()
        );
    }
}

async fn a_token_verifies_against_the_published_keys(place: &Location) {
    let bench = bench(place).await;
    let (session, token) = bench.create(request(1, "ada")).await.unwrap();
    let claims = bench.verify(&token.token).await;
    assert_eq!(claims.sid, session.id);
    assert_eq!(claims.sub, session.user.unwrap().id);
    assert_eq!(
        (claims.exp, claims.sxp),
        (claims.iat + 2_592_000, claims.iat + 2_592_000)
    );
    assert_eq!(token.expires_at, Some(timestamp::seconds(claims.exp)));
    assert_eq!(session.expires_at, Some(timestamp::seconds(claims.sxp)));
    assert_eq!(session.activated_at, None);
}

async fn a_repeat_signs_a_new_token_for_the_same_session(place: &Location) {
    let bench = bench(place).await;
    let (session, token) = bench.create(request(1, "ada")).await.unwrap();
    let (session_again, token_again) = bench.create(request(1, "ada")).await.unwrap();
    assert_eq!(session, session_again);
    assert_ne!(token.token, token_again.token);

    let (claims, claims_again) = (
        bench.verify(&token.token).await,
        bench.verify(&token_again.token).await,
    );
    assert_eq!(
        (claims.sid, claims.sub, claims.sxp),
        (claims_again.sid, claims_again.sub, claims_again.sxp)
    );
    assert_ne!(claims.jti, claims_again.jti);
    assert!(
        bench
            .metrics
            .scrape()
            .contains("vvs_sessions_created_total 1\n")
    );
}

async fn a_second_activation_changes_nothing_and_is_not_counted(place: &Location) {
    let bench = bench(place).await;
    let id = bench.create(request(1, "ada")).await.unwrap().0.id;
    let first = bench.activate(&id).await.unwrap();
    assert!(first.is_some());
    assert_eq!(bench.activate(&id).await.unwrap(), first);
    assert!(
        bench
            .metrics
            .scrape()
            .contains("vvs_sessions_activated_total 1\n")
    );
}

async fn of_many_that_are_activated_at_once_each_has_its_own_outcome(place: &Location) {
    let bench = bench(place).await;
    let ids = [
        bench.create(request(1, "ada")).await.unwrap().0.id,
        bench.create(request(2, "bob")).await.unwrap().0.id,
    ];
    let asked = |id: &str| wire::ActivateSessionRequest {
        session_id: id.to_owned(),
        address: "203.0.113.5".into(),
    };
    let unknown = "ses_AAAAAAAAAAAAAAAAAAAAAA";
    let elsewhere = wire::ActivateSessionRequest {
        address: "x".repeat(65),
        ..asked(&ids[1])
    };
    let activations = vec![
        asked(&ids[0]),
        asked("' OR 1=1 --"),
        asked(unknown),
        elsewhere,
        asked(&ids[0]),
    ];
    let several = wire::ActivateSessionsRequest { activations };
    let answer = bench
        .service
        .activate_sessions(Request::new(several))
        .await
        .unwrap()
        .into_inner();
    let mut told: Vec<_> = answer
        .not_activated
        .into_iter()
        .map(|not| (not.session_id, not.reason))
        .collect();
    told.sort_unstable();
    let expected = [
        ("' OR 1=1 --", "MALFORMED"),
        (&*ids[1], "MALFORMED"),
        (unknown, "SESSION_UNKNOWN"),
    ];
    let mut expected = expected.map(|(id, reason)| (id.to_owned(), reason.to_owned()));
    expected.sort_unstable();
    assert_eq!(told, expected);
    assert!(
        bench
            .metrics
            .scrape()
            .contains("vvs_sessions_activated_total 1\n")
    );

    let many = wire::ActivateSessionsRequest {
        activations: vec![asked(&ids[1]); MAX_ACTIVATED + 1],
    };
    let refused = bench
        .service
        .activate_sessions(Request::new(many))
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::InvalidArgument, "MALFORMED")
    );

    let most = wire::ActivateSessionsRequest {
        activations: vec![asked(&ids[1]); MAX_ACTIVATED],
    };
    bench
        .service
        .activate_sessions(Request::new(most))
        .await
        .unwrap();
    assert!(
        bench
            .metrics
            .scrape()
            .contains("vvs_sessions_activated_total 2\n")
    );

    bench.service.store.pool().close().await;
    let down = wire::ActivateSessionsRequest {
        activations: vec![asked(&ids[0])],
    };
    let told = bench
        .service
        .activate_sessions(Request::new(down))
        .await
        .unwrap_err();
    assert_eq!(
        (told.code(), reason(&told).as_str()),
        (Code::Unavailable, "DATABASE_DOWN")
    );
}

async fn a_refusal_has_its_documented_code_and_reason(place: &Location) {
    let bench = bench(place).await;
    bench.create(request(1, "ada")).await.unwrap();
    let claimed = bench.create(request(1, "bob")).await.unwrap_err();
    assert_eq!(
        (claimed.code(), reason(&claimed).as_str()),
        (Code::AlreadyExists, "REQUEST_CLAIMED")
    );

    let unknown = bench
        .activate("ses_AAAAAAAAAAAAAAAAAAAAAA")
        .await
        .unwrap_err();
    assert_eq!(
        (unknown.code(), reason(&unknown).as_str()),
        (Code::NotFound, "SESSION_UNKNOWN")
    );

    let malformed = bench.activate("' OR 1=1 --").await.unwrap_err();
    assert_eq!(
        (malformed.code(), reason(&malformed).as_str()),
        (Code::InvalidArgument, "MALFORMED")
    );
}

async fn a_malformed_field_is_named_and_nothing_is_made(place: &Location) {
    type Spoil = fn(&mut wire::CreateSessionRequest);
    let cases: [(&str, Spoil); 14] = [
        ("request_id", |request| request.request_id = "1".into()),
        ("identity", |request| request.identity = None),
        ("identity.provider", |request| {
            request.identity.as_mut().unwrap().provider.clear()
        }),
        ("identity.subject", |request| {
            request.identity.as_mut().unwrap().subject = "s".repeat(256)
        }),
        ("identity.provider_session", |request| {
            request.identity.as_mut().unwrap().provider_session = "s".repeat(256);
        }),
        ("identity.email", |request| {
            request.identity.as_mut().unwrap().email = Some("e".repeat(321))
        }),
        ("identity.name", |request| {
            request.identity.as_mut().unwrap().name = Some("n\0".into())
        }),
        ("identity.avatar_url", |request| {
            request.identity.as_mut().unwrap().avatar_url = Some("u".repeat(2049))
        }),
        ("device.name", |request| {
            request.device.as_mut().unwrap().name = "n".repeat(256)
        }),
        ("device.os", |request| {
            request.device.as_mut().unwrap().os = "o".repeat(256)
        }),
        ("device.app", |request| {
            request.device.as_mut().unwrap().app = "a".repeat(256)
        }),
        ("device.jwk", |request| {
            request.device.as_mut().unwrap().jwk = "{}".into()
        }),
        ("connection_id", |request| {
            request.connection_id = "c".repeat(65)
        }),
        ("address", |request| request.address = "a".repeat(65)),
    ];
    let bench = bench(place).await;
    for (field, spoil) in cases {
        let mut request = request(1, "ada");
        spoil(&mut request);
        let told = bench.create(request).await.unwrap_err();
        assert_eq!(
            (told.code(), reason(&told).as_str()),
            (Code::InvalidArgument, "MALFORMED"),
            "{field}"
        );

        let named = told.get_details_bad_request().unwrap().field_violations;
        assert_eq!(
            named
                .iter()
                .map(|violation| violation.field.as_str())
                .collect::<Vec<_>>(),
            [field]
        );
    }

    assert_eq!(bench.left().await, (0, 0));
}

#[tokio::test]
async fn a_locked_database_loses_nothing() {
    let place = Location::new();
    let bench = bench(&place).await;
    let id = bench.create(request(1, "ada")).await.unwrap().0.id;
    bench.execute("PRAGMA busy_timeout = 0").await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(place.file());
    let mut other = options.connect().await.unwrap();
    sqlx::query("BEGIN EXCLUSIVE")
        .execute(&mut other)
        .await
        .unwrap();
    bench.down(
        &bench.create(request(2, "bob")).await.unwrap_err(),
        "locked",
    );
    bench.down(&bench.activate(&id).await.unwrap_err(), "locked");

    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    assert_eq!(bench.left().await, (1, 1));

    bench.create(request(2, "bob")).await.unwrap();
    bench.activate(&id).await.unwrap();
}

#[tokio::test]
async fn a_database_that_cannot_be_written_loses_nothing() {
    let place = Location::new();
    let bench = bench(&place).await;
    let id = bench.create(request(1, "ada")).await.unwrap().0.id;
    bench.execute("PRAGMA query_only = ON").await;
    bench.down(
        &bench.create(request(2, "bob")).await.unwrap_err(),
        "read_only",
    );
    bench.down(&bench.activate(&id).await.unwrap_err(), "read_only");

    bench.execute("PRAGMA query_only = OFF").await;
    assert_eq!(bench.left().await, (1, 1));

    bench.create(request(2, "bob")).await.unwrap();
    bench.activate(&id).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_loses_nothing() {
    let place = Location::new();
    let bench = bench(&place).await;

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
    assert_eq!(
        bench.left().await,
        (i64::from(made) + 1, i64::from(made) + 1)
    );
}

#[tokio::test]
async fn a_database_file_that_is_gone_is_missed_and_not_replaced() {
    let place = Location::new();
    let bench = bench(&place).await;
    let (session, _) = bench.create(request(1, "ada")).await.unwrap();
    let away = place.file().with_extension("away");
    std::fs::rename(place.file(), &away).unwrap();
    bench.down(
        &bench.create(request(2, "bob")).await.unwrap_err(),
        "missing",
    );
    assert!(!place.file().exists());

    std::fs::rename(&away, place.file()).unwrap();
    assert_eq!(bench.create(request(1, "ada")).await.unwrap().0, session);
    assert_eq!(bench.left().await, (1, 1));
}

#[tokio::test]
async fn a_database_that_is_always_busy_is_not_waited_for_without_end() {
    let place = Location::new();
    let bench = bench(&place).await;
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

/// An editor with a device key.
struct Editor {
    key: EncodingKey,
    jwk: serde_json::Value,
}

impl Editor {
    fn new() -> Self {
        let der = SigningKey::generate().unwrap();
        let Jwk { x, y, .. } = SigningKey::from_pkcs8("editor", &der)
            .unwrap()
            .public()
            .clone();
        let jwk = serde_json::json!({"kty": "EC", "crv": "P-256", "x": x, "y": y});
        Self {
            key: EncodingKey::from_ec_der(&der),
            jwk,
        }
    }

    fn approved(&self, number: u32) -> wire::CreateSessionRequest {
        let device = wire::Device {
            name: "laptop".into(),
            jwk: self.jwk.to_string(),
            ..wire::Device::default()
        };
        wire::CreateSessionRequest {
            device: Some(device),
            ..request(number, "ada")
        }
    }

    fn prove(&self, purpose: &str, changed: &serde_json::Value) -> String {
        let jwk = serde_json::from_value(self.jwk.clone()).unwrap();
        let header = Header {
            typ: Some("vvs-pop+jwt".into()),
            jwk: Some(jwk),
            ..Header::new(Algorithm::ES256)
        };
        let mut payload = serde_json::json!({"aud": "https://auth.test", "nonce": "socket", "jti": "once", "use": purpose});
        payload
            .as_object_mut()
            .unwrap()
            .extend(changed.as_object().unwrap().clone());

        jsonwebtoken::encode(&header, &payload, &self.key).unwrap()
    }

    fn refresh(&self, id: &str) -> wire::RefreshTokenRequest {
        wire::RefreshTokenRequest {
            session_id: id.to_owned(),
            proof: self.prove("refresh", &serde_json::json!({})),
            nonce: "socket".into(),
            token: String::new(),
            address: "198.51.100.7".into(),
            key_id: String::new(),
        }
    }
}

fn revocation(id: &str, reason: &str) -> wire::RevokeSessionRequest {
    wire::RevokeSessionRequest {
        session_id: id.to_owned(),
        reason: reason.to_owned(),
        ..wire::RevokeSessionRequest::default()
    }
}

impl Bench {
    async fn refresh(
        &self,
        request: wire::RefreshTokenRequest,
    ) -> Result<wire::RefreshTokenResponse, Status> {
        Ok(self
            .service
            .refresh_token(Request::new(request))
            .await?
            .into_inner())
    }

    async fn revoke(&self, role: Role, request: wire::RevokeSessionRequest) -> Result<(), String> {
        self.service
            .revoke(role, request)
            .await
            .map_err(|error| reason(&error.into()))
    }

    async fn refused(&self) -> Vec<String> {
        let query = "SELECT reason FROM audit WHERE event = 'proof_refused' ORDER BY at, reason";
        sqlx::query_scalar(query)
            .fetch_all(self.service.store.pool())
            .await
            .unwrap()
    }

    async fn watch(&self, after: u64) -> Result<BoxStream<wire::WatchRevocationsResponse>, Status> {
        self.watch_database(after, "").await
    }

    async fn watch_database(
        &self,
        after_sequence: u64,
        database_id: &str,
    ) -> Result<BoxStream<wire::WatchRevocationsResponse>, Status> {
        let request = wire::WatchRevocationsRequest {
            after_sequence,
            database_id: database_id.to_owned(),
        };
        let followed = self.service.feed.follow(Role::Relay, request).await;
        followed.map_err(Status::from)
    }
}

async fn next(stream: &mut BoxStream<wire::WatchRevocationsResponse>) -> Event {
    let told = tokio::time::timeout(Duration::from_secs(20), stream.next())
        .await
        .unwrap();
    told.unwrap().unwrap().event.unwrap()
}

/// Returns the next message, except those about how long sessions have been pending.
async fn next_change(stream: &mut BoxStream<wire::WatchRevocationsResponse>) -> Event {
    loop {
        let event = next(stream).await;
        if !matches!(event, Event::PendingSince(_)) {
            return event;
        }
    }
}

fn revoked(event: Event) -> (u64, String, String) {
    let Event::Revocation(entry) = event else {
        panic!("{event:?} is no revocation")
    };
    (entry.sequence, entry.session_id, entry.reason)
}

async fn a_token_of_a_device_key_names_it_and_lives_an_hour(place: &Location) {
    let (bench, editor) = (bench(place).await, Editor::new());
    let (session, token) = bench.create(editor.approved(1)).await.unwrap();
    let claims = bench.verify(&token.token).await;
    let key = vvs_auth::device::DeviceKey::from_value(&editor.jwk).unwrap();
    assert_eq!(claims.cnf.unwrap().jkt, key.thumbprint());
    assert!(claims.pending);
    assert_eq!(
        (claims.exp, claims.sxp),
        (claims.iat + 3600, claims.iat + 2_592_000)
    );
    assert_eq!(session.device.unwrap().jwk, key.to_json());
}

async fn an_editor_that_proves_its_key_gets_a_fresh_token(place: &Location) {
    let (bench, editor) = (bench(place).await, Editor::new());
    let (session, token) = bench.create(editor.approved(1)).await.unwrap();
    let fresh = bench.refresh(editor.refresh(&session.id)).await.unwrap();
    let claims = bench.verify(&fresh.token.as_ref().unwrap().token).await;
    assert_eq!((claims.sid, claims.pending), (session.id.clone(), false));
    assert_eq!(fresh.session.as_ref().unwrap().address, "198.51.100.7");
    assert!(fresh.session.unwrap().activated_at.is_some());

    // A reply that was lost: the same proof again is no harm, the relay sees to it that it is taken
    // once.
    bench.refresh(editor.refresh(&session.id)).await.unwrap();

    // With an expired or foreign token beside it, the proof must be for that token.
    let hash = "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0";
    let mut shown = editor.refresh(&session.id);
    shown.token = "abc".into();
    shown.proof = editor.prove("authenticate", &serde_json::json!({"ath": hash}));
    bench.refresh(shown.clone()).await.unwrap();
    shown.token = token.token;
    let told = bench.refresh(shown).await.unwrap_err();
    assert_eq!(
        (told.code(), reason(&told).as_str()),
        (Code::PermissionDenied, "BAD_PROOF")
    );
    assert!(
        bench
            .metrics
            .scrape()
            .contains("vvs_sessions_refreshed_total 3\n")
    );
    assert!(
        bench
            .metrics
            .scrape()
            .contains("vvs_sessions_activated_total 1\n")
    );
}

async fn a_proof_that_does_not_hold_is_refused_and_written_down_if_it_is_the_sessions_own(
    place: &Location,
) {
    let (bench, editor) = (bench(place).await, Editor::new());
    let id = bench.create(editor.approved(1)).await.unwrap().0.id;
    let none = serde_json::json!({});
    for bad in [
        String::new(),
        editor.prove("logout", &none),
        editor.prove("hello", &none),
        editor.prove("authenticate", &none),
        editor.prove("refresh", &serde_json::json!({"nonce": "other"})),
        editor.prove("refresh", &serde_json::json!({"aud": "https://evil.test"})),
    ] {
        let told = bench
            .refresh(wire::RefreshTokenRequest {
                proof: bad,
                ..editor.refresh(&id)
            })
            .await
            .unwrap_err();
        assert_eq!(
            (told.code(), reason(&told).as_str()),
            (Code::PermissionDenied, "BAD_PROOF")
        );
    }

    // Except the one that nobody has signed.
    assert_eq!(bench.refused().await, ["BAD_PROOF"; 5]);
    assert!(
        bench
            .metrics
            .scrape()
            .contains("vvs_sessions_proofs_refused_total{reason=\"BAD_PROOF\"} 6\n")
    );
}

async fn a_stranger_learns_of_no_session_and_writes_nothing_about_it(place: &Location) {
    let (bench, editor, stranger) = (bench(place).await, Editor::new(), Editor::new());
    let (live, token) = bench.create(editor.approved(1)).await.unwrap();
    let key_id = decode_header(&token.token).unwrap().kid.unwrap();
    let revoked = bench.create(editor.approved(2)).await.unwrap().0;
    bench
        .revoke(Role::Web, revocation(&revoked.id, "banned"))
        .await
        .unwrap();
    let expired = bench.create(editor.approved(3)).await.unwrap().0;
    sqlx::query("UPDATE sessions SET expires_at = 1 WHERE id = $1")
        .bind(&expired.id)
        .execute(bench.service.store.pool())
        .await
        .unwrap();
    let bearer = bench.create(request(4, "ada")).await.unwrap().0;
    let before = count(&bench.service.store, "SELECT count(*) FROM audit").await;

    let ask = async |id: &str, by: &Editor, key_id: &str| {
        let request = wire::RefreshTokenRequest {
            key_id: key_id.to_owned(),
            ..by.refresh(id)
        };
        let told = bench.refresh(request).await.unwrap_err();
        (told.code(), reason(&told))
    };
    for id in [&live.id, &revoked.id, &expired.id, &bearer.id, "ses_x"] {
        assert_eq!(
            ask(id, &stranger, &key_id).await,
            (Code::NotFound, "SESSION_UNKNOWN".to_owned()),
            "{id}"
        );
        assert_eq!(
            ask(id, &stranger, "another").await,
            (Code::Unavailable, "KEY_UNKNOWN".to_owned()),
            "{id}"
        );

        let other = stranger.prove("refresh", &serde_json::json!({"nonce": "other"}));

        for proof in [String::new(), "a.b.c".to_owned(), other] {
            let bad = wire::RefreshTokenRequest {
                proof,
                key_id: key_id.clone(),
                ..stranger.refresh(id)
            };
            assert_eq!(
                reason(&bench.refresh(bad).await.unwrap_err()),
                "BAD_PROOF",
                "{id}"
            );
        }
    }

    assert_eq!(
        count(&bench.service.store, "SELECT count(*) FROM audit").await,
        before
    );
    assert!(
        bench
            .metrics
            .scrape()
            .contains("vvs_sessions_proofs_refused_total{reason=\"KEY_MISMATCH\"} 8\n")
    );

    // Its own editor hears what has become of it.
    assert_eq!(
        ask(&revoked.id, &editor, &key_id).await.1,
        "SESSION_REVOKED"
    );
    assert_eq!(
        ask(&expired.id, &editor, &key_id).await.1,
        "SESSION_EXPIRED"
    );

    bench.refresh(editor.refresh(&live.id)).await.unwrap();
}

async fn a_relay_ends_a_used_session_only_with_the_editors_proof(place: &Location) {
    let (bench, editor) = (bench(place).await, Editor::new());
    let id = bench.create(editor.approved(1)).await.unwrap().0.id;
    bench.activate(&id).await.unwrap();
    let logout = |proof: String| wire::RevokeSessionRequest {
        proof,
        nonce: "socket".into(),
        ..revocation(&id, "logout")
    };
    let none = || serde_json::json!({});
    for bad in [String::new(), editor.prove("refresh", &none())] {
        assert_eq!(
            bench.revoke(Role::Relay, logout(bad)).await.unwrap_err(),
            "BAD_PROOF"
        );
    }

    let strange = Editor::new().prove("logout", &none());
    assert_eq!(
        bench
            .revoke(Role::Relay, logout(strange))
            .await
            .unwrap_err(),
        "KEY_UNKNOWN"
    );

    bench.refresh(editor.refresh(&id)).await.unwrap();
    bench
        .revoke(Role::Relay, logout(editor.prove("logout", &none())))
        .await
        .unwrap();
    bench
        .revoke(Role::Relay, logout(editor.prove("logout", &none())))
        .await
        .unwrap();
    let told = bench.refresh(editor.refresh(&id)).await.unwrap_err();
    assert_eq!(
        (told.code(), reason(&told).as_str()),
        (Code::FailedPrecondition, "SESSION_REVOKED")
    );

    let bearer = bench.create(request(3, "ada")).await.unwrap().0.id;
    bench.activate(&bearer).await.unwrap();
    bench
        .revoke(Role::Relay, revocation(&bearer, "logout"))
        .await
        .unwrap();
    assert!(
        bench
            .metrics
            .scrape()
            .contains("vvs_sessions_revoked_total 2\n")
    );
}

async fn a_user_ends_his_own_sessions_only(place: &Location) {
    let bench = bench(place).await;
    let mine = bench.create(request(1, "ada")).await.unwrap().0;
    let other = bench.create(request(2, "bob")).await.unwrap().0;
    for id in [&mine.id, &other.id] {
        bench.activate(id).await.unwrap();
    }

    let mine_id = mine.user.as_ref().unwrap().id.clone();
    let theirs = wire::RevokeSessionRequest {
        user_id: mine_id.clone(),
        ..revocation(&other.id, "user")
    };
    assert_eq!(
        bench.revoke(Role::Web, theirs).await.unwrap_err(),
        "SESSION_UNKNOWN"
    );

    let own = wire::RevokeSessionRequest {
        user_id: mine_id.clone(),
        ..revocation(&mine.id, "user")
    };
    bench.revoke(Role::Web, own).await.unwrap();
    assert_eq!(
        bench
            .revoke(Role::Web, revocation(&other.id, "<b>"))
            .await
            .unwrap_err(),
        "MALFORMED"
    );

    let get = async |id: &str| {
        bench
            .service
            .get_session(Request::new(wire::GetSessionRequest {
                session_id: id.to_owned(),
            }))
            .await
    };
    assert_eq!(reason(&get(&mine.id).await.unwrap_err()), "SESSION_REVOKED");
    assert_eq!(
        get(&other.id)
            .await
            .unwrap()
            .into_inner()
            .session
            .unwrap()
            .id,
        other.id
    );

    let list = async |request: wire::ListSessionsRequest| {
        bench
            .service
            .list_sessions(Request::new(request))
            .await
            .map(|told| told.into_inner().sessions)
    };
    let by_id = wire::ListSessionsRequest {
        user_id: mine_id,
        identity: None,
    };
    assert!(list(by_id.clone()).await.unwrap().is_empty());

    let both = wire::ListSessionsRequest {
        identity: request(9, "bob").identity,
        ..by_id
    };
    assert_eq!(reason(&list(both).await.unwrap_err()), "MALFORMED");

    let by_name = |subject: &str| wire::ListSessionsRequest {
        identity: request(9, subject).identity,
        ..wire::ListSessionsRequest::default()
    };
    assert_eq!(list(by_name("bob")).await.unwrap()[0].id, other.id);
    assert!(list(by_name("eve")).await.unwrap().is_empty());

    let mut elsewhere = by_name("bob");
    elsewhere.identity.as_mut().unwrap().provider = "https://id.test".into();
    assert!(
        list(elsewhere).await.unwrap().is_empty(),
        "that is another person"
    );
    assert_eq!(
        reason(
            &list(wire::ListSessionsRequest::default())
                .await
                .unwrap_err()
        ),
        "MALFORMED"
    );
}

async fn a_watcher_hears_what_was_and_then_what_comes(place: &Location) {
    let bench = bench(place).await;
    let mut ids = Vec::new();
    for number in 0..4 {
        ids.push(bench.create(request(number, "ada")).await.unwrap().0.id);
    }

    bench
        .revoke(Role::Web, revocation(&ids[0], "one"))
        .await
        .unwrap();
    bench
        .revoke(Role::Web, revocation(&ids[1], "two"))
        .await
        .unwrap();
    let mut all = bench.watch(0).await.unwrap();
    let mut later = bench.watch(1).await.unwrap();
    assert_eq!(
        revoked(next_change(&mut all).await),
        (1, ids[0].clone(), "one".into())
    );

    for stream in [&mut all, &mut later] {
        assert_eq!(
            revoked(next_change(stream).await),
            (2, ids[1].clone(), "two".into())
        );
        assert_eq!(next_change(stream).await, Event::CaughtUp(2));
    }

    bench
        .revoke(Role::Web, revocation(&ids[2], "three"))
        .await
        .unwrap();

    for stream in [&mut all, &mut later] {
        assert_eq!(
            revoked(next_change(stream).await),
            (3, ids[2].clone(), "three".into())
        );
        assert_eq!(next_change(stream).await, Event::Heartbeat(3));
    }

    let gone = bench.watch(4).await.err().unwrap();
    assert_eq!(
        (gone.code(), reason(&gone).as_str()),
        (Code::OutOfRange, "SEQUENCE_GONE")
    );

    bench.stop.cancel();

    // What is ready is told, and then it ends.
    while let Some(event) = all.next().await {
        assert!(
            matches!(event.unwrap().event.unwrap(), Event::PendingSince(_)),
            "it goes on while the process stops"
        );
    }
}

async fn a_watcher_hears_at_once_of_more_than_one_reading_returns(place: &Location) {
    let bench = bench(place).await;
    let all = u64::from(PAGE) * 2 + 1;
    let mut user_id = String::new();
    for number in 0..all {
        let session = bench
            .create(request(u32::try_from(number).unwrap(), "ada"))
            .await
            .unwrap()
            .0;
        user_id = session.user.unwrap().id;
    }

    let mut stream = bench.watch(0).await.unwrap();
    assert_eq!(next_change(&mut stream).await, Event::CaughtUp(0));

    let request = wire::RevokeUserSessionsRequest {
        user_id,
        reason: "user".into(),
        ..Default::default()
    };
    bench
        .service
        .revoke_user_sessions(Request::new(request))
        .await
        .unwrap();
    let hearing = async {
        for sequence in 1..=all {
            assert_eq!(revoked(next_change(&mut stream).await).0, sequence);
        }
    };

    // Before the heartbeat that would find them anyway.
    tokio::time::timeout(Duration::from_secs(4), hearing)
        .await
        .unwrap();

    // A snapshot of more than one reading is whole before it is said to be.
    let mut stream = bench.watch(0).await.unwrap();
    for sequence in 1..=all {
        assert_eq!(revoked(next_change(&mut stream).await).0, sequence);
    }

    assert_eq!(next_change(&mut stream).await, Event::CaughtUp(all));
}

async fn a_watcher_hears_since_when_no_session_is_pending(place: &Location) {
    let bench = bench(place).await;
    let id = bench.create(request(1, "ada")).await.unwrap().0.id;
    bench
        .execute("UPDATE sessions SET created_at = created_at - 1000")
        .await;
    let before = clock();
    let mut stream = bench.watch(0).await.unwrap();
    let Event::PendingSince(since) = next(&mut stream).await else {
        panic!("it is not the first")
    };

    assert!((before - 1002..before - 998).contains(&since.seconds));
    assert_eq!(next(&mut stream).await, Event::CaughtUp(0));

    bench.activate(&id).await.unwrap();
    assert_eq!(next(&mut stream).await, Event::Heartbeat(0));

    let Event::PendingSince(since) = next(&mut stream).await else {
        panic!("it does not follow the heartbeat")
    };

    assert!(since.seconds > before - 100 && since.seconds < clock() - 4);

    // One that has just been made is not the youngest whose commit may still be to come.
    bench.create(request(2, "ada")).await.unwrap();
    let mut stream = bench.watch(0).await.unwrap();
    let Event::PendingSince(since) = next(&mut stream).await else {
        panic!("it is not the first")
    };

    assert!(since.seconds > before - 100 && since.seconds < clock() - 4);
}

async fn a_watcher_that_has_missed_too_much_starts_again(place: &Location) {
    let bench = bench(place).await;
    for number in 0..3 {
        let id = bench.create(request(number, "ada")).await.unwrap().0.id;
        bench
            .revoke(Role::Web, revocation(&id, "user"))
            .await
            .unwrap();
    }

    bench
        .execute("UPDATE revocations SET tokens_expire_at = 0 WHERE sequence = 2")
        .await;
    bench.service.store.prune(clock()).await.unwrap();
    assert_eq!(
        reason(&bench.watch(1).await.err().unwrap()),
        "SEQUENCE_GONE"
    );

    let mut stream = bench.watch(0).await.unwrap();
    assert_eq!(
        [
            revoked(next_change(&mut stream).await).0,
            revoked(next_change(&mut stream).await).0
        ],
        [1, 3]
    );
    assert_eq!(next_change(&mut stream).await, Event::CaughtUp(3));

    // That something older goes later does not bring it back.
    bench
        .execute("UPDATE revocations SET tokens_expire_at = 0 WHERE sequence = 1")
        .await;
    bench.service.store.prune(clock()).await.unwrap();
    assert_eq!(
        reason(&bench.watch(1).await.err().unwrap()),
        "SEQUENCE_GONE"
    );
    assert!(bench.watch(2).await.is_ok());
}

/// A thousand followers: each reads the existing revocations once, and one reader reads new ones
/// for all of them.
async fn however_many_follow_one_reads(place: &Location) {
    let bench = bench(place).await;
    let reads = || bench.service.counts.feed_reads.get();
    let mut streams = Vec::new();
    for _ in 0..1000 {
        let mut stream = bench.watch(0).await.unwrap();
        assert_eq!(next_change(&mut stream).await, Event::CaughtUp(0));
        streams.push(stream);
    }

    let before = reads();
    let id = bench.create(request(1, "ada")).await.unwrap().0.id;
    bench
        .revoke(Role::Web, revocation(&id, "user"))
        .await
        .unwrap();

    for stream in &mut streams {
        let mut heard = next_change(stream).await;
        while matches!(heard, Event::Heartbeat(_)) {
            heard = next_change(stream).await;
        }
        assert_eq!(revoked(heard).0, 1);
    }

    // The revocation, and a heartbeat or two of a slow machine.
    assert!(
        reads() - before < 100,
        "{} readings for 1,000 followers",
        reads() - before
    );
}

async fn whoever_joins_while_sessions_end_misses_none_and_hears_none_twice(place: &Location) {
    let bench = bench(place).await;
    let mut ids = Vec::new();
    for number in 0..60 {
        ids.push(bench.create(request(number, "ada")).await.unwrap().0.id);
    }

    let ending = async {
        for id in &ids {
            bench
                .revoke(Role::Web, revocation(id, "user"))
                .await
                .unwrap();
        }
    };

    let joining = async {
        let mut streams = Vec::new();
        for _ in 0..30 {
            streams.push(bench.watch(0).await.unwrap());
        }
        streams
    };

    let ((), streams) = tokio::join!(ending, joining);

    for mut stream in streams {
        let mut heard = Vec::new();
        while heard.len() < ids.len() {
            if let Event::Revocation(entry) = next(&mut stream).await {
                heard.push(entry.sequence);
            }
        }

        assert!(heard.iter().copied().eq(1..=60), "{heard:?}");

        // Nothing is left over but heartbeats.
        assert!(matches!(
            next_change(&mut stream).await,
            Event::CaughtUp(60) | Event::Heartbeat(60)
        ));
    }
}

async fn whoever_follows_too_slowly_is_ended_and_holds_up_nobody(place: &Location) {
    let bench = bench_with(place, 4).await;
    let mut slow = bench.watch(0).await.unwrap();
    let mut quick = bench.watch(0).await.unwrap();
    assert_eq!(next_change(&mut slow).await, Event::CaughtUp(0));
    assert_eq!(next_change(&mut quick).await, Event::CaughtUp(0));

    for number in 1..=8 {
        let id = bench.create(request(number, "ada")).await.unwrap().0.id;
        bench
            .revoke(Role::Web, revocation(&id, "user"))
            .await
            .unwrap();
        let mut heard = next_change(&mut quick).await;
        while matches!(heard, Event::Heartbeat(_)) {
            heard = next_change(&mut quick).await;
        }
        assert_eq!(revoked(heard).0, u64::from(number));
    }

    let told = slow.next().await.unwrap().unwrap_err();
    assert_eq!(
        (told.code(), reason(&told).as_str()),
        (Code::ResourceExhausted, "FOLLOWER_SLOW")
    );
    assert!(told.get_details_retry_info().is_some());
    assert!(slow.next().await.is_none());
    assert_eq!(bench.metrics.reached.times("VVS_SESSIONS_FEED_BACKLOG"), 1);

    // It goes on from where it was.
    let mut again = bench.watch(0).await.unwrap();
    assert_eq!(revoked(next_change(&mut again).await).0, 1);
}

async fn of_too_many_who_begin_to_follow_those_without_a_turn_come_back_and_no_relay_waits(
    place: &Location,
) {
    let bench = bench(place).await;
    let turn = bench.service.feed.hold_turns_of_others().await;
    let begin = || {
        bench
            .service
            .feed
            .follow(Role::Backend, wire::WatchRevocationsRequest::default())
    };
    let told = Status::from(begin().await.err().unwrap());
    assert_eq!(
        (told.code(), reason(&told).as_str()),
        (Code::ResourceExhausted, "FOLLOWERS_BUSY")
    );
    assert!(told.get_details_retry_info().is_some());
    assert_eq!(
        bench.metrics.reached.times("VVS_SESSIONS_FEED_TURN_TIME"),
        1
    );

    let mut relay = bench.watch(0).await.unwrap();
    assert_eq!(next_change(&mut relay).await, Event::CaughtUp(0));

    drop(turn);
    assert!(begin().await.is_ok());
}

async fn a_watcher_of_another_database_starts_again(place: &Location) {
    let elsewhere = Location::new();
    let (here, there) = (bench(place).await, bench(&elsewhere).await);
    let database = async |bench: &Bench| {
        let mut ids = Vec::new();
        let mut stream = bench.watch(0).await.unwrap();
        loop {
            let told = stream.next().await.unwrap().unwrap();
            ids.push(told.database_id);
            if let Some(Event::CaughtUp(1)) = told.event {
                break;
            }
        }

        ids.dedup();
        assert_eq!((ids.len(), ids[0].len()), (1, 22), "{ids:?}");

        ids.remove(0)
    };
    for bench in [&here, &there] {
        let id = bench.create(request(1, "ada")).await.unwrap().0.id;
        bench
            .revoke(Role::Web, revocation(&id, "user"))
            .await
            .unwrap();
    }

    let (ours, theirs) = (database(&here).await, database(&there).await);
    let gone = here.watch_database(1, &theirs).await.err().unwrap();
    assert_eq!(
        (gone.code(), reason(&gone).as_str()),
        (Code::OutOfRange, "SEQUENCE_GONE")
    );

    for (after, id) in [(1, ours.as_str()), (1, ""), (0, theirs.as_str())] {
        assert!(here.watch_database(after, id).await.is_ok(), "{after} {id}");
    }

    // It is the same one after a restart, and another one when an operator has put back an older
    // state.
    assert_eq!(database(&bench(place).await).await, ours);

    here.execute("UPDATE feed SET database_id = ''").await;
    assert_ne!(database(&bench(place).await).await, ours);
}

#[tokio::test]
async fn a_watcher_hears_of_a_revocation_in_another_process() {
    let place = Location::server().await;
    let (here, there) = (bench(&place).await, bench(&place).await);
    let following = here.service.store.clone().follow();
    let id = there.create(request(1, "ada")).await.unwrap().0.id;
    let mut stream = here.watch(0).await.unwrap();
    let mut changed = here.service.store.revoked();
    let work = async {
        assert_eq!(next_change(&mut stream).await, Event::CaughtUp(0));

        // Wakes once when it listens.
        changed.changed().await.unwrap();
        there
            .revoke(Role::Web, revocation(&id, "user"))
            .await
            .unwrap();

        // And again when it gets the notice; the heartbeat would find it anyway.
        tokio::time::timeout(Duration::from_secs(20), changed.changed())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            revoked(next_change(&mut stream).await),
            (1, id.clone(), "user".into())
        );
    };

    tokio::select! {
        () = following => unreachable!(),
        () = work => {}
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_an_outage_and_loses_nothing() {
    let cluster = Postgres::start().await;
    let place = Location::Server(cluster.database().await);
    let bench = bench(&place).await;
    let id = bench.create(request(1, "ada")).await.unwrap().0.id;
    let mut stream = bench.watch(0).await.unwrap();
    assert_eq!(next_change(&mut stream).await, Event::CaughtUp(0));

    cluster.stop();
    let told = bench.activate(&id).await.unwrap_err();
    assert_eq!(
        (told.code(), reason(&told).as_str()),
        (Code::Unavailable, "DATABASE_DOWN")
    );

    cluster.resume().await;
    bench.activate(&id).await.unwrap();

    cluster.freeze();
    let told = bench.create(request(2, "bob")).await.unwrap_err();
    assert_eq!(
        (told.code(), reason(&told).as_str()),
        (Code::Unavailable, "DATABASE_DOWN")
    );
    assert!(!format!("{told:?}").contains(PASSWORD));

    cluster.thaw();
    bench.create(request(2, "bob")).await.unwrap();

    bench
        .revoke(Role::Web, revocation(&id, "user"))
        .await
        .unwrap();
    let mut heard = next_change(&mut stream).await;
    while matches!(heard, Event::Heartbeat(_)) {
        heard = next_change(&mut stream).await;
    }

    assert_eq!(revoked(heard), (1, id, "user".into()));
}

on_both_databases! {
    a_token_verifies_against_the_published_keys
    a_repeat_signs_a_new_token_for_the_same_session
    a_second_activation_changes_nothing_and_is_not_counted
    of_many_that_are_activated_at_once_each_has_its_own_outcome
    a_refusal_has_its_documented_code_and_reason
    a_malformed_field_is_named_and_nothing_is_made
    a_token_of_a_device_key_names_it_and_lives_an_hour
    an_editor_that_proves_its_key_gets_a_fresh_token
    a_proof_that_does_not_hold_is_refused_and_written_down_if_it_is_the_sessions_own
    a_stranger_learns_of_no_session_and_writes_nothing_about_it
    a_relay_ends_a_used_session_only_with_the_editors_proof
    a_user_ends_his_own_sessions_only
    a_watcher_hears_what_was_and_then_what_comes
    a_watcher_hears_at_once_of_more_than_one_reading_returns
    a_watcher_that_has_missed_too_much_starts_again
    a_watcher_of_another_database_starts_again
    a_watcher_hears_since_when_no_session_is_pending
    however_many_follow_one_reads
    whoever_joins_while_sessions_end_misses_none_and_hears_none_twice
    whoever_follows_too_slowly_is_ended_and_holds_up_nobody
    of_too_many_who_begin_to_follow_those_without_a_turn_come_back_and_no_relay_waits
}
