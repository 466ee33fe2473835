//! What a rolling restart costs those who are connected, and those who are signing in meanwhile.

mod fleet;
mod person;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::ValueEnum;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vvs_auth::peer::Role;
use vvs_client::{Change, End, Keep, Profile};

use crate::Failure;
use crate::report::{Report, count, number};
use crate::roll::fleet::Fleet;
use crate::roll::person::Signed;

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// How many editors are signed in and connected
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    editors: u32,
    /// Logins that begin each second; every fifth is a bare editor's, which never says who it is
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    logins: u32,
    /// The seconds that a process has to end
    #[arg(long, default_value_t = 30)]
    grace: u64,
    /// Whose processes are replaced, all of a role one after the other
    #[arg(long, value_enum, value_delimiter = ',', default_value = "relay")]
    roles: Vec<Kind>,
    /// Percent of the editors that may connect again in any one second
    #[arg(long, default_value_t = 10.0)]
    most_at_once: f64,
}

/// A role with several processes.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Relay,
    Web,
    Sessions,
}

const COLUMNS: &[&str] = &[
    "replaced",
    "ended after s",
    "logins",
    "bare logins",
    "bare begun again",
    "failed",
    "signed out",
    "reconnects",
    "most in a second",
    "% of editors",
    "each second",
];
/// Sign-ins under way at once while the editors are made.
const AT_ONCE: usize = 16;
/// How long everything runs undisturbed before the first replacement and after each.
const SETTLE: Duration = Duration::from_secs(3);
/// How long a login may take, its person's thoughts included.
const PATIENCE: Duration = Duration::from_mins(2);
/// The longest that a person thinks at a time; there are three times in a login.
const THOUGHT: Duration = Duration::from_secs(2);
/// Every so many logins are a bare editor's.
const BARE: u32 = 5;

/// What is written down.
#[derive(Debug, Default, Clone)]
struct Books {
    logins: usize,
    bare: usize,
    bare_again: usize,
    failed: Vec<String>,
    signed_out: Vec<String>,
    /// When an editor that had been sent away, or cut off, connected again.
    reconnects: Vec<Instant>,
}

/// Everything that goes on at once.
#[derive(Debug, Clone)]
struct Run {
    url: String,
    profiles: PathBuf,
    books: Arc<Mutex<Books>>,
    logins: TaskTracker,
    editors: TaskTracker,
    /// For the editors.
    stop: CancellationToken,
}

pub(crate) async fn run(options: &Options, as_json: bool) -> Result<(), Failure> {
    let title = format!(
        "{} editors and {} logins a second while processes are replaced that have {} s to end",
        options.editors, options.logins, options.grace
    );
    let mut report = Report::new(title, COLUMNS);
    let mut fleet = Fleet::start(options.grace).await?;
    let run = Run {
        url: fleet.url().to_owned(),
        profiles: fleet.profiles(),
        books: Arc::default(),
        logins: TaskTracker::new(),
        editors: TaskTracker::new(),
        stop: CancellationToken::new(),
    };
    run.connect(options.editors).await?;
    let signing_in = CancellationToken::new();
    run.logins
        .spawn(run.clone().sign_in(options.logins, signing_in.clone()));
    sleep(SETTLE).await;
    let mut rows = Rows {
        editors: options.editors,
        before: Books::default(),
        most: 0.0,
    };
    for role in options.roles.iter().map(|kind| kind.role()) {
        for number in 0..fleet.count(role) {
            let start = Instant::now();
            let ended = fleet.replace(role, number).await?;
            sleep(SETTLE).await;
            report.row(rows.next(
                &format!("{role} {}", number + 1),
                Some(ended),
                start,
                &run.books(),
            ));
        }
    }

    signing_in.cancel();
    let start = Instant::now();
    run.finish().await;
    report.row(rows.next("afterwards", None, start, &run.books()));
    report.print(as_json)?;

    run.books().verdict(rows.most, options.most_at_once)
}

impl Kind {
    fn role(self) -> Role {
        match self {
            Self::Relay => Role::Relay,
            Self::Web => Role::Web,
            Self::Sessions => Role::Sessions,
        }
    }
}

impl Books {
    fn verdict(self, most: f64, allowed: f64) -> Result<(), Failure> {
        let mut reasons = BTreeMap::<_, usize>::new();
        for reason in self.failed.iter().chain(&self.signed_out) {
            *reasons.entry(reason).or_default() += 1;
        }

        if !reasons.is_empty() {
            let (failed, out) = (self.failed.len(), self.signed_out.len());
            return Err(format!(
                "{failed} logins failed and {out} editors were signed out: {reasons:#?}"
            )
            .into());
        }

        if most > allowed {
            return Err(
                format!("{most} % of the editors connected again within one second").into(),
            );
        }

        Ok(())
    }
}

/// Makes the lines of the table: each says what is new since the one before.
struct Rows {
    editors: u32,
    before: Books,
    most: f64,
}

impl Rows {
    fn next(
        &mut self,
        name: &str,
        ended: Option<Duration>,
        start: Instant,
        books: &Books,
    ) -> Vec<Value> {
        let before = std::mem::replace(&mut self.before, books.clone());
        let mut seconds: Vec<usize> = Vec::new();
        for moment in &books.reconnects[before.reconnects.len()..] {
            let second = usize::try_from(moment.saturating_duration_since(start).as_secs())
                .unwrap_or_default();
            seconds.resize(seconds.len().max(second + 1), 0);
            seconds[second] += 1;
        }

        let peak = seconds.iter().copied().max().unwrap_or_default();
        let share = count(peak) * 100.0 / f64::from(self.editors);
        self.most = self.most.max(share);

        vec![
            json!(name),
            ended.map_or(Value::Null, |ended| number(ended.as_secs_f64())),
            json!(books.logins - before.logins),
            json!(books.bare - before.bare),
            json!(books.bare_again - before.bare_again),
            json!(books.failed.len() - before.failed.len()),
            json!(books.signed_out.len() - before.signed_out.len()),
            json!(books.reconnects.len() - before.reconnects.len()),
            json!(peak),
            number(share),
            json!(seconds),
        ]
    }
}

impl Run {
    fn books(&self) -> Books {
        self.write(|books| books.clone())
    }

    fn write<T>(&self, entry: impl FnOnce(&mut Books) -> T) -> T {
        entry(&mut self.books.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Signs so many editors in, and has them hold their connections until the end.
    async fn connect(&self, editors: u32) -> Result<(), Failure> {
        let connecting = (0..editors).map(async |number| {
            let profile = Profile::new(&self.profiles, &format!("held-{number}"), Keep::File)?;
            Box::pin(person::login(&self.url, profile.clone(), Duration::ZERO)).await?;
            let (connected, is_connected) = oneshot::channel();
            self.editors.spawn(self.clone().hold(profile, connected));
            timeout(PATIENCE, is_connected).await??;
            Ok::<_, Failure>(())
        });
        stream::iter(connecting)
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await
    }

    /// One editor that stays.
    async fn hold(self, profile: Profile, connected: oneshot::Sender<()>) {
        let mut connected = Some(connected);
        let end = vvs_client::connect(
            &profile,
            None,
            self.stop.cancelled(),
            |change| match change {
                Change::SignedIn { .. } => {
                    if let Some(connected) = connected.take() {
                        connected.send(()).ok();
                    }
                }
                Change::Lost { retry_after_ms, .. } => {
                    let moment = Instant::now() + Duration::from_millis(retry_after_ms);
                    self.write(|books| books.reconnects.push(moment));
                }
                Change::Refreshed { .. }
                | Change::Expiring { .. }
                | Change::Refused { .. }
                | Change::NotStored { .. } => {}
            },
        );
        let out = match end.await {
            Ok(End::Stopped) => return,
            Ok(End::NotSignedIn) => "it has no credential any more".to_owned(),
            Ok(End::Over { why }) => why,
            Err(cause) => cause.to_string(),
        };

        self.write(|books| books.signed_out.push(out));
    }

    /// Begins so many logins each second, until it is told to stop.
    async fn sign_in(self, each_second: u32, stop: CancellationToken) {
        let mut beginning = interval(Duration::from_secs(1) / each_second);
        beginning.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let begin = async {
            for number in 0_u32.. {
                beginning.tick().await;
                let login = self.logins.spawn(self.clone().one_login(number));
                self.logins.spawn(self.clone().judged(login));
            }
        };
        stop.run_until_cancelled(begin).await;
    }

    /// Writes down a login that ends in a panic, too: the person's browser has an opinion on every
    /// page.
    async fn judged(self, login: JoinHandle<Result<(), Failure>>) {
        let failure = match login.await {
            Ok(Ok(())) => return,
            Ok(Err(failure)) => failure.to_string(),
            Err(panic) => panic.to_string(),
        };
        self.write(|books| books.failed.push(failure));
    }

    async fn one_login(self, number: u32) -> Result<(), Failure> {
        // Persons take their time, and each takes another.
        let thought = THOUGHT.mul_f64(f64::from(number % 17) / 16.0);
        if number.is_multiple_of(BARE) {
            let signed =
                timeout(PATIENCE, person::bare_login(&self.url, number, thought)).await??;
            self.write(|books| match signed {
                Signed::In => books.bare += 1,
                Signed::Interrupted => books.bare_again += 1,
            });
            return Ok(());
        }

        let profile = Profile::new(&self.profiles, &format!("login-{number}"), Keep::File)?;
        timeout(
            PATIENCE,
            Box::pin(person::login(&self.url, profile, thought)),
        )
        .await??;
        self.write(|books| books.logins += 1);

        Ok(())
    }

    /// All logins come to their end, then all editors go.
    async fn finish(&self) {
        self.logins.close();
        self.logins.wait().await;
        self.stop.cancel();
        self.editors.close();
        self.editors.wait().await;
    }
}
