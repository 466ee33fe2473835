//! Several processes that serve the same: which there are, which of them can serve, and which of
//! two has less to do. It does not know what is said to them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use http::uri::Authority;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::http::Connector;

mod check;
#[cfg(test)]
mod tests;

/// How many members one request is offered to at most.
pub const TRIES: usize = 3;
/// How often a name is looked up.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(5);
/// How soon again, when connecting to a member has failed.
const LOOKUP_PAUSE: Duration = Duration::from_millis(500);
const LOOKUP_TIME: Duration = Duration::from_secs(5);
/// For how long a member is left out after connecting to it has failed once, and at most; each time
/// is twice as long.
const OUT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(4));

/// Where the members are: names or addresses with a port, separated by commas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(Vec<Authority>);

/// One of the hosts is not HOST:PORT.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not HOST:PORT")]
pub struct BadHost(String);

impl FromStr for Hosts {
    type Err = BadHost;

    fn from_str(text: &str) -> Result<Self, BadHost> {
        let parse = |text: &str| {
            let host = text.trim().parse::<Authority>().ok();
            let host = host.filter(|host| host.port_u16().is_some() && !host.host().is_empty());
            host.filter(|host| !host.as_str().contains('@'))
                .ok_or_else(|| BadHost(text.to_owned()))
        };
        text.split(',')
            .map(parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(Authority::as_str).collect();
        f.write_str(&names.join(","))
    }
}

/// There is nobody to ask.
#[derive(Debug, thiserror::Error)]
#[error("none of {0} is ready")]
pub struct NoneReady(Hosts);

/// The members, as one caller knows them. `T` is what he keeps of each, such as a connection.
pub struct Pool<T> {
    shared: Arc<Roster<T>>,
    /// Ends the lookups with the last handle.
    running: Arc<DropGuard>,
}

impl<T> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            running: self.running.clone(),
        }
    }
}

impl<T> fmt::Debug for Pool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool").field(&self.shared.hosts).finish()
    }
}

/// Asks a member again and again whether it can serve.
type Watching<T> =
    Box<dyn Fn(Arc<Member<T>>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

struct Roster<T> {
    hosts: Hosts,
    set: RwLock<Set<T>>,
    /// How many names have not been looked up yet.
    unknown: watch::Sender<usize>,
    /// One for each host: look it up now.
    lookups: Vec<Notify>,
    check: Watching<T>,
    /// Nobody waits for these: they end with the pool, and there is nothing that they would have to
    /// finish.
    tasks: TaskTracker,
}

struct Set<T> {
    /// What each host stands for.
    found: Vec<Vec<SocketAddr>>,
    entries: Vec<Slot<T>>,
}

struct Slot<T> {
    member: Arc<Member<T>>,
    /// Ends its checks; `None` while there is no choice, because whatever it answers, it would be
    /// asked.
    check: Option<DropGuard>,
}

/// One process.
pub struct Member<T> {
    pub address: SocketAddr,
    /// What stands for it in the list of hosts.
    pub host: Authority,
    /// What its caller keeps of it.
    pub kept: T,
    in_flight: AtomicUsize,
    health: Mutex<Health>,
}

/// What a member said last about itself.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// It has not been asked.
    #[default]
    Unasked,
    Ready,
    /// It takes nothing new.
    Refuses,
    /// It says nothing in time: it is gone, or there is too much to do, for it or for us.
    Silent,
}

#[derive(Default)]
struct Health {
    word: Word,
    /// How often connecting to it has failed in a row.
    failures: u32,
    out_until: Option<Instant>,
}

impl Health {
    fn is_up(&self) -> bool {
        self.failures == 0 && matches!(self.word, Word::Unasked | Word::Ready)
    }
}

impl<T> fmt::Debug for Member<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Member").field(&self.address).finish()
    }
}

impl<T> Member<T> {
    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(&self, word: Word) {
        self.health().word = word;
    }

    /// Connecting to it has worked, or it has answered.
    pub fn reached(&self) {
        let mut health = self.health();
        (health.failures, health.out_until) = (0, None);
    }

    fn missed(&self) {
        let mut health = self.health();
        let (first, longest) = OUT;
        health.out_until =
            Some(Instant::now() + longest.min(first * 2_u32.pow(health.failures.min(8))));
        health.failures = health.failures.saturating_add(1);
    }

    fn load(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

/// What a metric says of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    pub address: SocketAddr,
    pub is_up: bool,
    /// Requests and streams under way.
    pub in_flight: usize,
}

/// A member that was chosen; it counts as that much busier until this is dropped.
pub struct Busy<T>(Arc<Member<T>>);

impl<T> fmt::Debug for Busy<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Busy").field(&self.0.address).finish()
    }
}

impl<T> Deref for Busy<T> {
    type Target = Member<T>;

    fn deref(&self) -> &Member<T> {
        &self.0
    }
}

impl<T> Drop for Busy<T> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<T: Default + Send + Sync + 'static> Pool<T> {
    /// Looks the hosts up, now and every few seconds, and asks those that there is a choice of
    /// whether they can serve. `connector` is for asking.
    pub fn new(hosts: Hosts, connector: &Connector) -> Self {
        let connector = check::connector(connector);
        let check = move |member: Arc<Member<T>>| {
            Box::pin(check::watch(member, connector.clone())) as Pin<Box<_>>
        };
        let lookup =
            |name: String| async move { Ok(tokio::net::lookup_host(name).await?.collect()) };
        Self::with(hosts, lookup, Box::new(check))
    }

    fn with<L, F>(hosts: Hosts, lookup: L, check: Watching<T>) -> Self
    where
        L: Fn(String) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        let count = hosts.0.len();
        let shared = Arc::new(Roster {
            set: RwLock::new(Set {
                found: vec![Vec::new(); count],
                entries: Vec::new(),
            }),
            unknown: watch::Sender::new(0),
            lookups: std::iter::repeat_with(Notify::new).take(count).collect(),
            check,
            tasks: TaskTracker::new(),
            hosts,
        });
        let stop = CancellationToken::new();
        for (index, host) in shared.hosts.0.iter().enumerate() {
            if let Ok(address) = host.as_str().parse() {
                shared.update(index, vec![address]);
                continue;
            }
            shared.unknown.send_modify(|count| *count += 1);
            let following = shared.clone().follow(index, lookup.clone());
            shared
                .tasks
                .spawn(stop.clone().run_until_cancelled_owned(following));
        }

        Self {
            shared,
            running: Arc::new(stop.drop_guard()),
        }
    }

    /// Waits for the first lookup of every name, as long as no member is known: right after the
    /// start there may only seem to be none.
    pub async fn known(&self) {
        if self.shared.set().entries.is_empty() {
            // Fails only without a sender, and we hold one.
            self.shared
                .unknown
                .subscribe()
                .wait_for(|count| *count == 0)
                .await
                .ok();
        }
    }

    /// The less busy of two random members that are ready, of those that are not in `tried`.
    /// Members that have not answered are next best, so that nobody is turned away because
    /// questions are lost. The only one that there is, is chosen whatever is known of it.
    pub fn pick(&self, tried: &[SocketAddr]) -> Result<Busy<T>, NoneReady> {
        let set = self.shared.set();
        let now = Instant::now();
        let (mut ready, mut unknown) = (Vec::new(), Vec::new());
        for Slot { member, .. } in set
            .entries
            .iter()
            .filter(|entry| !tried.contains(&entry.member.address))
        {
            let health = member.health();
            if set.entries.len() == 1 {
                ready.push(member);
            } else if health.out_until.is_none_or(|until| until <= now) {
                match health.word {
                    Word::Ready => ready.push(member),
                    Word::Unasked | Word::Silent => unknown.push(member),
                    Word::Refuses => {}
                }
            }
        }

        let chosen = less_busy(if ready.is_empty() { &unknown } else { &ready });
        let member = chosen.ok_or_else(|| NoneReady(self.shared.hosts.clone()))?;
        member.in_flight.fetch_add(1, Ordering::Relaxed);

        Ok(Busy(member.clone()))
    }

    /// Connecting to it has failed: it is left out for a while, and the names are looked up again.
    pub fn failed(&self, member: &Member<T>) {
        member.missed();
        for lookup in &self.shared.lookups {
            lookup.notify_one();
        }
    }

    /// It has said that it takes nothing new; it is asked again soon.
    pub fn refused(&self, member: &Member<T>) {
        member.judge(Word::Refuses);
    }

    /// All members, for metrics.
    pub fn sights(&self) -> Vec<Sight> {
        let sight = |Slot { member, .. }: &Slot<T>| {
            let (is_up, in_flight) = (member.health().is_up(), member.load());
            Sight {
                address: member.address,
                is_up,
                in_flight,
            }
        };
        self.shared.set().entries.iter().map(sight).collect()
    }
}

impl<T: Default + Send + Sync + 'static> Roster<T> {
    fn set(&self) -> std::sync::RwLockReadGuard<'_, Set<T>> {
        self.set.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks one host up again and again. What was found stays in use while a lookup fails.
    async fn follow<F>(self: Arc<Self>, index: usize, lookup: impl Fn(String) -> F)
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>>,
    {
        let name = self.hosts.0[index].as_str();
        let mut waited_for = true;
        let mut failing = false;

        loop {
            let found = timeout(LOOKUP_TIME, lookup(name.to_owned())).await;
            match found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(addresses) => {
                    failing = false;
                    self.update(index, addresses);
                }
                Err(cause) if !failing => {
                    failing = true;
                    tracing::warn!(name, %cause, "a name cannot be looked up");
                }
                Err(_) => {}
            }

            if std::mem::take(&mut waited_for) {
                self.unknown.send_modify(|count| *count -= 1);
            }

            sleep(LOOKUP_PAUSE).await;
            timeout(
                LOOKUP_INTERVAL.saturating_sub(LOOKUP_PAUSE),
                self.lookups[index].notified(),
            )
            .await
            .ok();
        }
    }

    /// Takes what a host stands for now. Who was there before keeps its connections and what is
    /// known of it.
    fn update(&self, index: usize, mut addresses: Vec<SocketAddr>) {
        let mut set = self.set.write().unwrap_or_else(PoisonError::into_inner);
        addresses.sort_unstable();
        addresses.dedup();
        if set.found[index] == addresses {
            return;
        }

        set.found[index] = addresses;
        let Set { found, entries } = &mut *set;
        entries.retain(|entry| {
            found
                .iter()
                .flatten()
                .any(|address| *address == entry.member.address)
        });

        for (host, found) in self.hosts.0.iter().zip(found.iter()) {
            for &address in found {
                if !entries.iter().any(|entry| entry.member.address == address) {
                    let (host, in_flight, health) =
                        (host.clone(), AtomicUsize::new(0), Mutex::default());
                    let member = Arc::new(Member {
                        address,
                        host,
                        kept: T::default(),
                        in_flight,
                        health,
                    });
                    entries.push(Slot {
                        member,
                        check: None,
                    });
                }
            }
        }

        let has_choice = set.entries.len() > 1;
        for entry in &mut set.entries {
            if has_choice && entry.check.is_none() {
                let stop = CancellationToken::new();
                self.tasks.spawn(
                    stop.clone()
                        .run_until_cancelled_owned((self.check)(entry.member.clone())),
                );
                entry.check = Some(stop.drop_guard());
            } else if !has_choice {
                entry.check = None;
                entry.member.judge(Word::Unasked);
            }
        }

        tracing::info!(host = %self.hosts.0[index], members = ?set.found[index], "looked up");
    }
}

/// Of two random ones; comparing all would send everybody who looks at the same moment to the same
/// one.
fn less_busy<'a, T>(members: &[&'a Arc<Member<T>>]) -> Option<&'a Arc<Member<T>>> {
    let mut random = [[0; 4]; 2];
    // Without randomness it is always the same two, which still serve.
    aws_lc_rs::rand::fill(random.as_flattened_mut()).ok();
    let [one, step] =
        random.map(|bytes| usize::try_from(u32::from_ne_bytes(bytes)).unwrap_or_default());
    let count = members.len();
    let one = one.checked_rem(count)?;
    let other = (one + 1 + step.checked_rem(count - 1).unwrap_or_default()) % count;
    let (one, other) = (members[one], members[other]);

    Some(if other.load() < one.load() {
        other
    } else {
        one
    })
}
