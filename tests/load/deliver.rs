//! What a `DeliverAuth` costs, and how long it takes, beside the floor.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use prost_types::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use vvs_auth::peer::Role;
use vvs_mesh::pki;
use vvs_proto::relay::deliver_auth_response::Outcome;
use vvs_proto::relay::relay_client::RelayClient;
use vvs_proto::relay::{DeliverAuthRequest, GetLoginRequest, LoginState, Session};
use vvs_proto::types::User;
use vvs_runtime::tls::Identity;
use vvs_runtime::trace::TracedChannel;

use crate::child::TRUST_DOMAIN;
use crate::editor::Editors;
use crate::install::{Install, Sessions, uuid};
use crate::report::{Report, Times, count, milliseconds, number};
use crate::system::{Existing, Hop, System, channel};
use crate::{Failure, calls, plot};

/// Together with the rest of the message about 1.2 KB.
const TOKEN_BYTES: usize = 1000;
/// For as long as nothing is to expire.
const TTL: i64 = 24 * 3600;
const COLUMNS: &[&str] = &[
    "connections",
    "server",
    "median ms",
    "p90 ms",
    "p99 ms",
    "p99.9 ms",
    "a second",
    "processor µs each",
    "histogram µs",
];

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// How many editors are connected, at most 9000 through the gateway, which has two descriptors
    /// for each; several numbers with commas between are measured one after the other
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1000",
        value_parser = clap::value_parser!(u32).range(2..=15_000),
    )]
    connections: Vec<u32>,
    /// How often each server has its turn; each turn has new editors, since a login takes one
    /// sign-in
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Deliveries a second while latency is measured
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Calls under way at once while throughput is measured
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1000))]
    at_once: u16,
    /// Draws the processor time of a delivery against connections, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Where the relay of that system is called: HOST:PORT
    #[arg(
        long,
        value_name = "ADDRESS",
        requires = "url",
        help_heading = "A system that runs already"
    )]
    relay: Option<String>,
    #[command(flatten)]
    existing: Existing,
}

/// One of those that are compared.
struct Server {
    system: System,
    hop: Option<Hop>,
    client: RelayClient<TracedChannel>,
    /// How far a delivery has come when it is answered.
    done: LoginState,
    /// Who makes sessions that it can activate. Of servers started for the run, sessions says yes
    /// to anything.
    sessions: Option<Sessions>,
}

/// What was seen of one of them at one number of connections.
#[derive(Default)]
struct Seen {
    latencies: Vec<Duration>,
    deliveries: usize,
    elapsed: Duration,
    processor_time: Option<Duration>,
}

pub(crate) async fn run(options: &Options, as_json: bool) -> Result<(), Failure> {
    let data = tempfile::tempdir()?;
    pki::ensure(data.path(), TRUST_DOMAIN, time::OffsetDateTime::now_utc())?;
    let sessions = TcpListener::bind("127.0.0.1:0").await?;
    let address = sessions.local_addr()?.to_string();
    let mut playing = JoinSet::new();
    playing.spawn(calls::say_yes(
        sessions,
        Identity::load(pki::files(data.path(), Role::Sessions))?,
    ));
    let mut servers = vec![Server::start(data.path(), Hop::Floor, &[], LoginState::Sent).await?];
    if options.existing.is_chosen() {
        servers.push(Server::existing(options, data.path()).await?);
    } else {
        for hop in [Hop::Plain, Hop::Gateway] {
            let flags = ["--relay-sessions-addr", &*address];
            servers.push(Server::start(data.path(), hop, &flags, LoginState::Acked).await?);
        }
    }

    let title = format!(
        "DeliverAuth: {} a second for the latency, {} at once for the rest; {} rounds each",
        options.rate, options.at_once, options.rounds
    );
    let mut report = Report::new(title, COLUMNS);
    let line = |server: &Server| plot::Line {
        name: server.system.name,
        points: Vec::new(),
    };
    let mut lines: Vec<_> = servers.iter().map(line).collect();
    for connections in &options.connections {
        let mut seen: Vec<_> = servers.iter().map(|_| Seen::default()).collect();
        for _ in 0..options.rounds {
            for (server, seen) in servers.iter().zip(&mut seen) {
                server.turn(options, *connections, seen).await?;
            }
        }

        let floor = seen[0].all();

        for ((server, seen), line) in servers.iter().zip(&seen).zip(&mut lines) {
            let count = server.held(*connections);
            line.points.extend(
                seen.microseconds_each()
                    .map(|each| (f64::from(count), each)),
            );
            report.row(seen.row(count, server.system.name));

            if server.done == LoginState::Acked {
                let ratio = |(its, floor): (Option<f64>, &Option<f64>)| {
                    optional(its.zip(*floor).map(|(a, b)| a / b))
                };
                let ratios = seen.all().into_iter().zip(&floor).map(ratio);
                let head = [
                    json!(count),
                    json!(format!("{} / floor", server.system.name)),
                ];
                report.row(head.into_iter().chain(ratios).chain([json!([])]).collect());
            }
        }
    }

    report.print(as_json)?;
    if let Some(path) = &options.plot {
        let title = "Processor time of one delivery, in µs, against connections held";
        std::fs::write(path, plot::svg(title, &lines))?;
    }

    for Server {
        system, sessions, ..
    } in servers
    {
        system.stop().await?;
        if let Some(sessions) = sessions {
            sessions.stop().await?;
        }
    }

    Ok(())
}

impl Server {
    async fn start(
        data: &Path,
        hop: Hop,
        flags: &[&str],
        done: LoginState,
    ) -> Result<Self, Failure> {
        let system = System::start(data, hop, flags).await?;
        let channel = channel(
            data,
            Role::Relay,
            system.calls.as_ref().ok_or("it takes no calls")?,
        )?;
        Self::of(system, Some(hop), channel, done, None).await
    }

    async fn existing(options: &Options, data: &Path) -> Result<Self, Failure> {
        let address = options
            .relay
            .as_ref()
            .ok_or("deliveries to a system that runs already need --relay")?;
        let sessions = Sessions::of(&options.existing, data, &[]).await?;
        let channel = options.existing.channel(address)?;

        Self::of(
            options.existing.system().await?,
            None,
            channel,
            LoginState::Acked,
            Some(sessions),
        )
        .await
    }

    async fn of(
        system: System,
        hop: Option<Hop>,
        channel: TracedChannel,
        done: LoginState,
        sessions: Option<Sessions>,
    ) -> Result<Self, Failure> {
        let mut client = RelayClient::new(channel);
        // It dials at its first call, whatever comes of that.
        client.get_login(GetLoginRequest::default()).await.err();
        Ok(Self {
            system,
            hop,
            client,
            done,
            sessions,
        })
    }

    fn held(&self, connections: u32) -> u32 {
        self.hop.map_or(connections, |hop| hop.bounded(connections))
    }

    /// Connects editors, and gives each its sign-in: half of them, or a thousand, at the steady
    /// rate, and all others as fast as it goes.
    async fn turn(
        &self,
        options: &Options,
        connections: u32,
        seen: &mut Seen,
    ) -> Result<(), Failure> {
        let connections = usize::try_from(self.held(connections))?;
        let installs = match &self.sessions {
            Some(sessions) => sessions.make(connections).await?,
            None => Vec::new(),
        };

        let mut editors = Editors::connect(&self.system.entrance, connections).await?;
        let deliveries = editors
            .ids
            .iter()
            .enumerate()
            .map(|(place, id)| delivery(id, installs.get(place)));
        let deliveries = deliveries.collect::<Result<Vec<_>, _>>()?;
        let (paced, rest) = deliveries.split_at((connections / 2).min(1000));
        self.system.until_quiet().await?;
        let called = self.at_a_rate(paced, options.rate).await?;
        for _ in paced {
            let (editor, arrived) = editors.next().await?;
            let called = called
                .get(editor)
                .ok_or("an editor got what it should not")?;
            seen.latencies.push(arrived.duration_since(*called));
        }

        self.system.until_quiet().await?;
        let (before, start) = (self.system.processor_time()?, Instant::now());
        let delivering = rest
            .iter()
            .map(|delivery| deliver(self.client.clone(), delivery.clone(), self.done));
        stream::iter(delivering)
            .buffer_unordered(options.at_once.into())
            .try_collect::<Vec<_>>()
            .await?;
        for _ in rest {
            editors.next().await?;
        }

        seen.elapsed += start.elapsed();
        let used = self.system.used_since(before)?;
        seen.processor_time = used.map(|used| used + seen.processor_time.unwrap_or_default());
        seen.deliveries += rest.len();
        drop(editors);

        self.system.until_quiet().await
    }

    /// When each was called.
    async fn at_a_rate(
        &self,
        deliveries: &[DeliverAuthRequest],
        rate: u32,
    ) -> Result<Vec<Instant>, Failure> {
        let (start, pause) = (Instant::now(), Duration::from_secs(1) / rate);
        let mut calls = JoinSet::new();
        for (number, delivery) in deliveries.iter().enumerate() {
            sleep_until(start + pause * u32::try_from(number)?).await;
            let (client, delivery, done) = (self.client.clone(), delivery.clone(), self.done);
            calls.spawn(async move {
                Ok::<_, Failure>((number, deliver(client, delivery, done).await?))
            });
        }

        let mut called = vec![start; deliveries.len()];
        while let Some(done) = calls.join_next().await {
            let (number, at) = done??;
            called[number] = at;
        }

        Ok(called)
    }
}

fn delivery(connection_id: &str, install: Option<&Install>) -> Result<DeliverAuthRequest, Failure> {
    let until = Timestamp {
        seconds: time::OffsetDateTime::now_utc().unix_timestamp() + TTL,
        nanos: 0,
    };
    let request_id = uuid()?;
    let session_id =
        install.map_or_else(|| request_id.clone(), |install| install.session_id.clone());

    Ok(DeliverAuthRequest {
        request_id,
        connection_id: connection_id.to_owned(),
        token: install.map_or_else(|| "x".repeat(TOKEN_BYTES), |install| install.token.clone()),
        token_expires_at: Some(until),
        user: Some(User {
            id: "ada".to_owned(),
            email: Some("ada@example.com".to_owned()),
            ..User::default()
        }),
        session: Some(Session {
            id: session_id,
            expires_at: Some(until),
        }),
    })
}

/// Delivers, and makes sure that it has come as far as it should; when the call was made.
async fn deliver(
    mut client: RelayClient<TracedChannel>,
    delivery: DeliverAuthRequest,
    done: LoginState,
) -> Result<Instant, Failure> {
    let called = Instant::now();
    let answer = client.deliver_auth(delivery).await?.into_inner();
    let come = match answer.outcome {
        Some(Outcome::Held(_)) => LoginState::Held,
        Some(Outcome::Sent(_)) | None => LoginState::Sent,
        Some(Outcome::Acked(_)) => LoginState::Acked,
    };
    if come == done {
        Ok(called)
    } else {
        Err(format!("a delivery ended as {come:?}").into())
    }
}

impl Seen {
    fn microseconds_each(&self) -> Option<f64> {
        Some(self.processor_time?.as_secs_f64() * 1e6 / count(self.deliveries))
    }

    fn times(&self) -> (Times, [Duration; 4]) {
        let times = Times::of(self.latencies.clone());
        let some = [500, 900, 990, 999].map(|per_thousand| times.at(per_thousand));
        (times, some)
    }

    fn rate(&self) -> f64 {
        count(self.deliveries) / self.elapsed.as_secs_f64()
    }

    /// What is compared, in the order of the columns.
    fn all(&self) -> Vec<Option<f64>> {
        let times = self.times().1.map(|time| Some(time.as_secs_f64()));
        times
            .into_iter()
            .chain([Some(self.rate()), self.microseconds_each()])
            .collect()
    }

    fn row(&self, connections: u32, name: &str) -> Vec<Value> {
        let (times, some) = self.times();
        let mut row = vec![json!(connections), json!(name)];
        row.extend(some.map(milliseconds));
        row.extend([
            number(self.rate().round()),
            optional(self.microseconds_each()),
            times.histogram(),
        ]);
        row
    }
}

fn optional(value: Option<f64>) -> Value {
    value.map_or(Value::Null, number)
}
