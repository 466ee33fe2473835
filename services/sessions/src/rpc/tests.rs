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
        ("device.app", |request| {
            request.device.as_mut().unwrap().app = "a".repeat(256);
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

on_both_databases! {
    a_token_verifies_against_the_published_keys
    a_repeat_signs_a_new_token_for_the_same_session
    a_second_activation_changes_nothing_and_is_not_counted
    of_many_that_are_activated_at_once_each_has_its_own_outcome
    a_refusal_has_its_documented_code_and_reason
    a_malformed_field_is_named_and_nothing_is_made
    a_relay_ends_a_used_session_only_with_the_editors_proof
    a_user_ends_his_own_sessions_only
}
