//! Several processes with the same service: which ones exist, which of them can serve, and which of
//! two is less busy. It does not know what callers send to them.

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

/// The maximum number of members that one request is offered to.
pub const TRIES: usize = 3;
/// How often a name is looked up.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(5);
/// The pause before the next lookup, after connecting to a member has failed.
const LOOKUP_PAUSE: Duration = Duration::from_millis(500);
const LOOKUP_TIME: Duration = Duration::from_secs(5);
/// For how long a member is excluded after connecting to it has failed once, and at most; the time
/// doubles with each failure.
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

/// No member is ready.
#[derive(Debug, thiserror::Error)]
#[error("none of {0} is ready")]
pub struct NoneReady(Hosts);

/// The members, as one caller knows them. `T` is the caller's state for each member, such as a
/// connection.
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

/// Asks a member repeatedly whether it can serve.
type Watching<T> =
    Box<dyn Fn(Arc<Member<T>>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

struct Roster<T> {
    hosts: Hosts,
    set: RwLock<Set<T>>,
    /// How many names have not been looked up yet.
    unknown: watch::Sender<usize>,
    /// Triggers an immediate lookup, one for each host.
    lookups: Vec<Notify>,
    check: Watching<T>,
    /// Tasks that nobody waits for: they end with the pool, and have nothing to finish.
    tasks: TaskTracker,
}

struct Set<T> {
    /// The addresses that each host resolves to.
    found: Vec<Vec<SocketAddr>>,
    entries: Vec<Slot<T>>,
}

struct Slot<T> {
    member: Arc<Member<T>>,
    /// Ends its checks. `None` while there is only one member, because that one is asked whatever
    /// it answers.
    check: Option<DropGuard>,
}

/// One process.
pub struct Member<T> {
    pub address: SocketAddr,
    /// The host that it was found under.
    pub host: Authority,
    /// The caller's state for it.
    pub kept: T,
    in_flight: AtomicUsize,
    health: Mutex<Health>,
}

/// A member's last answer about itself.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// It has not been asked.
    #[default]
    Unasked,
    Ready,
    /// It accepts nothing new.
    Refuses,
    /// It does not answer in time: it is gone, or one of the two processes is overloaded.
    Silent,
}

#[derive(Default)]
struct Health {
    word: Word,
    /// How many attempts to connect have failed in a row.
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

    /// Records that connecting to it has succeeded, or that it has answered.
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

/// The metrics of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    pub address: SocketAddr,
    pub is_up: bool,
    /// Requests and streams under way.
    pub in_flight: usize,
}

/// A chosen member; it counts as that much busier until this is dropped.
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
    /// Looks up the hosts, now and every few seconds, and asks the members whether they can serve
    /// if there is more than one. `connector` is for these questions.
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

    /// Waits for the first lookup of every name, as long as no member is known. Right after the
    /// start, members may only seem to be missing.
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

    /// Returns the less busy of two random members that are ready and not in `tried`. Members that
    /// have not answered are the second choice, so that lost questions refuse no request. A single
    /// member is chosen whatever is known about it.
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

    /// Records that connecting to it has failed: it is excluded for a while, and the names are
    /// looked up again.
    pub fn failed(&self, member: &Member<T>) {
        member.missed();
        for lookup in &self.shared.lookups {
            lookup.notify_one();
        }
    }

    /// Records that it accepts nothing new; it is asked again soon.
    pub fn refused(&self, member: &Member<T>) {
        member.judge(Word::Refuses);
    }

    /// Returns all members, for metrics.
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

    /// Looks one host up repeatedly. The addresses stay in use while a lookup fails.
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

    /// Sets the current addresses of a host. Existing members keep their connections and their
    /// state.
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

/// Returns the less busy of two random members. Comparing all would send all simultaneous callers
/// to the same one.
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
