//! The store on a real file, with a test clock.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use tempfile::TempDir;
use vvs_auth::token::{Jwk, SigningKey};
use vvs_proto::RequestId;
use vvs_proto::types::RevocationReason;
use vvs_runtime::limit::Reached;
use vvs_test_servers::postgres::Postgres;

use super::*;
use crate::id::Reason;
use crate::session::{DAY, Identity, Last};
use crate::store::SealedKey;

pub(crate) mod end;
mod feed;
mod refresh;
mod room;
mod start;

/// A database of one test.
pub(crate) enum Location {
    File(TempDir),
    Server(String),
}

impl Location {
    /// A directory with a file of SQLite.
    pub(crate) fn new() -> Self {
        Self::File(tempfile::tempdir().unwrap())
    }

    /// A database of PostgreSQL.
    pub(crate) async fn server() -> Self {
        Self::Server(Postgres::shared().await.database().await)
    }

    fn folder(&self) -> &std::path::Path {
        match self {
            Self::File(folder) => folder.path(),
            Self::Server(url) => panic!("{url} is no file"),
        }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder().join("sessions.db")
    }

    fn url(&self) -> String {
        match self {
            Self::File(_) => format!("sqlite:{}", self.file().display()),
            Self::Server(url) => url.clone(),
        }
    }

    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.url(), 5).await.unwrap()
    }

    /// Returns the bytes on the disk, in all files.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let files = std::fs::read_dir(self.folder()).unwrap();
        files
            .flat_map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .collect()
    }
}

/// Runs each of these tests on both databases.
macro_rules! on_both_databases {
    ($($test:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(&crate::store::tests::Location::new()).await;
            })*
        }

        mod on_postgresql {
            $(#[tokio::test]
            async fn $test() {
                super::$test(&crate::store::tests::Location::server().await).await;
            })*
        }
    };
}
pub(crate) use on_both_databases;

pub(crate) fn terms() -> Terms {
    Terms {
        issuer: "https://auth.test".into(),
        audience: "vvs".into(),
        token_ttl: 3600,
        bearer_ttl: 2_592_000,
        idle_ttl: 2_592_000,
        max_ttl: 31_536_000,
        pending_ttl: 5400,
        // Each refresh counts, unless a test says otherwise.
        refresh_interval: 0,
        max_pending: u32::MAX,
        max_live: 0,
        silence: 7 * DAY,
    }
}

pub(crate) async fn count(store: &Store, query: &'static str) -> i64 {
    sqlx::query_scalar(query)
        .fetch_one(&store.pool)
        .await
        .unwrap()
}

fn request(number: u32) -> RequestId {
    format!("00000000-0000-4000-8000-{number:012}")
        .parse()
        .unwrap()
}

pub(crate) fn approval(number: u32, subject: &str) -> Approval {
    let profile = Profile::new(Some("ada@example.com".into()), Some("Ada".into()), None).unwrap();
    Approval {
        request_id: request(number),
        identity: Identity::new("dev".into(), subject.into(), String::new(), profile).unwrap(),
        device: Device::new(
            "laptop".into(),
            "Linux".into(),
            ("VVS".into(), "1.0".into()),
            "",
        )
        .unwrap(),
        address: "192.0.2.1".into(),
        connection_id: "1b4e28ba-2fa1-41d2-883f-0016d3cca427".into(),
    }
}

/// Adds a thousand sessions to one, equal except for the device.
async fn multiply(store: &Store) {
    let many = "INSERT INTO sessions (id, request_id, user_id, provider_session, device_name, device_os, device_app,
                                      address, created_at, activated_at, refreshed_at, expires_at)
                WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1000)
                SELECT 'ses_' || n, 'r' || n, user_id, '', '', '', '', '', created_at, activated_at, refreshed_at, expires_at
                FROM numbers, sessions";
    sqlx::query(many).execute(&store.pool).await.unwrap();
}

async fn a_repeat_gives_the_same_session(place: &Location) {
    let store = place.open().await;
    let first = store
        .create(&approval(1, "ada"), &terms(), 1000)
        .await
        .unwrap();
    let again = store
        .create(&approval(1, "ada"), &terms(), 1005)
        .await
        .unwrap();
    assert!(first.new && !again.new);
    assert_eq!(first.session, again.session);
    assert_eq!(
        (first.session.created_at, first.session.expires_at),
        (1000, 1000 + 2_592_000)
    );
    assert_eq!(first.session.activated_at, None);

    let other = store
        .create(&approval(2, "ada"), &terms(), 1005)
        .await
        .unwrap();
    assert_ne!(other.session.id, first.session.id);
    assert_eq!(other.session.user, first.session.user);
}

async fn two_calls_at_once_make_one_session(place: &Location) {
    let (one, two) = (place.open().await, place.open().await);
    for number in 0..20 {
        let (approval, terms) = (approval(number, "ada"), terms());
        let (first, second) = tokio::join!(
            one.create(&approval, &terms, 1000),
            two.create(&approval, &terms, 1000)
        );
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!(first.session, second.session);
        assert_ne!(first.new, second.new);
    }

    assert_eq!(count(&one, "SELECT count(*) FROM sessions").await, 20);
}

async fn a_request_id_is_not_good_for_somebody_else(place: &Location) {
    let store = place.open().await;
    let made = store
        .create(&approval(1, "ada"), &terms(), 1000)
        .await
        .unwrap();
    let refused = store
        .create(&approval(1, "bob"), &terms(), 1001)
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::RequestClaimed(id) if id == made.session.id));
    assert_eq!(
        count(&store, "SELECT count(*) FROM users").await,
        1,
        "bob was noted anyway"
    );
}

async fn a_user_keeps_the_id_and_takes_the_new_profile(place: &Location) {
    let store = place.open().await;
    let first = store
        .create(&approval(1, "ada"), &terms(), 1000)
        .await
        .unwrap()
        .session;
    assert_eq!(first.profile.email.as_deref(), Some("ada@example.com"));

    let mut later = approval(2, "ada");
    later.identity.profile = Profile::new(
        None,
        Some("Ada L.".into()),
        Some("https://a.test/a.png".into()),
    )
    .unwrap();
    let second = store.create(&later, &terms(), 2000).await.unwrap().session;
    assert_eq!(second.user, first.user);
    assert_eq!(second.profile, later.identity.profile);

    // The same subject, or the same email, at another provider is another person.
    let mut elsewhere = approval(3, "ada");
    elsewhere.identity.provider = "https://id.test".into();
    assert_ne!(
        store
            .create(&elsewhere, &terms(), 2000)
            .await
            .unwrap()
            .session
            .user,
        first.user
    );
}

async fn only_what_nobody_activated_in_time_is_swept(place: &Location) {
    let store = place.open().await;
    let [old, young, active] = [(1, 1000), (2, 1001), (3, 1000)];
    let mut ids = Vec::new();
    for (number, now) in [old, young, active] {
        ids.push(
            store
                .create(&approval(number, "ada"), &terms(), now)
                .await
                .unwrap()
                .session
                .id,
        );
    }

    store.activate(&ids[2], "", &terms(), 1002).await.unwrap();

    assert_eq!(store.sweep(&terms(), 1000 + 5399).await.unwrap(), 0);
    assert_eq!(store.sweep(&terms(), 1000 + 5400).await.unwrap(), 1);
    assert!(matches!(
        store.activate(&ids[0], "", &terms(), 1003).await,
        Err(Error::SessionUnknown(_))
    ));
    assert!(store.activate(&ids[1], "", &terms(), 1003).await.is_ok());
    assert!(store.activate(&ids[2], "", &terms(), 1003).await.is_ok());
}

async fn one_sweep_is_bounded_and_the_next_goes_on(place: &Location) {
    let store = place.open().await;
    for number in 0..BATCH + 3 {
        store
            .create(&approval(number, "ada"), &terms(), 1000)
            .await
            .unwrap();
    }
    assert_eq!(store.sweep(&terms(), 1_000_000).await.unwrap(), BATCH);
    assert_eq!(store.sweep(&terms(), 1_000_000).await.unwrap(), 3);
}

async fn a_sweep_finds_what_is_stale_among_much_that_is_not(place: &Location) {
    let store = place.open().await;
    let active = store
        .create(&approval(1, "ada"), &terms(), 900)
        .await
        .unwrap()
        .session
        .id;
    store.activate(&active, "", &terms(), 901).await.unwrap();
    multiply(&store).await;
    store
        .create(&approval(2, "ada"), &terms(), 1000)
        .await
        .unwrap();
    assert_eq!(store.sweep(&terms(), 1000 + 5400).await.unwrap(), 1);
}

impl Store {
    /// Activates one.
    pub(crate) async fn activate(
        &self,
        id: &SessionId,
        address: &str,
        terms: &Terms,
        now: Seconds,
    ) -> Result<Activated, Error> {
        let mut outcomes = self
            .activate_all(vec![(id.clone(), address.to_owned())], terms, now)
            .await?;
        let (of, outcome) = outcomes.pop().unwrap();
        assert_eq!((&of, outcomes.len()), (id, 0));
        outcome
    }
}

async fn several_are_activated_at_once_and_those_that_are_over_keep_none_from_it(place: &Location) {
    let store = place.open().await;
    let mut ids = Vec::new();
    for (number, at) in [(1, 1000), (2, 7000), (3, 7000), (4, 7000)] {
        ids.push(
            store
                .create(&approval(number, "ada"), &terms(), at)
                .await
                .unwrap()
                .session
                .id,
        );
    }

    assert!(store.revoke(&ids[1], &cause("logout"), 7001).await.unwrap());

    store.activate(&ids[2], "", &terms(), 7001).await.unwrap();
    ids.push("ses_unknown".parse().unwrap());
    let asked = ids
        .iter()
        .chain([&ids[3]])
        .map(|id| (id.clone(), String::new()))
        .collect();
    let outcomes = store.activate_all(asked, &terms(), 7002).await.unwrap();
    let of = |id| {
        let those = outcomes.iter().filter(move |(of, _)| of == id);
        those
            .map(|(_, outcome)| outcome.as_ref().map_err(ToString::to_string))
            .collect::<Vec<_>>()
    };
    let said = |error: Error| vec![Err(error.to_string())];
    assert_eq!(
        of(&ids[0]),
        said(Error::SessionUnknown(ids[0].clone())),
        "nobody came for it in time"
    );
    assert_eq!(of(&ids[1]), said(Error::SessionRevoked(ids[1].clone())));
    assert_eq!(
        of(&ids[2]),
        [Ok(&Activated {
            at: 7001,
            new: false
        })]
    );

    let twice = [
        Ok(&Activated {
            at: 7002,
            new: true,
        }),
        Ok(&Activated {
            at: 7002,
            new: false,
        }),
    ];
    assert_eq!(of(&ids[3]), twice);
    assert_eq!(of(&ids[4]), said(Error::SessionUnknown(ids[4].clone())));
    assert_eq!(
        store.session(&ids[3]).await.unwrap().activated_at,
        Some(7002)
    );
    assert_eq!(
        events(&store)
            .await
            .iter()
            .filter(|event| *event == "activated")
            .count(),
        2
    );
}

async fn the_first_activation_counts(place: &Location) {
    let store = place.open().await;
    let id = store
        .create(&approval(1, "ada"), &terms(), 1000)
        .await
        .unwrap()
        .session
        .id;
    assert_eq!(
        store.activate(&id, "", &terms(), 1010).await.unwrap(),
        Activated {
            at: 1010,
            new: true
        }
    );
    assert_eq!(
        store.activate(&id, "", &terms(), 9999).await.unwrap(),
        Activated {
            at: 1010,
            new: false
        }
    );

    let again = store
        .create(&approval(1, "ada"), &terms(), 9999)
        .await
        .unwrap()
        .session;
    assert_eq!((again.id, again.activated_at), (id, Some(1010)));
}

async fn a_pending_session_is_over_before_the_sweep_finds_it(place: &Location) {
    let store = place.open().await;
    let stale = store
        .create(&approval(1, "ada"), &terms(), 1000)
        .await
        .unwrap()
        .session
        .id;
    assert!(matches!(
        store.activate(&stale, "", &terms(), 1000 + 5400).await,
        Err(Error::SessionUnknown(_))
    ));

    let fresh = store
        .create(&approval(1, "ada"), &terms(), 1000 + 5400)
        .await
        .unwrap();
    assert!(fresh.new);
    assert_ne!(fresh.session.id, stale);
    assert_eq!(
        store
            .activate(&fresh.session.id, "", &terms(), 1000 + 5401)
            .await
            .unwrap()
            .at,
        1000 + 5401
    );
}

async fn an_expired_session_is_not_activated(place: &Location) {
    let store = place.open().await;
    let terms = Terms {
        bearer_ttl: 60,
        ..terms()
    };
    let id = store
        .create(&approval(1, "ada"), &terms, 1000)
        .await
        .unwrap()
        .session
        .id;

    assert!(matches!(
        store.activate(&id, "", &terms, 1060).await,
        Err(Error::SessionExpired(_))
    ));
    assert!(store.activate(&id, "", &terms, 1059).await.is_ok());
    assert!(matches!(
        store.activate(&id, "", &terms, 1060).await,
        Err(Error::SessionExpired(_))
    ));
    assert!(matches!(
        store
            .activate(&"ses_x".parse().unwrap(), "", &terms, 1)
            .await,
        Err(Error::SessionUnknown(_))
    ));
}

/// A device key as an editor sends it.
pub(crate) fn device_key() -> DeviceKey {
    let key = SigningKey::from_pkcs8("editor", &SigningKey::generate().unwrap()).unwrap();
    let Jwk { x, y, .. } = key.public();
    DeviceKey::from_json(&format!(
        r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}"#
    ))
    .unwrap()
}

pub(crate) fn bound(number: u32, subject: &str, key: &DeviceKey) -> Approval {
    let approval = approval(number, subject);
    Approval {
        device: Device {
            key: Some(key.clone()),
            ..approval.device
        },
        ..approval
    }
}

/// Reads a reason of the contract.
pub(crate) fn reason_of(word: &str) -> Reason {
    let reason = RevocationReason::from_word(word).unwrap();
    reason.try_into().unwrap()
}

pub(crate) fn cause(reason: &str) -> Cause {
    Cause {
        reason: reason_of(reason),
        address: "192.0.2.9".into(),
    }
}

async fn events(store: &Store) -> Vec<String> {
    sqlx::query_scalar("SELECT event FROM audit ORDER BY event")
        .fetch_all(&store.pool)
        .await
        .unwrap()
}

async fn a_request_id_is_not_good_for_another_key(place: &Location) {
    let store = place.open().await;
    let key = device_key();
    let made = store
        .create(&bound(1, "ada", &key), &terms(), 1000)
        .await
        .unwrap()
        .session;
    for other in [approval(1, "ada"), bound(1, "ada", &device_key())] {
        let refused = store.create(&other, &terms(), 1001).await.unwrap_err();
        assert!(
            matches!(&refused, Error::RequestClaimed(id) if *id == made.id),
            "{refused}"
        );
    }

    assert_eq!(
        store
            .create(&bound(1, "ada", &key), &terms(), 1001)
            .await
            .unwrap()
            .session
            .id,
        made.id
    );
}

async fn a_person_adds_so_many_rows_a_day_and_takes_none_from_others(place: &Location) {
    let reached = Reached::default();
    let store = place.open().await.with_ration(Ration {
        rows: 5,
        reached: reached.clone(),
    });
    let rows = async |user: &UserId| {
        let rows =
            sqlx::query_scalar("SELECT count(*) FROM audit WHERE user_id = $1").bind(user.as_str());
        rows.fetch_one(&store.pool).await.unwrap()
    };
    let make = async |number, subject, now| {
        store
            .create(&approval(number, subject), &terms(), now)
            .await
            .unwrap()
    };
    let ada = make(1, "ada", 1000).await.session;
    for number in 2..5 {
        make(number, "ada", 1000).await;
    }

    store
        .revoke(&ada.id, &cause("signed_out_by_user"), 1001)
        .await
        .unwrap();
    let refused = AuditRow::proof_refused(&ada.id, "192.0.2.7");
    store.record(refused, 1001).await.unwrap();
    let told: i64 = rows(&ada.user).await;
    assert_eq!((told, reached.times("VVS_SESSIONS_AUDITS_PER_DAY")), (5, 5));
    assert!(
        store.session(&ada.id).await.unwrap().revoked_at.is_some(),
        "what happens does not depend on it"
    );

    let bob = make(6, "bob", 1001).await.session;
    assert_eq!(rows(&bob.user).await, 2);

    for _ in 0..7 {
        store
            .record(AuditRow::new(Event::Denied), 1001)
            .await
            .unwrap();
    }

    assert_eq!(rows(&UserId::known(String::new())).await, 5);

    make(7, "ada", 1000 + DAY).await;
    assert_eq!(rows(&ada.user).await, 7);
}

fn page(size: i32, token: &str) -> Portion {
    Portion::new(size, token).unwrap()
}

async fn a_live_session_is_listed_the_last_used_first(place: &Location) {
    let store = place.open().await;
    let (key, terms) = (device_key(), terms());
    let mut ids = Vec::new();
    for number in 0..5 {
        let made = store
            .create(&bound(number, "ada", &key), &terms, 1000)
            .await
            .unwrap()
            .session;
        ids.push(made.id.clone());
    }

    store
        .create(&approval(9, "bob"), &terms, 1000)
        .await
        .unwrap();
    let user = store.session(&ids[0]).await.unwrap().user;
    for (id, now) in [
        (&ids[0], 1001),
        (&ids[2], 1003),
        (&ids[1], 1002),
        (&ids[3], 1004),
    ] {
        store
            .refresh(id, &key.thumbprint(), "", &terms, now)
            .await
            .unwrap();
    }

    store
        .revoke(&ids[3], &cause("signed_out_by_user"), 1005)
        .await
        .unwrap();
    let listed = async |now| {
        store
            .sessions_of(&user, &page(1000, ""), &terms, now)
            .await
            .unwrap()
            .0
            .into_iter()
            .map(|session| session.id)
            .collect::<Vec<_>>()
    };
    let lasting = [ids[2].clone(), ids[1].clone(), ids[0].clone()];
    assert_eq!(listed(1000 + 5400).await, lasting);
    assert_eq!(listed(1001 + 2_592_000).await, lasting[..2]);

    // Behind them what still waits for its editor, the newest first.
    let newer = store
        .create(&bound(5, "ada", &key), &terms, 1010)
        .await
        .unwrap()
        .session
        .id;
    let and = |waiting: &[&SessionId]| {
        lasting
            .iter()
            .chain(waiting.iter().copied())
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(listed(1000 + 5399).await, and(&[&newer, &ids[4]]));
    assert_eq!(listed(1000 + 5400).await, and(&[&newer]));

    store.revoke(&newer, &cause("burned"), 1011).await.unwrap();
    assert_eq!(listed(1000 + 5399).await, and(&[&ids[4]]));
}

async fn each_live_session_is_on_one_page_in_the_order_of_all(place: &Location) {
    let store = place.open().await;
    let (key, terms) = (device_key(), terms());
    let mut ids = Vec::new();
    for number in 0..7 {
        let made = store
            .create(&bound(number, "ada", &key), &terms, 1000)
            .await
            .unwrap()
            .session;
        ids.push(made.id);
    }

    let user = store.session(&ids[0]).await.unwrap().user;
    // Two that were used at the same time, and two that wait.
    for (id, now) in ids.iter().zip([1001, 1002, 1002, 1003, 1003]) {
        store
            .refresh(id, &key.thumbprint(), "", &terms, now)
            .await
            .unwrap();
    }

    let list = async |page| {
        store
            .sessions_of(&user, &page, &terms, 1004)
            .await
            .unwrap()
            .0
    };
    let all = list(page(1000, "")).await;
    assert_eq!(all.len(), 7);

    for size in [1, 2, 3, 6, 7, 8] {
        let (mut listed, mut token) = (Vec::new(), String::new());
        loop {
            let part = list(page(size, &token)).await;
            assert!(part.len() <= size.unsigned_abs() as usize);
            let Some(end) = part.last() else { break };
            token = Last::token(end);
            listed.extend(part);
        }
        assert_eq!(listed, all, "{size}");
    }
}

async fn the_oldest_session_that_waits_for_its_editor_is_known(place: &Location) {
    let store = place.open().await;
    assert_eq!(store.oldest_pending().await.unwrap(), None);

    let mut ids = Vec::new();
    for (number, now) in [(1, 800), (2, 900), (3, 1000), (4, 1001)] {
        ids.push(
            store
                .create(&approval(number, "ada"), &terms(), now)
                .await
                .unwrap()
                .session
                .id,
        );
    }

    store.activate(&ids[0], "", &terms(), 1002).await.unwrap();
    store.revoke(&ids[1], &cause("burned"), 1002).await.unwrap();
    assert_eq!(store.oldest_pending().await.unwrap(), Some(1000));
}

async fn however_many_wait_for_their_editor_a_used_session_is_listed(place: &Location) {
    let store = place.open().await;
    let used = store
        .create(&approval(1, "ada"), &terms(), 1000)
        .await
        .unwrap()
        .session;
    store.activate(&used.id, "", &terms(), 1000).await.unwrap();
    multiply(&store).await;
    sqlx::query(
        "UPDATE sessions SET activated_at = NULL, refreshed_at = 2000 WHERE device_app = ''",
    )
    .execute(&store.pool)
    .await
    .unwrap();
    let listed = store
        .sessions_of(&used.user, &page(1000, ""), &terms(), 2001)
        .await
        .unwrap()
        .0;
    assert_eq!(listed.first().map(|session| &session.id), Some(&used.id));
    assert_eq!(listed.len(), 1000);
}

async fn an_audit_row_says_who_from_where_and_on_what(place: &Location) {
    let store = place.open().await;
    let made = store
        .create(&approval(1, "ada"), &terms(), 1000)
        .await
        .unwrap()
        .session;
    store
        .revoke(&made.id, &cause("signed_out_by_user"), 1001)
        .await
        .unwrap();

    let row = sqlx::query("SELECT * FROM audit WHERE event = 'revoked'")
        .fetch_one(&store.pool)
        .await
        .unwrap();
    let text = |name: &str| row.try_get::<String, _>(name).unwrap();
    assert_eq!(row.try_get::<i64, _>("at").unwrap(), 1001);
    assert_eq!(
        (text("user_id"), text("session_id")),
        (made.user.as_str().to_owned(), made.id.as_str().to_owned())
    );
    assert_eq!(text("connection_id"), approval(1, "ada").connection_id);
    assert_eq!(
        (text("address"), text("device")),
        ("192.0.2.9".into(), "laptop, Linux, VVS 1.0".into())
    );
    assert_eq!(text("reason"), "signed_out_by_user");
}

on_both_databases! {
    a_repeat_gives_the_same_session
    two_calls_at_once_make_one_session
    a_request_id_is_not_good_for_somebody_else
    a_user_keeps_the_id_and_takes_the_new_profile
    only_what_nobody_activated_in_time_is_swept
    one_sweep_is_bounded_and_the_next_goes_on
    a_sweep_finds_what_is_stale_among_much_that_is_not
    the_first_activation_counts
    several_are_activated_at_once_and_those_that_are_over_keep_none_from_it
    a_pending_session_is_over_before_the_sweep_finds_it
    an_expired_session_is_not_activated
    a_request_id_is_not_good_for_another_key
    a_person_adds_so_many_rows_a_day_and_takes_none_from_others
    a_live_session_is_listed_the_last_used_first
    each_live_session_is_on_one_page_in_the_order_of_all
    the_oldest_session_that_waits_for_its_editor_is_known
    however_many_wait_for_their_editor_a_used_session_is_listed
    an_audit_row_says_who_from_where_and_on_what
}
