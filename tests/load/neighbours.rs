//! What neighbours feel of an attack: how long other people's sign-ins take meanwhile, and whether
//! anybody loses a socket.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;
use vvs_auth::peer::Role;
use vvs_proto::session::sessions_client::SessionsClient;

use crate::Failure;
use crate::attack::{self, Strength, Target};
use crate::editor::Socket;
use crate::install::Sessions;
use crate::login::login;
use crate::report::{Report, Times, milliseconds};
use crate::system::{System, channel};

/// Editors of the attacker's own network, signed in all along.
const NEIGHBOURS: u8 = 20;
/// How long an attack has been going on when sign-ins begin.
const HEAD_START: Duration = Duration::from_secs(3);
/// Other people's sign-ins come from 127.0.0.1, where many sit behind one address.
const FLAGS: [&str; 2] = ["--gateway-shared-networks", "127.0.0.1/32=20"];
const COLUMNS: &[&str] = &[
    "sign-ins",
    "count",
    "failed",
    "median ms",
    "p90 ms",
    "times undisturbed",
];

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// Sign-ins in each turn, one after the other
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=100))]
    logins: u16,
    /// How often each line has its turn
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=10))]
    rounds: u8,
    /// How many times as long as beside an attack on somebody else a sign-in may take, by the
    /// median
    #[arg(long, default_value_t = 1.5)]
    most: f64,
    #[command(flatten)]
    strength: Strength,
}

/// A line of the table: what is attacked meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Quiet,
    Beside,
    Under,
}

impl Turn {
    const ALL: [Self; 3] = [Self::Quiet, Self::Beside, Self::Under];

    fn name(self) -> &'static str {
        match self {
            Self::Quiet => "undisturbed",
            Self::Beside => "beside an attack on another installation",
            Self::Under => "under attack",
        }
    }
}

/// What was seen of one kind of turn.
#[derive(Debug, Default)]
struct Seen {
    times: Vec<Duration>,
    failed: u32,
}

pub(crate) async fn run(options: &Options, as_json: bool) -> Result<(), Failure> {
    let (data, other_data) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let system = System::all(data.path(), &FLAGS).await?;
    let other = System::all(other_data.path(), &FLAGS).await?;
    let (target, mut neighbours) = target(data.path(), &system).await?;
    let (other_target, _others) = self::target(other_data.path(), &other).await?;

    let mut seen = [Seen::default(), Seen::default(), Seen::default()];
    for round in 0..options.rounds {
        for (turn, seen) in Turn::ALL.into_iter().zip(&mut seen) {
            let attack = match turn {
                Turn::Quiet => JoinSet::new(),
                Turn::Beside => attack::begin(&other_target, &options.strength, round),
                Turn::Under => attack::begin(&target, &options.strength, round),
            };

            if turn != Turn::Quiet {
                sleep(HEAD_START).await;
            }

            seen.sign_in(&system.entrance.origin, options.logins).await;
            drop(attack);
            system.until_quiet().await?;
            other.until_quiet().await?;
        }
    }

    // Those that have ended ended because somebody closed or cut them.
    let lost = std::iter::from_fn(|| neighbours.try_join_next()).count();
    drop(neighbours);
    system.stop().await?;
    other.stop().await?;

    report(options, seen, lost, as_json)
}

/// Where an attack goes, and the attacker's neighbours there.
async fn target(data: &Path, system: &System) -> Result<(Arc<Target>, JoinSet<()>), Failure> {
    let calls = system.calls.as_deref().ok_or("the system takes no calls")?;
    let sessions = Sessions::at(SessionsClient::new(channel(data, Role::Sessions, calls)?));
    let mut neighbours = JoinSet::new();
    for number in 0..NEIGHBOURS {
        let address = attack::network(200 + number);
        let socket = sign_on(&sessions, system, address).await?;
        neighbours.spawn(hold(socket));
    }

    let install = sessions.make(1).await?.pop().ok_or("no session was made")?;
    let target = Target {
        data: data.to_owned(),
        entrance: system.entrance.clone(),
        calls: calls.to_owned(),
        install,
    };

    Ok((Arc::new(target), neighbours))
}

/// Signs one editor in that comes from this address.
async fn sign_on(
    sessions: &Sessions,
    system: &System,
    address: Ipv4Addr,
) -> Result<Socket, Failure> {
    let install = sessions.make(1).await?.pop().ok_or("no session was made")?;
    Ok(system.entrance.from(address).sign_on(&install).await?.0)
}

/// Answers pings until the socket is gone.
async fn hold(mut socket: Socket) {
    while let Some(Ok(_)) = socket.next().await {}
}

impl Seen {
    /// People sign in, one after the other.
    async fn sign_in(&mut self, url: &str, count: u16) {
        for number in 0..count {
            let url = url.to_owned();
            // A task of its own, for whoever gets another page than it expects panics.
            let mut signing = JoinSet::new();
            signing.spawn(async move { login(&url, number).await });
            match signing.join_next().await {
                Some(Ok(time)) => self.times.push(time),
                Some(Err(_)) | None => self.failed += 1,
            }
        }
    }
}

fn report(options: &Options, seen: [Seen; 3], lost: usize, as_json: bool) -> Result<(), Failure> {
    let failed: u32 = seen.iter().map(|seen| seen.failed).sum();
    let counts = seen.each_ref().map(|seen| (seen.times.len(), seen.failed));
    if counts.iter().any(|(good, _)| *good == 0) {
        return Err(format!("nobody could sign in: {counts:?} were signed in and refused").into());
    }

    let times = seen.map(|seen| Times::of(seen.times));
    let medians = times.each_ref().map(|times| times.at(500).as_secs_f64());
    let title = format!(
        "sign-ins while {} addresses of one /24 attack; {lost} of {NEIGHBOURS} editors there lost \
         their socket",
        options.strength.addresses
    );
    let mut report = Report::new(title, COLUMNS);
    for ((turn, times), ((good, failed), median)) in
        Turn::ALL.iter().zip(&times).zip(counts.iter().zip(medians))
    {
        let ratio = json!((median / medians[0] * 100.0).round() / 100.0);
        let (median, p90) = (milliseconds(times.at(500)), milliseconds(times.at(900)));
        report.row(vec![
            json!(turn.name()),
            json!(good),
            json!(failed),
            median,
            p90,
            ratio,
        ]);
    }

    report.print(as_json)?;

    let ratio = medians[2] / medians[1];
    if failed > 0 || lost > 0 {
        return Err(
            format!("{failed} sign-ins failed, and {lost} neighbours lost their socket").into(),
        );
    }

    if ratio > options.most {
        return Err(
            format!("under attack a sign-in takes {ratio:.2} times as long as beside one").into(),
        );
    }

    Ok(())
}
