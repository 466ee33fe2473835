//! One socket's session, against a scripted sessions role, with a clock that the tests
//! advance.

use std::collections::HashSet;
use std::future::poll_fn;
use std::ops::{Deref, DerefMut};

use tonic::Code;
use vvs_proto::frame::{FailureCode, close};
use vvs_proto::types::RevocationReason;

use super::*;
use crate::authority::Terms;
use crate::authority::fake::{ADDRESS, Fake, Key, claims, now, terms};
use crate::login::{Grant, User};

/// An editor with a device key, its socket, and the sessions role.
struct Stage {
    fake: Fake,
    authority: Arc<Authority>,
    key: Key,
    socket: Socket,
}

/// What a socket has for its session.
struct Socket {
    proofs: Proofs,
    session: Box<Session>,
}

impl Socket {
    fn new(authority: &Arc<Authority>) -> Self {
        Self {
            proofs: Proofs::new(authority.clone(), "nonce".to_owned()),
            session: Session::new(authority.clone(), ADDRESS),
        }
    }

    fn authenticate(&mut self, token: &Secret, proof: Option<&Secret>) -> Vec<Effect> {
        self.session.authenticate(&mut self.proofs, token, proof)
    }

    fn refresh(&mut self, proof: &Secret) -> Vec<Effect> {
        self.session.refresh(&mut self.proofs, proof)
    }

    fn logout(&mut self, proof: Option<&Secret>) -> Vec<Effect> {
        self.session.logout(&mut self.proofs, proof)
    }
}

impl Deref for Socket {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl DerefMut for Socket {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}

impl Stage {
    async fn open() -> Self {
        Self::open_with(terms()).await
    }

    async fn open_with(terms: Terms) -> Self {
        let fake = Fake::default();
        let authority = fake.ready(terms).await;
        let socket = Socket::new(&authority);
        Self {
            fake,
            authority,
            key: Key::new(),
            socket,
        }
    }

    async fn signed_in() -> Self {
        let mut stage = Self::open().await;
        let token = stage.token();
        assert!(stage.authenticate(&token).contains(&Effect::Authorized));
        stage
    }

    fn new_socket(&self) -> Socket {
        Socket::new(&self.authority)
    }

    fn token(&self) -> Secret {
        self.fake.sign(&claims("ses_1", Some(&self.key)))
    }

    fn expired(&self) -> Secret {
        self.fake.sign(&Claims {
            exp: now() - 1,
            ..claims("ses_1", Some(&self.key))
        })
    }

    fn authenticate(&mut self, token: &Secret) -> Vec<Effect> {
        let proof = self.key.proof("authenticate", Some(token));
        self.socket.authenticate(token, Some(&proof))
    }

    fn refresh(&mut self) -> Vec<Effect> {
        let proof = self.key.proof("refresh", None);
        self.socket.refresh(&proof)
    }

    fn logout(&mut self) -> Vec<Effect> {
        let proof = self.key.proof("logout", None);
        self.socket.logout(Some(&proof))
    }

    async fn next(&mut self) -> Vec<Effect> {
        poll_fn(|cx| self.socket.poll(cx)).await
    }

    /// Advances to the next deadline. Returns its effects, and when it was.
    fn timer(&mut self) -> (Instant, Vec<Effect>) {
        let due = self.socket.deadline().unwrap();
        assert_eq!(
            self.socket.on_timer(due - Duration::from_millis(1)),
            [],
            "not before"
        );
        (due, self.socket.on_timer(due))
    }

    fn refuse(&self, method: &'static str, code: Code, reason: &'static str) {
        self.fake.script().refusals.insert(method, (code, reason));
    }
}

/// Returns the receipt of the approval that brought this token.
fn receipt(token: &Secret) -> Receipt {
    let now = OffsetDateTime::now_utc();
    let grant = Grant {
        request_id: "00000000-0000-4000-8000-000000000001".parse().unwrap(),
        token: token.clone(),
        token_expires_at: now + time::Duration::hours(1),
        user: User {
            id: "usr_1".to_owned(),
            email: None,
            name: None,
            avatar_url: None,
        },
        session_id: "ses_1".to_owned(),
        session_expires_at: now + time::Duration::days(30),
    };
    grant.receipt()
}

/// Returns the code of an `auth:failure`, whether it is terminal, and the close after it.
fn failed(effects: &[Effect]) -> Option<(FailureCode, bool, Option<u16>)> {
    match effects {
        [Effect::Send(RelayFrame::AuthFailure { code, terminal, .. })] => {
            Some((*code, *terminal, None))
        }
        [
            Effect::Send(RelayFrame::AuthFailure { code, terminal, .. }),
            Effect::Close(with),
        ] => Some((*code, *terminal, Some(*with))),
        _ => None,
    }
}

const BAD_PROOF: Option<(FailureCode, bool, Option<u16>)> =
    Some((FailureCode::BadProof, false, None));
const BAD_TOKEN: Option<(FailureCode, bool, Option<u16>)> =
    Some((FailureCode::BadToken, false, None));

#[tokio::test(start_paused = true)]
async fn a_good_token_with_its_proof_signs_in_without_a_call() {
    let mut stage = Stage::open().await;
    let calls = stage.fake.script().calls.len();
    let token = stage.token();
    let effects = stage.authenticate(&token);
    let [
        Effect::Send(RelayFrame::AuthOk {
            user,
            session,
            token,
            ..
        }),
        Effect::Authorized,
    ] = &effects[..]
    else {
        panic!("{effects:?}")
    };

    assert_eq!(
        (user.id.as_str(), session.id.as_str(), token),
        ("usr_1", "ses_1", &None)
    );
    assert!((2_591_900..=2_592_000).contains(&session.expires_in));

    stage.fake.settle().await;
    assert_eq!(stage.fake.script().calls.len(), calls);
    assert!(stage.socket.is_authorized());
}

#[tokio::test(start_paused = true)]
async fn a_bearer_that_is_not_known_here_is_never_asked_about_whatever_comes_with_it() {
    let mut stage = Stage::open().await;
    let bearer = claims("ses_1", None);
    for stale in [
        Claims {
            exp: now() - 1,
            ..bearer.clone()
        },
        Claims {
            iss: "https://old.example.com".to_owned(),
            ..bearer.clone()
        },
    ] {
        let token = stage.fake.sign(&stale);
        let effects = stage.authenticate(&token);
        let [Effect::Send(RelayFrame::AuthFailure { code, terminal, .. })] = &effects[..] else {
            panic!("{effects:?}");
        };
        assert_eq!((*code, *terminal), (FailureCode::BadToken, false));
    }

    assert_eq!(stage.fake.called("RefreshToken"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_bearer_needs_no_proof_and_a_token_with_a_key_does() {
    let mut stage = Stage::open().await;
    let (token, bearer) = (stage.token(), stage.fake.sign(&claims("ses_2", None)));
    assert_eq!(failed(&stage.socket.authenticate(&token, None)), BAD_PROOF);
    assert!(
        stage
            .socket
            .authenticate(&bearer, None)
            .contains(&Effect::Authorized)
    );
    assert_eq!(failed(&stage.refresh()), BAD_TOKEN, "and it has one token");
}

#[tokio::test(start_paused = true)]
async fn a_stolen_token_is_nothing_without_its_key() {
    let mut stage = Stage::open().await;
    let (token, thief) = (stage.token(), Key::new());
    let proof = thief.proof("authenticate", Some(&token));
    assert_eq!(
        failed(&stage.socket.authenticate(&token, Some(&proof))),
        BAD_PROOF
    );
    assert!(
        stage.authenticate(&token).contains(&Effect::Authorized),
        "and its owner may still"
    );
}

#[tokio::test(start_paused = true)]
async fn only_a_proof_of_the_sessions_own_key_is_written_into_its_audit_log() {
    let mut stage = Stage::open().await;
    let (token, expired, thief) = (stage.token(), stage.expired(), Key::new());
    let made_up = thief_token(&thief);
    let replayed =
        |key: &Key, token| Some(key.proof_over("another socket's", "authenticate", Some(token)));
    for (token, proof) in [
        (&token, None),
        (&token, Some(Secret::new("no proof"))),
        (&token, Some(thief.proof("authenticate", Some(&token)))),
        (&token, replayed(&thief, &token)),
        (&expired, replayed(&thief, &expired)),
        // His own, and it says that it is of this session.
        (&made_up, replayed(&thief, &made_up)),
    ] {
        assert_eq!(
            failed(&stage.socket.authenticate(token, proof.as_ref())),
            BAD_PROOF
        );
    }

    stage.fake.settle().await;
    assert_eq!(stage.fake.script().audits, []);

    for token in [&token, &expired] {
        let proof = replayed(&stage.key, token);
        assert_eq!(
            failed(&stage.socket.authenticate(token, proof.as_ref())),
            BAD_PROOF
        );
    }

    assert!(stage.authenticate(&token).contains(&Effect::Authorized));

    let hello = stage.key.proof("hello", None);
    assert_eq!(failed(&stage.socket.refresh(&hello)), BAD_PROOF);
    assert_eq!(failed(&stage.socket.logout(Some(&hello))), BAD_PROOF);
    assert_eq!(
        failed(&stage.socket.logout(Some(&thief.proof("logout", None)))),
        BAD_PROOF
    );

    stage.fake.settle().await;
    let sessions: Vec<_> = stage
        .fake
        .script()
        .audits
        .iter()
        .map(|audit| audit.session_id.clone())
        .collect();
    assert_eq!(sessions, ["ses_1"; 4]);
}

/// A token signed by an unknown key that names a session and the thief's own key.
fn thief_token(thief: &Key) -> Secret {
    let elsewhere = Fake::default();
    elsewhere.rotate();
    elsewhere.sign(&claims("ses_1", Some(thief)))
}

#[tokio::test(start_paused = true)]
async fn a_made_up_token_does_not_show_that_a_session_was_revoked() {
    let mut stage = Stage::open().await;
    stage.fake.revoke("ses_1");
    stage.fake.settle().await;
    stage.refuse("RefreshToken", Code::NotFound, "SESSION_UNKNOWN");
    let thief = Key::new();
    let made_up = thief_token(&thief);
    let unknown = Some((
        FailureCode::UnknownSession,
        true,
        Some(close::BAD_CREDENTIAL),
    ));

    let proof = thief.proof("authenticate", Some(&made_up));
    assert_eq!(stage.socket.authenticate(&made_up, Some(&proof)), []);
    assert_eq!(
        failed(&stage.next().await),
        unknown,
        "sessions is asked, as about any other"
    );
    assert_eq!(
        failed(&stage.new_socket().authenticate(&made_up, None)),
        BAD_TOKEN
    );

    let (token, expired) = (stage.token(), stage.expired());
    let revoked = Some((FailureCode::Revoked, true, Some(close::REVOKED)));

    for token in [token, expired] {
        stage.socket = stage.new_socket();
        assert_eq!(
            failed(&stage.authenticate(&token)),
            revoked,
            "its editor is told"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_proof_is_good_once_for_its_token_its_use_and_its_socket() {
    let mut stage = Stage::open().await;
    let token = stage.token();
    let other = stage.fake.sign(&Claims {
        exp: now() + 7,
        ..claims("ses_1", Some(&stage.key))
    });
    for proof in [
        stage.key.proof("refresh", None),
        stage.key.proof("authenticate", None),
        stage.key.proof("authenticate", Some(&other)),
        stage
            .key
            .proof_over("another socket's", "authenticate", Some(&token)),
        Secret::new("no proof"),
    ] {
        assert_eq!(
            failed(&stage.socket.authenticate(&token, Some(&proof))),
            BAD_PROOF
        );
    }

    // Taken once, though sessions was down.
    let expired = stage.expired();
    let proof = stage.key.proof("authenticate", Some(&expired));
    stage.refuse("RefreshToken", Code::Unavailable, "DATABASE_DOWN");
    assert_eq!(stage.socket.authenticate(&expired, Some(&proof)), []);
    assert_eq!(
        failed(&stage.next().await),
        Some((FailureCode::Unavailable, false, None))
    );

    stage.fake.script().refusals.clear();
    assert_eq!(
        failed(&stage.socket.authenticate(&expired, Some(&proof))),
        BAD_PROOF
    );
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_has_seen_too_many_proofs_is_replaced() {
    let mut stage = Stage::open_with(Terms {
        proofs_per_socket: 3,
        ..terms()
    })
    .await;
    let token = stage.token();
    stage.authenticate(&token);
    for _ in 0..2 {
        assert_eq!(stage.refresh(), []);
        stage.next().await;
    }

    let effects = stage.refresh();
    assert!(matches!(
        effects[..],
        [
            Effect::Send(RelayFrame::Reconnect { .. }),
            Effect::Close(close::RECONNECT)
        ]
    ));
}

#[tokio::test(start_paused = true)]
async fn of_too_many_sockets_of_a_session_the_newest_is_refused_and_none_is_closed() {
    let mut stage = Stage::open_with(Terms {
        sockets_per_session: 2,
        ..terms()
    })
    .await;
    let (token, expired) = (stage.token(), stage.expired());
    stage.authenticate(&token);
    let mut second = stage.new_socket();
    let proof = stage.key.proof("authenticate", Some(&token));
    assert!(
        second
            .authenticate(&token, Some(&proof))
            .contains(&Effect::Authorized)
    );

    let calls = stage.fake.script().calls.len();
    for shown in [&token, &expired] {
        let mut newest = stage.new_socket();
        let effects =
            newest.authenticate(shown, Some(&stage.key.proof("authenticate", Some(shown))));
        let [
            Effect::Reached("VVS_RELAY_MAX_SOCKETS_PER_SESSION"),
            told @ Effect::Send(failure),
        ] = &effects[..]
        else {
            panic!("{effects:?}")
        };

        let told = failed(std::slice::from_ref(told));
        assert_eq!(told, Some((FailureCode::Unavailable, false, None)));
        assert!(matches!(
            failure,
            RelayFrame::AuthFailure {
                retry_after_ms: Some(1..),
                ..
            }
        ));
        assert!(!newest.is_authorized() && !newest.is_busy());
    }

    assert_eq!(
        stage.fake.script().calls.len(),
        calls,
        "sessions was asked for nothing"
    );

    // Those that are in go on, with a fresh token too.
    assert_eq!(stage.refresh(), []);
    assert!(matches!(
        stage.next().await[..],
        [Effect::Send(RelayFrame::AuthToken { .. })]
    ));

    let other = stage.fake.sign(&claims("ses_2", Some(&stage.key)));
    let mut others = stage.new_socket();
    let proof = stage.key.proof("authenticate", Some(&other));
    assert!(
        others
            .authenticate(&other, Some(&proof))
            .contains(&Effect::Authorized),
        "another session has its own"
    );

    drop(second);
    let mut newest = stage.new_socket();
    let proof = stage.key.proof("authenticate", Some(&token));
    assert!(
        newest
            .authenticate(&token, Some(&proof))
            .contains(&Effect::Authorized),
        "there is room again"
    );
}

#[tokio::test(start_paused = true)]
async fn an_editor_that_refreshes_too_often_stays_signed_in_and_hears_when_to_come_back() {
    let mut stage = Stage::signed_in().await;
    stage.refuse(
        "RefreshToken",
        Code::ResourceExhausted,
        "REFRESHED_TOO_OFTEN",
    );
    stage.refresh();
    let effects = stage.next().await;
    assert_eq!(
        failed(&effects),
        Some((FailureCode::Unavailable, false, None))
    );

    let [
        Effect::Send(RelayFrame::AuthFailure {
            retry_after_ms: Some(after),
            ..
        }),
    ] = effects[..]
    else {
        panic!("{effects:?}")
    };

    assert!((7000..=8000).contains(&after), "{after}");
    assert!(stage.socket.is_authorized());

    stage.fake.script().refusals.clear();
    stage.refresh();
    assert!(matches!(
        stage.next().await[..],
        [Effect::Send(RelayFrame::AuthToken { .. })]
    ));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_cannot_be_trusted_here_is_decided_by_sessions_when_the_key_is_proven() {
    let stage = Stage::open().await;
    let own = |change: fn(&mut Claims)| {
        let mut claims = claims("ses_1", Some(&stage.key));
        change(&mut claims);
        stage.fake.sign(&claims)
    };
    let expired = own(|claims| claims.exp = now() - 1);
    let moved = own(|claims| claims.iss = "https://old.example.com".to_owned());
    let good = own(|_| ());
    let (head, last) = good.expose().split_at(good.expose().len() - 5);
    let bent = Secret::new(format!(
        "{head}{}",
        if last == "AAAAA" { "BBBBB" } else { "AAAAA" }
    ));
    stage.fake.rotate();
    let unknown = stage.fake.sign(&claims("ses_1", Some(&stage.key)));

    for token in [expired, moved, bent, unknown] {
        let mut socket = stage.new_socket();
        assert_eq!(
            failed(&socket.authenticate(&token, None)),
            BAD_TOKEN,
            "without a proof"
        );

        let proof = stage.key.proof("authenticate", Some(&token));
        assert_eq!(socket.authenticate(&token, Some(&proof)), []);
        assert!(socket.is_busy());

        let effects = poll_fn(|cx| socket.poll(cx)).await;
        let [
            Effect::Send(RelayFrame::AuthOk {
                token: fresh,
                token_expires_in,
                ..
            }),
            Effect::Authorized,
        ] = &effects[..]
        else {
            panic!("{effects:?}")
        };

        assert_eq!(fresh.as_ref().map(Secret::expose), Some("fresh"));
        assert!(token_expires_in.is_some_and(|left| (3590..=3600).contains(&left)));

        let asked = stage.fake.script().refreshes.pop().unwrap();
        assert_eq!(
            (asked.session_id.as_str(), asked.nonce.as_str()),
            ("ses_1", "nonce")
        );
        assert_eq!(
            (asked.token.as_str(), asked.proof.as_str()),
            (token.expose(), proof.expose())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_token_of_ours_is_not_asked_about() {
    let mut stage = Stage::open().await;
    let elsewhere = stage.fake.sign(&Claims {
        aud: "else".to_owned(),
        ..claims("ses_1", Some(&stage.key))
    });
    let calls = stage.fake.script().calls.len();
    for token in [Secret::new(""), Secret::new("a.b.c"), elsewhere] {
        assert_eq!(failed(&stage.authenticate(&token)), BAD_TOKEN);
    }

    // An editor that cannot prove a key makes no call either.
    let expired = stage.expired();
    let proof = stage
        .key
        .proof_over("another socket's", "authenticate", Some(&expired));
    assert_eq!(
        failed(&stage.socket.authenticate(&expired, Some(&proof))),
        BAD_PROOF
    );
    assert_eq!(stage.fake.script().calls.len(), calls);
}

#[tokio::test(start_paused = true)]
async fn only_sessions_itself_ends_a_session_for_good() {
    for (code, reason, expected) in [
        (
            Code::FailedPrecondition,
            "SESSION_REVOKED",
            (FailureCode::Revoked, true, Some(close::REVOKED)),
        ),
        (
            Code::FailedPrecondition,
            "SESSION_EXPIRED",
            (FailureCode::Expired, true, Some(close::BAD_CREDENTIAL)),
        ),
        (
            Code::NotFound,
            "SESSION_UNKNOWN",
            (
                FailureCode::UnknownSession,
                true,
                Some(close::BAD_CREDENTIAL),
            ),
        ),
        (
            Code::PermissionDenied,
            "BAD_PROOF",
            (FailureCode::BadProof, false, None),
        ),
        (
            Code::Unavailable,
            "DATABASE_DOWN",
            (FailureCode::Unavailable, false, None),
        ),
        (
            Code::Unavailable,
            "KEY_UNKNOWN",
            (FailureCode::Unavailable, false, None),
        ),
        (
            Code::PermissionDenied,
            "PEER_NOT_ALLOWED",
            (FailureCode::Unavailable, false, None),
        ),
        (Code::Internal, "", (FailureCode::Unavailable, false, None)),
    ] {
        let mut stage = Stage::open().await;
        stage.refuse("RefreshToken", code, reason);
        let expired = stage.expired();
        assert_eq!(stage.authenticate(&expired), []);

        let effects = stage.next().await;
        assert_eq!(failed(&effects), Some(expected), "{reason}");

        let Effect::Send(RelayFrame::AuthFailure { retry_after_ms, .. }) = &effects[0] else {
            panic!("{effects:?}")
        };

        assert_eq!(
            retry_after_ms.is_some(),
            expected.0 == FailureCode::Unavailable
        );
        assert!(!stage.socket.is_authorized());
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_knows_nothing_yet_asks_editors_to_wait_and_sessions_nothing() {
    let fake = Fake::default();
    fake.script().never_caught_up = true;
    let authority = fake.authority(terms());
    fake.settle().await;
    let (key, mut socket) = (Key::new(), Socket::new(&authority));
    let token = fake.sign(&claims("ses_1", Some(&key)));
    let proof = key.proof("authenticate", Some(&token));
    let waiting = Some((FailureCode::Unavailable, false, None));
    assert_eq!(failed(&socket.authenticate(&token, Some(&proof))), waiting);
    assert_eq!(fake.called("RefreshToken"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_feed_is_not_a_logout() {
    let mut stage = Stage::open().await;
    let bearer = stage.fake.sign(&claims("ses_2", None));
    stage.fake.script().down = Some((Code::Unavailable, "DATABASE_DOWN"));
    stage.fake.cut_off();
    tokio::time::sleep(Duration::from_secs(61)).await;
    let told = Some((FailureCode::StaleFeed, false, None));
    assert_eq!(failed(&stage.socket.authenticate(&bearer, None)), told);
    let token = stage.token();
    assert!(stage.authenticate(&token).contains(&Effect::Authorized));
}

#[tokio::test(start_paused = true)]
async fn a_revoked_session_is_told_and_closed_on_every_socket_and_cannot_come_back() {
    let mut stage = Stage::signed_in().await;
    let mut adopted = stage.new_socket();
    let receipt = receipt(&Secret::new("token"));
    assert_eq!(adopted.adopt(&receipt, None), [Effect::Authorized]);

    stage.fake.revoke("ses_1");
    let told = frame::revoked("signed_out_by_user");
    assert_eq!(told[1], Effect::Close(close::REVOKED));
    assert_eq!(stage.next().await, told);
    assert_eq!(poll_fn(|cx| adopted.poll(cx)).await, told);

    let revoked = Some((FailureCode::Revoked, true, Some(close::REVOKED)));
    let (bearer, expired) = (stage.fake.sign(&claims("ses_1", None)), stage.expired());
    assert_eq!(
        failed(&stage.new_socket().authenticate(&bearer, None)),
        revoked
    );
    assert_eq!(
        failed(&stage.new_socket().authenticate(&expired, None)),
        revoked
    );
    assert_eq!(stage.new_socket().adopt(&receipt, None), told);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_revoked_while_it_is_refreshed_gets_nothing() {
    for signed_in in [false, true] {
        let mut stage = if signed_in {
            Stage::signed_in().await
        } else {
            Stage::open().await
        };

        stage
            .fake
            .script()
            .delays
            .insert("RefreshToken", Duration::from_secs(1));
        let expired = stage.expired();
        let started = if signed_in {
            stage.refresh()
        } else {
            stage.authenticate(&expired)
        };

        assert_eq!(started, []);

        // Asks, so that sessions answers as it was before.
        assert!(
            poll_fn(|cx| Poll::Ready(stage.socket.poll(cx)))
                .await
                .is_pending()
        );

        stage.fake.settle().await;
        stage.fake.revoke("ses_1");
        assert_eq!(
            stage.next().await,
            frame::revoked("signed_out_by_user"),
            "signed in: {signed_in}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_refresh_gives_a_token_and_more_time() {
    let mut stage = Stage::open().await;
    let short = stage.fake.sign(&Claims {
        exp: now() + 60,
        ..claims("ses_1", Some(&stage.key))
    });
    stage.authenticate(&short);
    let before = stage.socket.deadline().unwrap();
    assert_eq!(stage.refresh(), []);
    assert!(
        matches!(
            &stage.refresh()[..],
            [Effect::Send(RelayFrame::Error { .. })]
        ),
        "one at a time"
    );

    let effects = stage.next().await;
    let [
        Effect::Send(RelayFrame::AuthToken {
            token,
            token_expires_in,
            ..
        }),
    ] = &effects[..]
    else {
        panic!("{effects:?}")
    };

    assert_eq!(token.expose(), "fresh");
    assert!((3590..=3600).contains(token_expires_in));
    assert!(stage.socket.deadline().unwrap() > before + Duration::from_mins(50));

    let asked = stage.fake.script().refreshes.pop().unwrap();
    assert_eq!(
        (asked.session_id.as_str(), asked.token.as_str()),
        ("ses_1", "")
    );

    // Another key's, and one that was made for something else.
    let foreign = Key::new().proof("refresh", None);
    assert_eq!(failed(&stage.socket.refresh(&foreign)), BAD_PROOF);

    let other = stage.key.proof("logout", None);
    assert_eq!(failed(&stage.socket.refresh(&other)), BAD_PROOF);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_leaves_the_editor_signed_in() {
    let mut stage = Stage::signed_in().await;
    stage.refuse("RefreshToken", Code::Unavailable, "DATABASE_DOWN");
    stage.refresh();
    assert_eq!(
        failed(&stage.next().await),
        Some((FailureCode::Unavailable, false, None))
    );
    assert!(stage.socket.is_authorized());

    stage.fake.script().refusals.clear();
    stage.refresh();
    assert!(matches!(
        &stage.next().await[..],
        [Effect::Send(RelayFrame::AuthToken { .. })]
    ));
}

#[tokio::test(start_paused = true)]
async fn a_socket_outlives_its_token_by_a_minute_and_is_not_signed_out() {
    let mut stage = Stage::signed_in().await;
    let started = Instant::now();
    let (due, effects) = stage.timer();
    assert_eq!(
        failed(&effects),
        Some((FailureCode::TokenExpired, false, Some(close::RECONNECT)))
    );
    let lived = (due - started).as_secs();
    assert!((3600 + 50..=3600 + 60).contains(&lived), "{lived}");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_session_is_announced_a_week_a_day_and_an_hour_before() {
    let mut stage = Stage::open().await;
    let end = now() + 10 * 24 * 3600;
    let bearer = stage.fake.sign(&Claims {
        exp: end,
        sxp: end,
        ..claims("ses_1", None)
    });
    stage.socket.authenticate(&bearer, None);

    for left in [7 * 24 * 3600, 24 * 3600, 3600] {
        assert_eq!(
            stage.timer().1,
            [Effect::Send(RelayFrame::SessionExpiring {
                expires_in: left
            })]
        );
    }

    assert_eq!(
        failed(&stage.timer().1).unwrap().0,
        FailureCode::TokenExpired
    );
    assert_eq!(stage.socket.deadline(), None);

    // Half a day left: the one that is past was told by `auth:ok`.
    let end = now() + 12 * 3600;
    let bearer = stage.fake.sign(&Claims {
        exp: end,
        sxp: end,
        ..claims("ses_1", None)
    });
    stage.socket = stage.new_socket();
    stage.socket.authenticate(&bearer, None);
    assert_eq!(
        stage.timer().1,
        [Effect::Send(RelayFrame::SessionExpiring {
            expires_in: 3600
        })]
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_that_never_ends_does_not_upset_the_timer() {
    let mut stage = Stage::open().await;
    // The last second that RFC 3339 can write, and one that it cannot.
    for end in [253_402_300_799, i64::MAX] {
        let bearer = stage.fake.sign(&Claims {
            exp: end,
            sxp: end,
            ..claims("ses_1", None)
        });
        stage.socket = stage.new_socket();
        stage.socket.authenticate(&bearer, None);
        let due = stage.socket.deadline().unwrap();
        assert!(due - Instant::now() < Duration::from_hours(367 * 24));
    }
}

#[tokio::test(start_paused = true)]
async fn an_editor_signs_out_with_its_key() {
    let mut stage = Stage::signed_in().await;
    assert_eq!(failed(&stage.socket.logout(None)), BAD_PROOF);

    let foreign = Key::new().proof("logout", None);
    assert_eq!(failed(&stage.socket.logout(Some(&foreign))), BAD_PROOF);
    assert_eq!(stage.logout(), []);
    assert_eq!(
        stage.next().await,
        [
            Effect::Send(RelayFrame::SessionEnded),
            Effect::Close(close::NORMAL)
        ]
    );

    let ends = stage.fake.script().ends.clone();
    assert_eq!(
        (
            ends.len(),
            ends[0].session_id.as_str(),
            ends[0].nonce.as_str()
        ),
        (1, "ses_1", "nonce")
    );
    assert!(!ends[0].proof.is_empty());

    let mut stage = Stage::open().await;
    let bearer = stage.fake.sign(&claims("ses_2", None));
    stage.socket.authenticate(&bearer, None);
    assert_eq!(stage.socket.logout(None), []);
    assert_eq!(stage.next().await, frame::ended());
}

/// So that a database that never had it does not take the session for one that is over.
#[tokio::test(start_paused = true)]
async fn a_logout_names_the_key_of_the_token_that_the_editor_has() {
    for kind in ["device key", "bearer", "upgrade", "acknowledged"] {
        let mut stage = Stage::open().await;
        let (first, token, bearer) = (
            stage.fake.key_id(),
            stage.token(),
            stage.fake.sign(&claims("ses_2", None)),
        );
        stage.fake.rotate();

        match kind {
            "device key" => drop(stage.authenticate(&token)),
            "bearer" => drop(stage.socket.authenticate(&bearer, None)),
            "upgrade" => {
                let shown = stage
                    .authority
                    .check_bearer(&format!("Bearer {}", bearer.expose()), now())
                    .unwrap();
                stage.socket.bearer(shown);
            }
            _ => drop(stage.socket.adopt(&receipt(&bearer), None)),
        }

        stage.logout();
        assert_eq!(stage.next().await, frame::ended());
        assert_eq!(stage.fake.script().ends[0].key_id, first, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn its_own_logout_in_the_feed_is_no_revocation_to_an_editor() {
    let mut stage = Stage::signed_in().await;
    stage
        .fake
        .script()
        .delays
        .insert("EndSession", Duration::from_secs(1));
    stage.logout();
    stage.fake.revoke("ses_1");
    assert_eq!(stage.next().await, frame::ended());
}

#[tokio::test(start_paused = true)]
async fn a_logout_that_sessions_does_not_hear_is_said_to_have_failed() {
    let mut stage = Stage::signed_in().await;
    stage.fake.script().down = Some((Code::Unavailable, "DATABASE_DOWN"));
    stage.logout();
    assert_eq!(
        failed(&stage.next().await),
        Some((FailureCode::Unavailable, false, None))
    );
    assert!(stage.socket.is_authorized());

    // Another database is no verdict.
    stage.fake.script().down = Some((Code::Unavailable, "KEY_UNKNOWN"));
    stage.logout();
    assert_eq!(
        failed(&stage.next().await),
        Some((FailureCode::Unavailable, false, None))
    );
    assert!(stage.socket.is_authorized());

    // What is over already is over.
    stage.fake.script().down = Some((Code::NotFound, "SESSION_UNKNOWN"));
    stage.logout();
    assert_eq!(stage.next().await, frame::ended());
}

#[tokio::test(start_paused = true)]
async fn an_editor_whose_session_is_about_to_be_ended_is_asked_to_wait() {
    let mut stage = Stage::open().await;
    stage.refuse("EndSession", Code::Unavailable, "DATABASE_DOWN");
    stage
        .authority
        .end_pending("ses_1".to_owned(), ADDRESS, RevocationReason::Expired);
    let (token, expired) = (stage.token(), stage.expired());
    for shown in [token, expired] {
        assert_eq!(
            failed(&stage.authenticate(&shown)),
            Some((FailureCode::Unavailable, false, None))
        );
    }

    stage.fake.settle().await;
    assert_eq!(
        stage.fake.called("RefreshToken"),
        0,
        "which would activate it"
    );
}

#[tokio::test(start_paused = true)]
async fn frames_that_do_not_fit_are_not_now() {
    let mut stage = Stage::open().await;
    let not_now = frame::not_now();
    assert_eq!(
        (stage.refresh(), stage.logout()),
        (not_now.clone(), not_now.clone())
    );
    let token = stage.token();
    stage.authenticate(&token);
    assert_eq!(stage.authenticate(&token), not_now, "signed in already");
    stage.refresh();
    assert_eq!(stage.logout(), not_now, "busy");
}

#[tokio::test(start_paused = true)]
async fn an_acknowledged_token_is_used_as_if_it_had_been_shown() {
    let mut stage = Stage::open().await;
    let (receipt, thumbprint) = (receipt(&stage.token()), stage.key.thumbprint());
    assert_eq!(
        stage.socket.adopt(&receipt, Some(thumbprint)),
        [Effect::Authorized]
    );
    assert_eq!(stage.refresh(), []);
    assert!(matches!(
        &stage.next().await[..],
        [Effect::Send(RelayFrame::AuthToken { .. })]
    ));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_names_the_key_of_the_last_token_that_the_editor_has() {
    for adopted in [false, true] {
        let mut stage = Stage::open().await;
        let (first, token, thumbprint) =
            (stage.fake.key_id(), stage.token(), stage.key.thumbprint());
        let effects = if adopted {
            stage.socket.adopt(&receipt(&token), Some(thumbprint))
        } else {
            stage.authenticate(&token)
        };

        assert!(effects.contains(&Effect::Authorized));

        stage.fake.rotate();
        let fresh = stage.token();
        stage.fake.script().fresh = Some(fresh);
        for _ in 0..2 {
            stage.refresh();
            stage.next().await;
        }

        let asked: Vec<_> = stage
            .fake
            .script()
            .refreshes
            .iter()
            .map(|asked| asked.key_id.clone())
            .collect();
        assert_eq!(asked, [first, stage.fake.key_id()], "adopted: {adopted}");
    }

    // With `authenticate` the token is there to say it, and what comes back counts from then on.
    let mut stage = Stage::open().await;
    let (expired, fresh) = (stage.expired(), stage.token());
    stage.fake.script().fresh = Some(fresh);
    stage.authenticate(&expired);
    stage.next().await;
    stage.refresh();
    stage.next().await;
    let asked: Vec<_> = stage
        .fake
        .script()
        .refreshes
        .iter()
        .map(|asked| asked.key_id.clone())
        .collect();
    assert_eq!(asked, [String::new(), stage.fake.key_id()]);
}

#[tokio::test(start_paused = true)]
async fn a_database_that_never_had_the_key_signs_nobody_out() {
    let mut stage = Stage::signed_in().await;
    stage.refuse("RefreshToken", Code::Unavailable, "KEY_UNKNOWN");
    stage.refresh();
    assert_eq!(
        failed(&stage.next().await),
        Some((FailureCode::Unavailable, false, None))
    );
    assert!(stage.socket.is_authorized());
}

#[tokio::test(start_paused = true)]
async fn a_first_token_that_is_shown_again_makes_up_for_a_lost_acknowledgement() {
    let mut stage = Stage::open().await;
    let token = stage.fake.sign(&Claims {
        pending: true,
        ..claims("ses_1", Some(&stage.key))
    });
    assert_eq!(failed(&stage.socket.authenticate(&token, None)), BAD_PROOF);

    stage.fake.settle().await;
    assert_eq!(stage.fake.called("ActivateSessions"), 0, "not for a thief");

    stage.authenticate(&token);
    stage.fake.settle().await;
    assert_eq!(stage.fake.activated(), ["ses_1"]);
    assert_eq!(
        stage.fake.script().activations[0].address,
        ADDRESS.to_string()
    );
}

/// Numbers that look random and are the same in every run (Knuth, MMIX).
fn numbers(mut seed: u64) -> impl FnMut(u64) -> u64 {
    move |below| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    }
}

#[tokio::test(start_paused = true)]
async fn a_revoked_session_is_never_welcomed_whatever_happens() {
    for seed in 0..30 {
        let mut number = numbers(seed);
        let stage = Stage::open().await;
        let mut revoked = HashSet::new();
        let mut sockets: Vec<(String, Socket)> = Vec::new();
        for _ in 0..60 {
            let session_id = format!("ses_{}", number(4));
            match number(10) {
                0 => {
                    stage.fake.revoke(&session_id);
                    revoked.insert(session_id);
                }
                1 => stage.fake.cut_off(),
                2 => stage.fake.rotate(),
                3 => stage.fake.heartbeat(),
                4 => tokio::time::sleep(Duration::from_secs(number(20))).await,
                kind => {
                    let key = (kind > 5).then_some(&stage.key);
                    let exp = now() + if number(2) == 0 { 3600 } else { -1 };
                    let token = stage.fake.sign(&Claims {
                        exp,
                        ..claims(&session_id, key)
                    });
                    let proof = key.map(|key| key.proof("authenticate", Some(&token)));
                    let mut socket = stage.new_socket();
                    let is_known = stage.authority.check_token(token.expose(), now());
                    let effects = socket.authenticate(&token, proof.as_ref());
                    let was_told = matches!(is_known, Err(Untrusted::Revoked(_)));
                    assert!(
                        !(was_told && effects.contains(&Effect::Authorized)),
                        "seed {seed}"
                    );

                    sockets.push((session_id, socket));
                }
            }
        }

        // Whatever was cut off is heard again within a few seconds, and every call is answered.
        tokio::time::sleep(Duration::from_secs(20)).await;
        stage.fake.heartbeat();
        stage.fake.settle().await;

        for (session_id, socket) in &mut sockets {
            while poll_fn(|cx| Poll::Ready(socket.poll(cx).is_ready())).await {}
            tokio::time::sleep(Duration::from_secs(1)).await;
            while poll_fn(|cx| Poll::Ready(socket.poll(cx).is_ready())).await {}
            let is_over = revoked.contains(session_id);
            assert!(
                !(is_over && socket.is_authorized()),
                "seed {seed}: {session_id}"
            );

            let bearer = stage.fake.sign(&claims(session_id, None));
            let again = stage.new_socket().authenticate(&bearer, None);
            assert!(
                !(is_over && again.contains(&Effect::Authorized)),
                "seed {seed}: {session_id}"
            );
        }
    }
}
