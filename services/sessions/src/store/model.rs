//! Random lives of sessions in a real database, against a model that is a list in memory.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::Index;
use sqlx::Row as _;

use super::tests::{Location, approval, device_key, reason_of, terms};
use super::*;
use crate::session::DAY;

/// Life of a token in seconds; so short that whole lives fit into a few steps.
const TOKEN: Seconds = 10;
const BEARER: Seconds = 100;
const IDLE: Seconds = 50;
const MAX: Seconds = 70;
const PENDING: Seconds = 20;
/// Between two refreshes that are recorded.
const INTERVAL: Seconds = 4;
/// How long a session must be without a refresh before it gives way.
const SILENCE: Seconds = 15;
/// Sessions of a user.
const MOST: usize = 3;
/// Of these, those that wait for their editors.
const MOST_PENDING: usize = 2;
/// How long the feed keeps entries that are over, for slow clocks.
const LATE: Seconds = 300;
/// How long sessions that are over are kept here.
const REMEMBERED: Seconds = 40;

static KEYS: LazyLock<[DeviceKey; 2]> = LazyLock::new(|| [device_key(), device_key()]);

/// The actions of callers, and the passage of time.
#[derive(Debug, Clone)]
enum Step {
    Wait(Seconds),
    /// One of a few approvals, or with its request id that of another person.
    Create {
        request: usize,
        is_foreign: bool,
    },
    /// From here on, an index into all sessions that ever existed.
    Activate(Index),
    Refresh {
        session: Index,
        key: usize,
    },
    Revoke(Index),
    RevokePending(Index),
    RevokeUser(usize),
    Sweep,
    Prune,
    Delete,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let create = (0..8_usize, prop::bool::weighted(0.1));
    let step = prop_oneof![
        4 => prop_oneof![4 => 0..16_i64, 1 => 0..400_i64].prop_map(Step::Wait),
        6 => create.prop_map(|(request, is_foreign)| Step::Create { request, is_foreign }),
        4 => any::<Index>().prop_map(Step::Activate),
        4 => (any::<Index>(), 0..2_usize).prop_map(|(session, key)| Step::Refresh { session, key }),
        2 => any::<Index>().prop_map(Step::Revoke),
        2 => any::<Index>().prop_map(Step::RevokePending),
        1 => (0..2_usize).prop_map(Step::RevokeUser),
        1 => Just(Step::Sweep),
        1 => Just(Step::Prune),
        1 => Just(Step::Delete),
    ];
    prop::collection::vec(step, 0..40)
}

/// A user, and the editor's key of the approval.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Who {
    user: usize,
    key: Option<usize>,
}

/// The usual one of a request id.
fn usual(request: usize) -> Who {
    Who {
        user: request / 4,
        key: request.is_multiple_of(2).then_some(request / 4),
    }
}

#[derive(Debug)]
struct Known {
    id: SessionId,
    request: usize,
    who: Who,
    created_at: Seconds,
    activated_at: Option<Seconds>,
    refreshed_at: Seconds,
    expires_at: Seconds,
    revoked_at: Option<Seconds>,
    tokens_expire_at: Seconds,
    /// Days with a row in the audit log for a refresh.
    refresh_rows: Vec<i64>,
    is_gone: bool,
}

impl Known {
    /// Updates the ends of a session that gets a token.
    fn token(&mut self, now: Seconds) {
        let ttl = if self.who.key.is_some() {
            TOKEN
        } else {
            BEARER
        };
        self.tokens_expire_at = self.tokens_expire_at.max(self.expires_at.min(now + ttl));
    }

    fn prolong(&mut self, now: Seconds) {
        let is_bound = self.who.key.is_some();
        let end = if is_bound {
            (now + IDLE).min(self.created_at + MAX)
        } else {
            self.created_at + BEARER
        };
        self.expires_at = end;
    }

    fn is_pending(&self) -> bool {
        !self.is_gone && self.activated_at.is_none() && self.revoked_at.is_none()
    }

    fn is_stale(&self, now: Seconds) -> bool {
        self.is_pending() && now - self.created_at >= PENDING
    }

    /// Returns why it is over, if it is.
    fn verdict(&self, now: Seconds) -> Result<(), &'static str> {
        match self {
            Self { is_gone: true, .. } => Err("unknown"),
            Self {
                revoked_at: Some(_),
                ..
            } => Err("revoked"),
            Self { expires_at, .. } if *expires_at <= now => Err("expired"),
            _ if self.is_stale(now) => Err("unknown"),
            Self { .. } => Ok(()),
        }
    }
}

/// The end of a session in the feed.
type End = (String, Seconds);

#[derive(Debug)]
struct Model {
    now: Seconds,
    sessions: Vec<Known>,
    /// Sessions that were ended, and did not merely expire.
    feed: BTreeMap<String, End>,
    newest: i64,
    pruned: i64,
}

impl Model {
    fn end(&mut self, session: usize, reason: &str) {
        let now = self.now;
        let ended = &mut self.sessions[session];
        ended.revoked_at = Some(now);
        ended.is_gone |= reason == "swept";
        self.feed.insert(
            ended.id.as_str().to_owned(),
            (reason.to_owned(), ended.tokens_expire_at),
        );
        self.newest += 1;
    }

    /// Ends these sessions, and counts them.
    fn end_all(&mut self, reason: &str, which: impl Fn(&Known) -> bool) -> usize {
        let ended: Vec<_> = (0..self.sessions.len())
            .filter(|at| which(&self.sessions[*at]))
            .collect();
        for session in &ended {
            self.end(*session, reason);
        }
        ended.len()
    }

    /// Returns the session of the approval: an existing one, or a new one.
    fn create(&mut self, request: usize, who: Who) -> Result<Option<usize>, &'static str> {
        let found = self.find(request, who)?;
        if found.is_none() {
            self.make_room(who.user)?;
        }
        Ok(found)
    }

    /// Makes room for one more session of this user.
    fn make_room(&mut self, user: usize) -> Result<(), &'static str> {
        let now = self.now;
        let is_live = |known: &Known| known.who.user == user && known.verdict(now).is_ok();
        let live: Vec<_> = (0..self.sessions.len())
            .filter(|at| is_live(&self.sessions[*at]))
            .collect();
        if live
            .iter()
            .filter(|at| self.sessions[**at].is_pending())
            .count()
            >= MOST_PENDING
        {
            return Err("pending");
        }

        if live.len() < MOST {
            return Ok(());
        }

        let is_silent = |known: &Known| !known.is_pending() && now - known.refreshed_at >= SILENCE;
        let silent = live.into_iter().filter(|at| is_silent(&self.sessions[*at]));
        let longest = silent.min_by_key(|at| {
            (
                self.sessions[*at].refreshed_at,
                self.sessions[*at].id.clone(),
            )
        });
        self.end(longest.ok_or("full")?, "replaced");

        Ok(())
    }

    /// Returns the session that this request id has made.
    fn find(&mut self, request: usize, who: Who) -> Result<Option<usize>, &'static str> {
        let now = self.now;
        let Some(at) = self
            .sessions
            .iter()
            .position(|known| !known.is_gone && known.request == request)
        else {
            return Ok(None);
        };

        let known = &mut self.sessions[at];
        if known.who != who {
            return Err("claimed");
        }

        if known.revoked_at.is_none() {
            known.token(now);
        }

        if known.is_stale(now) {
            self.end(at, "swept");
            return Ok(None);
        }

        known.verdict(now).map(|()| Some(at))
    }

    fn activate(&mut self, session: usize) -> Result<Activated, &'static str> {
        let now = self.now;
        let known = &mut self.sessions[session];
        known.verdict(now)?;
        let new = known.activated_at.is_none();
        Ok(Activated {
            at: *known.activated_at.get_or_insert(now),
            new,
        })
    }

    /// Returns whether that activates it, and the end of the token.
    fn refresh(&mut self, session: usize, key: usize) -> Result<(bool, Seconds), &'static str> {
        let now = self.now;
        let known = &mut self.sessions[session];
        if !known.is_gone && known.who.key != Some(key) {
            return Err("key");
        }

        known.verdict(now)?;
        let activated = known.activated_at.is_none();
        if !activated && now - known.refreshed_at < INTERVAL {
            return Ok((false, known.expires_at.min(known.refreshed_at + TOKEN)));
        }

        known.activated_at.get_or_insert(now);
        known.refreshed_at = now;
        known.prolong(now);
        known.token(now);
        let today = now.div_euclid(DAY);
        if known.refresh_rows.last() != Some(&today) {
            known.refresh_rows.push(today);
        }

        Ok((activated, known.expires_at.min(now + TOKEN)))
    }
}

fn said<T>(result: Result<T, Error>) -> Result<T, &'static str> {
    result.map_err(|error| {
        let words = [
            (matches!(error, Error::SessionUnknown(_)), "unknown"),
            (matches!(error, Error::SessionRevoked(_)), "revoked"),
            (matches!(error, Error::SessionExpired(_)), "expired"),
            (matches!(error, Error::RequestClaimed(_)), "claimed"),
            (matches!(error, Error::KeyMismatch(_)), "key"),
            (matches!(error, Error::PendingFull(_)), "pending"),
            (matches!(error, Error::SessionsFull(_)), "full"),
        ];
        words
            .into_iter()
            .find(|(fits, _)| *fits)
            .unwrap_or_else(|| panic!("{error}"))
            .1
    })
}

/// The store, with the model beside it.
struct Life {
    store: Store,
    terms: Terms,
    model: Model,
    /// The VVS ids of the users that have approved anything.
    users: [Option<UserId>; 2],
}

impl Life {
    async fn new(place: &Location) -> Self {
        // Shortly before midnight.
        let model = Model {
            now: 12 * DAY - 30,
            sessions: Vec::new(),
            feed: BTreeMap::new(),
            newest: 0,
            pruned: 0,
        };
        let terms = Terms {
            token_ttl: TOKEN,
            bearer_ttl: BEARER,
            idle_ttl: IDLE,
            max_ttl: MAX,
            pending_ttl: PENDING,
            refresh_interval: INTERVAL,
            silence: SILENCE,
            max_live: u32::try_from(MOST).unwrap(),
            max_pending: u32::try_from(MOST_PENDING).unwrap(),
            ..terms()
        };
        let store = place.open().await;
        if let Location::File(_) = place {
            // Nobody reads these after a crash.
            sqlx::query("PRAGMA synchronous = OFF")
                .execute(store.pool())
                .await
                .unwrap();
        }

        Self {
            store,
            terms,
            model,
            users: [None, None],
        }
    }

    async fn step(&mut self, step: &Step) {
        let Self {
            store,
            terms,
            model,
            users,
        } = self;
        let now = model.now;
        let pick =
            |index: &Index| (!model.sessions.is_empty()).then(|| index.index(model.sessions.len()));

        match step {
            Step::Wait(seconds) => model.now += seconds,
            Step::Create {
                request,
                is_foreign,
            } => self.create(*request, *is_foreign).await,
            Step::Activate(index) => {
                let Some(session) = pick(index) else { return };
                let id = &model.sessions[session].id.clone();
                assert_eq!(
                    said(store.activate(id, "", terms, now).await),
                    model.activate(session)
                );
            }
            Step::Refresh { session, key } => {
                let Some(session) = pick(session) else { return };
                let id = &model.sessions[session].id.clone();
                let refreshed = store
                    .refresh(id, &KEYS[*key].thumbprint(), "", terms, now)
                    .await;
                let refreshed = refreshed.map(|done| (done.activated, done.token_end));
                assert_eq!(said(refreshed), model.refresh(session, *key));
            }
            Step::Revoke(index) => {
                let Some(session) = pick(index) else { return };
                let known = &model.sessions[session];
                let expected = !known.is_gone && known.revoked_at.is_none();
                assert_eq!(
                    store.revoke(&known.id, &cause(), now).await.unwrap(),
                    expected
                );
                if expected {
                    model.end(session, "signed_out_by_user");
                }
            }
            Step::RevokePending(index) => {
                let Some(session) = pick(index) else { return };
                let known = &model.sessions[session];
                let expected = known.is_pending();
                assert_eq!(
                    store
                        .revoke_pending(&known.id, &cause(), now)
                        .await
                        .unwrap(),
                    expected
                );

                if expected {
                    model.end(session, "signed_out_by_user");
                }
            }
            Step::RevokeUser(user) => {
                let Some(id) = &users[*user] else { return };
                let is_theirs = |known: &Known| known.who.user == *user && !known.is_gone;
                let is_due = |known: &Known| {
                    is_theirs(known) && known.revoked_at.is_none() && now < known.expires_at
                };
                let ended = model.end_all("signed_out_by_user", is_due);
                assert_eq!(
                    store
                        .revoke_all(&Whose::User(id.clone()), &cause(), now)
                        .await
                        .unwrap() as usize,
                    ended
                );
            }
            Step::Sweep => {
                let swept = model.end_all("swept", |known| known.is_stale(now));
                assert_eq!(store.sweep(terms, now).await.unwrap() as usize, swept);
            }
            Step::Prune => self.prune().await,
            Step::Delete => self.delete().await,
        }
    }

    async fn create(&mut self, request: usize, is_foreign: bool) {
        let now = self.model.now;
        let mut who = usual(request);
        if is_foreign {
            who = Who {
                user: 1 - who.user,
                ..who
            };
        }

        let mut approval = approval(u32::try_from(request).unwrap(), ["ada", "bob"][who.user]);
        approval.device.key = who.key.map(|key| KEYS[key].clone());
        let created = said(self.store.create(&approval, &self.terms, now).await);

        match (created, self.model.create(request, who)) {
            (
                Ok(Created {
                    session,
                    new: false,
                }),
                Ok(Some(known)),
            ) => {
                assert_eq!(session.id, self.model.sessions[known].id);
            }
            (Ok(Created { session, new: true }), Ok(None)) => {
                assert!(
                    self.model
                        .sessions
                        .iter()
                        .all(|known| known.id != session.id),
                    "an id was given twice"
                );

                let user = self.users[who.user].get_or_insert_with(|| session.user.clone());
                assert_eq!(*user, session.user, "a user has one id");

                let mut known = Known {
                    id: session.id,
                    request,
                    who,
                    created_at: now,
                    activated_at: None,
                    refreshed_at: now,
                    expires_at: 0,
                    revoked_at: None,
                    tokens_expire_at: 0,
                    refresh_rows: Vec::new(),
                    is_gone: false,
                };
                known.prolong(now);
                known.token(now);
                self.model.sessions.push(known);
            }
            (created, expected) => assert_eq!(
                created.map(|made| made.new),
                expected.map(|known| known.is_none())
            ),
        }
    }

    async fn delete(&mut self) {
        let since = self.model.now - REMEMBERED;
        let is_dead = |known: &Known| {
            let is_over =
                known.expires_at <= since || known.revoked_at.is_some_and(|at| at <= since);
            !known.is_gone && is_over && known.tokens_expire_at <= since
        };
        let dead = self
            .model
            .sessions
            .iter_mut()
            .filter(|known| is_dead(known));
        let deleted = dead.map(|known| known.is_gone = true).count();
        assert_eq!(
            self.store.delete_dead_sessions(since).await.unwrap(),
            deleted as u64
        );
    }

    async fn prune(&mut self) {
        let over = self.model.now - LATE;
        let rows = self.rows().await;
        let gone: Vec<_> = rows
            .iter()
            .filter(|(_, _, (_, tokens_expire_at))| *tokens_expire_at <= over)
            .collect();
        for (sequence, id, _) in &gone {
            self.model.pruned = self.model.pruned.max(*sequence);
            self.model.feed.remove(id);
        }

        assert_eq!(
            self.store.prune(self.model.now).await.unwrap(),
            gone.len() as u64
        );
    }

    /// The whole feed, in order.
    async fn rows(&self) -> Vec<(i64, String, End)> {
        let rows = sqlx::query(
            "SELECT sequence, session_id, reason, tokens_expire_at FROM revocations ORDER BY \
             sequence",
        );
        let rows = rows.fetch_all(self.store.pool()).await.unwrap();
        rows.iter()
            .map(|row| (row.get(0), row.get(1), (row.get(2), row.get(3))))
            .collect()
    }

    /// Returns the days on which the audit log has a refresh of a session.
    async fn refresh_rows(&self, id: &SessionId) -> Vec<i64> {
        let rows = sqlx::query_scalar(
            "SELECT at FROM audit WHERE session_id = $1 AND event = 'refreshed' ORDER BY at",
        );
        let rows: Vec<Seconds> = rows
            .bind(id.as_str())
            .fetch_all(self.store.pool())
            .await
            .unwrap();
        rows.into_iter().map(|at| at.div_euclid(DAY)).collect()
    }

    /// Checks that the store shows the model's state. `newest` was the feed's newest number before
    /// the last step.
    async fn check(&self, newest: i64) {
        let Self { store, model, .. } = self;
        for known in &model.sessions {
            let found = said(store.session(&known.id).await);
            let found = found.map(|found| {
                assert_eq!(
                    found.device.key.as_ref(),
                    known.who.key.map(|key| &KEYS[key])
                );
                let ends = (found.expires_at, found.revoked_at, found.tokens_expire_at);
                (
                    found.created_at,
                    found.activated_at,
                    found.refreshed_at,
                    ends,
                )
            });
            let ends = (known.expires_at, known.revoked_at, known.tokens_expire_at);
            let expected = (
                known.created_at,
                known.activated_at,
                known.refreshed_at,
                ends,
            );
            assert_eq!(
                found,
                if known.is_gone {
                    Err("unknown")
                } else {
                    Ok(expected)
                }
            );
        }

        for known in &model.sessions {
            assert_eq!(self.refresh_rows(&known.id).await, known.refresh_rows);
        }

        let pending = model.sessions.iter().filter(|known| known.is_pending());
        assert_eq!(
            store.oldest_pending().await.unwrap(),
            pending.map(|known| known.created_at).min()
        );

        for (user, id) in self.users.iter().enumerate() {
            let Some(id) = id else { continue };
            let listed = store
                .sessions_of(id, &Portion::new(1000, "").unwrap(), &self.terms, model.now)
                .await
                .unwrap()
                .0
                .into_iter()
                .map(|session| session.id);
            let is_theirs =
                |known: &&Known| known.who.user == user && known.verdict(model.now).is_ok();
            let mut live: Vec<_> = model.sessions.iter().filter(is_theirs).collect();

            live.sort_by_key(|known| {
                (
                    known.is_pending(),
                    Reverse(known.refreshed_at),
                    known.id.as_str(),
                )
            });
            assert!(
                listed.eq(live.into_iter().map(|known| known.id.clone())),
                "{model:?}"
            );
        }

        self.check_feed(newest).await;
    }

    async fn check_feed(&self, newest: i64) {
        let Self { store, model, .. } = self;
        let rows = self.rows().await;
        assert_eq!(
            store.feed_ends().await.unwrap(),
            (model.newest, model.pruned)
        );

        let feed: BTreeMap<_, _> = rows
            .iter()
            .map(|(_, id, end)| (id.clone(), end.clone()))
            .collect();
        assert_eq!(
            (feed.len(), &feed),
            (rows.len(), &model.feed),
            "a session ends once"
        );

        // Numbers are given once each, and in order.
        let new: BTreeSet<_> = rows
            .iter()
            .map(|row| row.0)
            .filter(|sequence| *sequence > newest)
            .collect();
        assert_eq!(new, (newest + 1..=model.newest).collect());

        let page = store.revocations(0, model.now).await.unwrap();
        let due = rows
            .into_iter()
            .filter(|(_, _, (_, tokens_expire_at))| *tokens_expire_at > model.now - LATE);
        let read = page.entries.into_iter();
        let read = read.map(|end| {
            (
                end.sequence,
                end.session.to_string(),
                (end.reason, end.tokens_expire_at),
            )
        });
        assert!(read.eq(due), "{model:?}");
        assert!(page.complete && page.read_to == model.newest);
    }
}

fn cause() -> Cause {
    Cause {
        reason: reason_of("signed_out_by_user"),
        address: String::new(),
    }
}

async fn live(place: &Location, steps: &[Step]) {
    let mut life = Life::new(place).await;
    for step in steps {
        let newest = life.model.newest;
        life.step(step).await;
        life.check(newest).await;
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_store_does_what_a_list_in_memory_does(steps in steps()) {
        runtime().block_on(async { live(&Location::new(), &steps).await });
    }
}

proptest! {
    // Each makes a database.
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn the_store_does_the_same_on_postgresql(steps in steps()) {
        runtime().block_on(async { live(&Location::server().await, &steps).await });
    }
}
