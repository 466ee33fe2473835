//! The service without a socket: what callers get, and the state that remains when the database
//! cannot be used.

use std::time::Duration;

use futures_util::StreamExt as _;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header,
};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio_util::sync::CancellationToken;
use tonic::codegen::BoxStream;
use tonic::{Code, Request};
use tonic_types::StatusExt as _;
use vvs_auth::key::Keyring;
use vvs_auth::token::{Claims, Jwk, SigningKey};
use vvs_proto::internal::browsers_server::Browsers as _;
use vvs_proto::internal::editors_server::Editors as _;
use vvs_proto::session::list_sessions_request::User;
use vvs_proto::session::sessions_server::Sessions as _;
use vvs_proto::token::tokens_server::Tokens as _;
use vvs_proto::token::watch_revocations_response::Event;
use vvs_proto::token::{self, CaughtUp, Heartbeat};
use vvs_proto::types::{self, ErrorReason, RevocationReason};
use vvs_proto::{internal, timestamp};
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
mod follow;
mod often;
mod outage;
mod refresh;

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
        device: Some(types::Device {
            name: "laptop".into(),
            ..types::Device::default()
        }),
        address: "192.0.2.1".into(),
        connection_id: "1b4e28ba-2fa1-41d2-883f-0016d3cca427".into(),
        app: None,
    }
}

fn activation(id: &str) -> internal::Activation {
    internal::Activation {
        session_id: id.to_owned(),
        address: "203.0.113.5".into(),
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

    /// Activates a session that can be activated.
    async fn activate(&self, id: &str) -> Result<(), Status> {
        assert_eq!(self.try_to_activate(id).await?, None, "{id}");
        Ok(())
    }

    /// Returns why a session cannot be activated.
    async fn not_activated(&self, id: &str) -> &'static str {
        self.try_to_activate(id).await.unwrap().unwrap().word()
    }

    async fn try_to_activate(&self, id: &str) -> Result<Option<ErrorReason>, Status> {
        let request = internal::ActivateSessionsRequest {
            activations: vec![activation(id)],
        };
        let told = self
            .service
            .activate_sessions(Request::new(request))
            .await?
            .into_inner()
            .not_activated;
        assert!(told.len() < 2 && told.iter().all(|not| not.session_id == id));
        Ok(told.first().map(internal::NotActivated::reason))
    }

    async fn get(&self, id: &str) -> Result<wire::Session, Status> {
        let request = wire::GetSessionRequest {
            session_id: id.to_owned(),
        };
        let told = self.service.get_session(Request::new(request)).await?;
        Ok(told.into_inner().session.unwrap())
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
            .get_signing_keys(Request::new(token::GetSigningKeysRequest {}))
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
    bench.activate(&id).await.unwrap();
    let first = bench.get(&id).await.unwrap();
    assert!(first.activated_at.is_some());
    bench.activate(&id).await.unwrap();
    assert_eq!(bench.get(&id).await.unwrap(), first);
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
    let unknown = "ses_AAAAAAAAAAAAAAAAAAAAAA";
    let elsewhere = internal::Activation {
        address: "x".repeat(65),
        ..activation(&ids[1])
    };
    let activations = vec![
        activation(&ids[0]),
        activation("' OR 1=1 --"),
        activation(unknown),
        elsewhere,
        activation(&ids[0]),
    ];
    let several = internal::ActivateSessionsRequest { activations };
    let answer = bench
        .service
        .activate_sessions(Request::new(several))
        .await
        .unwrap()
        .into_inner();
    let mut told: Vec<_> = answer
        .not_activated
        .into_iter()
        .map(|not| (not.reason().word(), not.session_id))
        .collect();
    told.sort_unstable();
    let expected = [
        ("MALFORMED", "' OR 1=1 --"),
        ("MALFORMED", &*ids[1]),
        ("SESSION_UNKNOWN", unknown),
    ];
    let mut expected = expected.map(|(reason, id)| (reason, id.to_owned()));
    expected.sort_unstable();
    assert_eq!(told, expected);
    assert!(
        bench
            .metrics
            .scrape()
            .contains("vvs_sessions_activated_total 1\n")
    );

    let many = internal::ActivateSessionsRequest {
        activations: vec![activation(&ids[1]); editors::MAX_ACTIVATED + 1],
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

    let most = internal::ActivateSessionsRequest {
        activations: vec![activation(&ids[1]); editors::MAX_ACTIVATED],
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
    let down = internal::ActivateSessionsRequest {
        activations: vec![activation(&ids[0])],
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

    let unknown = "ses_AAAAAAAAAAAAAAAAAAAAAA";
    assert_eq!(bench.not_activated(unknown).await, "SESSION_UNKNOWN");

    let unknown = bench.get(unknown).await.unwrap_err();
    assert_eq!(
        (unknown.code(), reason(&unknown).as_str()),
        (Code::NotFound, "SESSION_UNKNOWN")
    );

    assert_eq!(bench.not_activated("' OR 1=1 --").await, "MALFORMED");

    let malformed = bench.get("' OR 1=1 --").await.unwrap_err();
    assert_eq!(
        (malformed.code(), reason(&malformed).as_str()),
        (Code::InvalidArgument, "MALFORMED")
    );
}

async fn a_malformed_field_is_named_and_nothing_is_made(place: &Location) {
    type Spoil = fn(&mut wire::CreateSessionRequest);
    let cases: [(&str, Spoil); 15] = [
        ("request_id", |request| request.request_id = "1".into()),
        ("identity", |request| request.identity = None),
        ("identity.provider", |request| {
            request.identity.as_mut().unwrap().provider.clear();
        }),
        ("identity.subject", |request| {
            request.identity.as_mut().unwrap().subject = "s".repeat(256);
        }),
        ("identity.provider_session", |request| {
            request.identity.as_mut().unwrap().provider_session = "s".repeat(256);
        }),
        ("identity.email", |request| {
            request.identity.as_mut().unwrap().email = Some("e".repeat(321));
        }),
        ("identity.name", |request| {
            request.identity.as_mut().unwrap().name = Some("n\0".into());
        }),
        ("identity.avatar_url", |request| {
            request.identity.as_mut().unwrap().avatar_url = Some("u".repeat(2049));
        }),
        ("device.name", |request| {
            request.device.as_mut().unwrap().name = "n".repeat(256);
        }),
        ("device.os", |request| {
            request.device.as_mut().unwrap().os = "o".repeat(256);
        }),
        ("app.name", |request| {
            request.app.get_or_insert_default().name = "a".repeat(256);
        }),
        ("app.version", |request| {
            request.app.get_or_insert_default().version = "v".repeat(256);
        }),
        ("device.jwk", |request| {
            request.device.as_mut().unwrap().jwk = "{}".into();
        }),
        ("connection_id", |request| {
            request.connection_id = "c".repeat(65);
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
        let device = types::Device {
            name: "laptop".into(),
            jwk: self.jwk.to_string(),
            ..types::Device::default()
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

    fn refresh(&self, id: &str) -> internal::RefreshTokenRequest {
        internal::RefreshTokenRequest {
            session_id: id.to_owned(),
            proof: self.prove("refresh", &serde_json::json!({})),
            nonce: "socket".into(),
            token: String::new(),
            address: "198.51.100.7".into(),
            key_id: String::new(),
        }
    }
}

/// The request of web, which has asked its user.
fn revocation(id: &str, reason: RevocationReason) -> wire::RevokeSessionRequest {
    wire::RevokeSessionRequest {
        session_id: id.to_owned(),
        reason: reason.into(),
        ..wire::RevokeSessionRequest::default()
    }
}

/// The request of a relay for an editor.
fn ending(id: &str, reason: RevocationReason) -> internal::EndSessionRequest {
    internal::EndSessionRequest {
        session_id: id.to_owned(),
        reason: reason.into(),
        ..internal::EndSessionRequest::default()
    }
}

impl Bench {
    async fn refresh(
        &self,
        request: internal::RefreshTokenRequest,
    ) -> Result<internal::RefreshTokenResponse, Status> {
        Ok(self
            .service
            .refresh_token(Request::new(request))
            .await?
            .into_inner())
    }

    async fn revoke(&self, request: wire::RevokeSessionRequest) -> Result<(), String> {
        let told = self.service.revoke_session(Request::new(request)).await;
        told.map(drop).map_err(|status| reason(&status))
    }

    async fn end_session(&self, request: internal::EndSessionRequest) -> Result<(), String> {
        let told = self.service.end_session(Request::new(request)).await;
        told.map(drop).map_err(|status| reason(&status))
    }

    async fn list(
        &self,
        request: wire::ListSessionsRequest,
    ) -> Result<wire::ListSessionsResponse, Status> {
        let told = self.service.list_sessions(Request::new(request)).await?;
        Ok(told.into_inner())
    }

    async fn refused(&self) -> Vec<String> {
        let query = "SELECT reason FROM audit WHERE event = 'proof_refused' ORDER BY at, reason";
        sqlx::query_scalar(query)
            .fetch_all(self.service.store.pool())
            .await
            .unwrap()
    }

    async fn watch(
        &self,
        after: u64,
    ) -> Result<BoxStream<token::WatchRevocationsResponse>, Status> {
        self.watch_database(after, "").await
    }

    async fn watch_database(
        &self,
        after_sequence: u64,
        database_id: &str,
    ) -> Result<BoxStream<token::WatchRevocationsResponse>, Status> {
        let request = token::WatchRevocationsRequest {
            after_sequence,
            database_id: database_id.to_owned(),
        };
        let followed = self.service.feed.follow(Role::Relay, request).await;
        followed.map_err(Status::from)
    }
}

/// An event, and the newest number that came with it.
type Heard = (Event, u64);

fn caught_up(newest: u64) -> Heard {
    (Event::CaughtUp(CaughtUp {}), newest)
}

fn heartbeat(newest: u64) -> Heard {
    (Event::Heartbeat(Heartbeat {}), newest)
}

async fn next_message(
    stream: &mut BoxStream<token::WatchRevocationsResponse>,
) -> token::WatchRevocationsResponse {
    let told = tokio::time::timeout(Duration::from_secs(20), stream.next())
        .await
        .unwrap();
    told.unwrap().unwrap()
}

async fn next(stream: &mut BoxStream<token::WatchRevocationsResponse>) -> Heard {
    let told = next_message(stream).await;
    (told.event.unwrap(), told.newest_sequence)
}

/// Returns the next message that is no heartbeat.
async fn next_change(stream: &mut BoxStream<token::WatchRevocationsResponse>) -> Heard {
    loop {
        let heard = next(stream).await;
        if !matches!(heard.0, Event::Heartbeat(_)) {
            return heard;
        }
    }
}

fn revoked((event, newest): Heard) -> (u64, String, RevocationReason) {
    let Event::Revocation(entry) = event else {
        panic!("{event:?} is no revocation")
    };
    assert!(newest >= entry.sequence, "{newest} is not the newest");

    let reason = entry.reason();
    (entry.sequence, entry.session_id, reason)
}

async fn a_relay_ends_a_used_session_only_with_the_editors_proof(place: &Location) {
    let (bench, editor) = (bench(place).await, Editor::new());
    let id = bench.create(editor.approved(1)).await.unwrap().0.id;
    bench.activate(&id).await.unwrap();
    let logout = |proof: String| internal::EndSessionRequest {
        proof,
        nonce: "socket".into(),
        ..ending(&id, RevocationReason::Logout)
    };
    let none = || serde_json::json!({});
    for bad in [String::new(), editor.prove("refresh", &none())] {
        assert_eq!(
            bench.end_session(logout(bad)).await.unwrap_err(),
            "BAD_PROOF"
        );
    }

    let strange = Editor::new().prove("logout", &none());
    assert_eq!(
        bench.end_session(logout(strange)).await.unwrap_err(),
        "KEY_UNKNOWN"
    );

    bench.refresh(editor.refresh(&id)).await.unwrap();
    bench
        .end_session(logout(editor.prove("logout", &none())))
        .await
        .unwrap();
    bench
        .end_session(logout(editor.prove("logout", &none())))
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
        .end_session(ending(&bearer, RevocationReason::Logout))
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
        ..revocation(&other.id, RevocationReason::SignedOutByUser)
    };
    assert_eq!(bench.revoke(theirs).await.unwrap_err(), "SESSION_UNKNOWN");

    let own = wire::RevokeSessionRequest {
        user_id: mine_id.clone(),
        ..revocation(&mine.id, RevocationReason::SignedOutByUser)
    };
    bench.revoke(own).await.unwrap();
    assert_eq!(
        bench
            .revoke(revocation(&other.id, RevocationReason::Unspecified))
            .await
            .unwrap_err(),
        "MALFORMED"
    );

    let strange = wire::RevokeSessionRequest {
        reason: 4711,
        ..revocation(&other.id, RevocationReason::Logout)
    };
    assert_eq!(bench.revoke(strange).await.unwrap_err(), "MALFORMED");

    assert_eq!(
        reason(&bench.get(&mine.id).await.unwrap_err()),
        "SESSION_REVOKED"
    );
    assert_eq!(bench.get(&other.id).await.unwrap().id, other.id);

    let list = async |user| {
        let request = wire::ListSessionsRequest {
            user,
            ..wire::ListSessionsRequest::default()
        };
        bench.list(request).await.map(|told| told.sessions)
    };
    assert!(list(Some(User::UserId(mine_id))).await.unwrap().is_empty());

    let by_name = |provider: &str, subject: &str| {
        Some(User::ProviderUser(wire::ProviderUser {
            provider: provider.to_owned(),
            subject: subject.to_owned(),
        }))
    };
    assert_eq!(list(by_name("dev", "bob")).await.unwrap()[0].id, other.id);
    assert!(list(by_name("dev", "eve")).await.unwrap().is_empty());
    assert!(
        list(by_name("https://id.test", "bob"))
            .await
            .unwrap()
            .is_empty(),
        "that is another person"
    );

    for nobody in [
        None,
        Some(User::UserId(String::new())),
        by_name("", "bob"),
        by_name("dev", ""),
    ] {
        assert_eq!(reason(&list(nobody).await.unwrap_err()), "MALFORMED");
    }
}

async fn the_sessions_of_a_user_come_in_pages_each_session_once_and_in_order(place: &Location) {
    let bench = bench(place).await;
    let mut user_id = String::new();
    for number in 0..5 {
        let session = bench.create(request(number, "ada")).await.unwrap().0;
        // Two still wait for their editors.
        if number < 3 {
            bench.activate(&session.id).await.unwrap();
        }
        user_id = session.user.unwrap().id;
    }

    let list = async |page_size: i32, page_token: &str| {
        let request = wire::ListSessionsRequest {
            user: Some(User::UserId(user_id.clone())),
            page_size,
            page_token: page_token.to_owned(),
        };
        bench.list(request).await
    };
    let all = list(0, "").await.unwrap();
    assert_eq!((all.sessions.len(), &*all.next_page_token), (5, ""));

    for size in [1, 2, 3, 5, 1000] {
        let (mut listed, mut token) = (Vec::new(), String::new());
        loop {
            let page = list(size, &token).await.unwrap();
            assert!(page.sessions.len() <= size.unsigned_abs() as usize);
            // The last page says that it is, also when it is full.
            assert!(!page.sessions.is_empty());
            listed.extend(page.sessions);
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(listed, all.sessions, "{size}");
    }

    for (size, token, field) in [
        (-1, "", "page_size"),
        (1001, "", "page_size"),
        (1, "nonsense", "page_token"),
        (1, "0.0.' OR 1=1 --", "page_token"),
    ] {
        let told = list(size, token).await.unwrap_err();
        assert_eq!(reason(&told), "MALFORMED", "{size} {token}");
        let named = told.get_details_bad_request().unwrap().field_violations;
        assert_eq!(named[0].field, field);
    }
}

async fn an_app_is_shown_with_its_name_and_its_version(place: &Location) {
    let bench = bench(place).await;
    let app = Some(types::App {
        name: "Studio".into(),
        version: "1.2".into(),
    });
    let approved = wire::CreateSessionRequest {
        app: app.clone(),
        ..request(1, "ada")
    };
    let session = bench.create(approved).await.unwrap().0;
    assert_eq!(session.app, app);
    assert_eq!(bench.get(&session.id).await.unwrap().app, app);
}

on_both_databases! {
    a_token_verifies_against_the_published_keys
    a_repeat_signs_a_new_token_for_the_same_session
    a_second_activation_changes_nothing_and_is_not_counted
    of_many_that_are_activated_at_once_each_has_its_own_outcome
    a_refusal_has_its_documented_code_and_reason
    a_malformed_field_is_named_and_nothing_is_made
    a_relay_ends_a_used_session_only_with_the_editors_proof
    a_user_ends_his_own_sessions_only
    the_sessions_of_a_user_come_in_pages_each_session_once_and_in_order
    an_app_is_shown_with_its_name_and_its_version
}
