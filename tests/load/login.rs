//! Whole logins, through the pages, beside a floor of as many round trips.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vvs_auth::peer::Role;
use vvs_proto::relay::relay_client::RelayClient;
use vvs_proto::relay::{DeliverAuthRequest, GetLoginRequest};
use vvs_runtime::trace::TracedChannel;
use vvs_tests::{Browser, Editor, Secrets, crowd};

use crate::Failure;
use crate::editor::{Entrance, next};
use crate::report::{Report, Times, milliseconds, number};
use crate::system::{Hop, System, channel};

/// Pages that a person's browser asks for: the sign-in, its form, the approval, its form.
const PAGES: usize = 4;
/// How often each server has its turn.
const ROUNDS: usize = 5;
const COLUMNS: &[&str] = &[
    "server",
    "logins a second",
    "median ms",
    "p99 ms",
    "processor ms each",
];

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// How many editors are signed in, and as many at the floor
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..))]
    logins: u16,
    /// Logins under way at once; more than 16 from one address want higher limits than there are by
    /// themselves
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1000))]
    at_once: u16,
    /// Sign in at a system that runs already, instead of servers started for the run:
    /// `http://ADDRESS:PORT`, with the development sign-in, since no tool can sign in at another.
    /// Its gateway's limits (`VVS_GATEWAY_REQUESTS_PER_MINUTE`,
    /// `VVS_GATEWAY_CONNECTIONS_PER_MINUTE`) must allow it. Its users stay signed in
    #[arg(long)]
    url: Option<String>,
    /// A process of that system on this machine, whose processor time counts; several with commas
    /// between
    #[arg(long, value_delimiter = ',', requires = "url")]
    pid: Vec<u32>,
}

/// What was seen of one server.
#[derive(Default)]
struct Seen {
    times: Vec<Duration>,
    elapsed: Duration,
    processor_time: Option<Duration>,
}

pub(crate) async fn run(options: &Options, as_json: bool) -> Result<(), Failure> {
    let data = tempfile::tempdir()?;
    let floor = System::start(data.path(), Hop::Floor, &[]).await?;
    let system = match &options.url {
        Some(url) => System::existing(url, options.pid.clone())?,
        None => System::all(data.path(), &crowd::FLAGS).await?,
    };

    let client = bare(data.path(), &floor).await?;
    if let Some(url) = &options.url {
        check(url).await?;
    }

    let mut seen = [Seen::default(), Seen::default()];
    let logins: Vec<_> = (0..options.logins).collect();
    for turn in logins.chunks(logins.len().div_ceil(ROUNDS)) {
        let bare = turn
            .iter()
            .map(|_| bare_login(&floor.entrance, client.clone()));
        seen[0]
            .turn(
                &floor,
                stream::iter(bare)
                    .buffer_unordered(options.at_once.into())
                    .try_collect(),
            )
            .await?;

        let whole = turn
            .iter()
            .map(|number| login(&system.entrance.origin, *number));
        seen[1]
            .turn(
                &system,
                stream::iter(whole)
                    .buffer_unordered(options.at_once.into())
                    .map(Ok)
                    .try_collect(),
            )
            .await?;
    }

    let title = format!(
        "{} whole logins through the pages, {} at once",
        options.logins, options.at_once
    );
    let mut report = Report::new(title, COLUMNS);
    for (seen, system) in seen.into_iter().zip([floor, system]) {
        let times = Times::of(seen.times);
        let logins = f64::from(options.logins);
        let each = seen
            .processor_time
            .map_or(Value::Null, |used| milliseconds(used.div_f64(logins)));
        let rate = number(logins / seen.elapsed.as_secs_f64());
        report.row(vec![
            json!(system.name),
            rate,
            milliseconds(times.at(500)),
            milliseconds(times.at(990)),
            each,
        ]);
        system.stop().await?;
    }

    report.print(as_json)
}

impl Seen {
    async fn turn(
        &mut self,
        system: &System,
        logins: impl Future<Output = Result<Vec<Duration>, Failure>>,
    ) -> Result<(), Failure> {
        system.until_quiet().await?;
        let (before, start) = (system.processor_time()?, Instant::now());
        self.times.extend(logins.await?);
        self.elapsed += start.elapsed();
        let used = system.used_since(before)?;
        self.processor_time = used.map(|used| used + self.processor_time.unwrap_or_default());
        Ok(())
    }
}

async fn bare(data: &Path, floor: &System) -> Result<RelayClient<TracedChannel>, Failure> {
    let calls = floor.calls.as_ref().ok_or("the floor takes no calls")?;
    let mut client = RelayClient::new(channel(data, Role::Relay, calls)?);
    // It dials at its first call, whatever comes of that.
    client.get_login(GetLoginRequest::default()).await.err();
    Ok(client)
}

/// A person can sign in there whom this program can play.
async fn check(url: &str) -> Result<(), Failure> {
    let secrets = Secrets::default();
    let editor = Editor::at(url, &secrets).await;
    let page = Browser::at(url, &secrets).get(&editor.login_path()).await;
    if page.body.contains("/dev/sign-in") {
        Ok(())
    } else {
        Err("that system has no development sign-in".into())
    }
}

/// As many connections and round trips as a login has, with nothing in them but the delivery.
async fn bare_login(
    entrance: &Entrance,
    mut client: RelayClient<TracedChannel>,
) -> Result<Duration, Failure> {
    let start = Instant::now();
    let (mut socket, first) = entrance.open("").await?;
    for _ in 0..PAGES {
        let mut page = entrance.dial().await?;
        page.write_all(b"GET / HTTP/1.1\r\nhost: floor\r\n\r\n")
            .await?;
        page.read_to_end(&mut Vec::new()).await?;
    }

    let connection_id = first["connectionId"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let delivery = DeliverAuthRequest {
        connection_id,
        ..DeliverAuthRequest::default()
    };
    let (delivered, success) = tokio::join!(client.deliver_auth(delivery), next(&mut socket));
    delivered?;
    success?;

    Ok(start.elapsed())
}

/// From an editor that connects to its token and a page that says so; how long that took.
pub(crate) async fn login(url: &str, number: u16) -> Duration {
    let (start, secrets) = (Instant::now(), Secrets::default());
    let mut editor = Editor::at(url, &secrets).await;
    let mut browser = Browser::at(url, &secrets);
    let approval = browser.sign_in(&editor, &format!("user{number}")).await;
    let (approved, success) = tokio::join!(browser.approve(&approval), async {
        let success = editor.next().await;
        editor.read_on().await;
        success
    });
    assert_eq!(
        (approved.status, &success["type"]),
        (StatusCode::SEE_OTHER, &json!("auth:success"))
    );

    start.elapsed()
}
