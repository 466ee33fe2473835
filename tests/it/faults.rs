//! The whole installation under faults: processes are killed, stopped and told to end, connections
//! refused and delayed, while many editors sign in, stay signed in and are signed out. When all is
//! healed, what everybody was told must be so.
//!
//! `VVS_FAULT_SEED=7` runs that seed, `VVS_FAULT_SEEDS=20` the first twenty; a seed always makes
//! the same faults and the same wishes of people, though not the same order of packets.
//! `VVS_FAULT_LOG` is the log level of the processes.

mod books;
mod chance;
mod editor;
mod leak;
mod line;
mod person;
mod schedule;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use vvs_tests::Secrets;
use vvs_tests::cluster::Cluster;

use self::books::{Books, say};
use self::editor::Editor;
use self::schedule::Schedule;

/// How long there are faults.
const FAULTS: Duration = Duration::from_secs(25);
const EDITORS: u64 = 70;
/// How long everybody may take to come to an end when all is healed.
const SETTLING: Duration = Duration::from_mins(2);

/// What each editor and each person knows.
#[derive(Debug, Clone)]
struct Site {
    seed: u64,
    url: String,
    secrets: Secrets,
    books: Arc<Books>,
    healed: watch::Receiver<bool>,
}

impl Site {
    fn is_healed(&self) -> bool {
        *self.healed.borrow()
    }

    /// Returns when everything has been well for so long.
    fn healed_for(&self, time: Duration) -> impl Future<Output = ()> + use<> {
        let mut healed = self.healed.clone();
        async move {
            healed.wait_for(|healed| *healed).await.unwrap();
            sleep(time).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_books_balance_after_faults() {
    let number =
        |name| std::env::var_os(name).map(|text| text.to_str().unwrap().parse::<u64>().unwrap());
    let seeds = match (number("VVS_FAULT_SEED"), number("VVS_FAULT_SEEDS")) {
        (Some(seed), _) => seed..=seed,
        (None, count) => 1..=count.unwrap_or(1),
    };

    let mut all = Vec::new();
    for seed in seeds {
        let wrongs = run(seed).await;
        if !wrongs.is_empty() {
            all.push(format!(
                "VVS_FAULT_SEED={seed} repeats this:\n{}",
                wrongs.join("\n")
            ));
        }
    }

    assert!(all.is_empty(), "{}", all.join("\n"));
}

/// What was wrong in the end.
async fn run(seed: u64) -> Vec<String> {
    say(&format!("seed {seed}: VVS_FAULT_SEED={seed} repeats it"));
    let level = std::env::var_os("VVS_FAULT_LOG").map_or("warn".to_owned(), |level| {
        level.to_str().unwrap().to_owned()
    });
    let flags = [
        ["--log", &level],
        ["--sessions-token-ttl", "20s"],
        ["--relay-heartbeat-interval", "3s"],
        ["--relay-heartbeat-timeout", "4s"],
        // All come from one address.
        ["--gateway-max-connections-per-address", "20000"],
        ["--gateway-requests-per-minute", "1000000"],
        ["--gateway-connections-per-minute", "1000000"],
        ["--relay-max-logins-per-address", "100000"],
        ["--relay-handshakes-per-minute", "1000000"],
        ["--relay-handshake-burst", "1000000"],
    ];
    let cluster = Arc::new(Cluster::start(flags.as_flattened()).await);
    let before = leak::usage(&cluster).await;
    let books = Arc::new(Books::new());
    let (heal, healed) = watch::channel(false);
    let (url, secrets) = (cluster.url().to_owned(), cluster.secrets.clone());
    let site = Site {
        seed,
        url,
        secrets,
        books: books.clone(),
        healed,
    };
    let mut editors = JoinSet::new();
    for number in 1..=EDITORS {
        editors.spawn(Editor::new(number, site.clone()).live());
    }

    Schedule::of(seed, FAULTS, &cluster)
        .happen(&cluster, &books)
        .await;
    for member in &cluster.members {
        cluster.until_ready(member, SETTLING).await;
    }

    books.tell(&format!("healed: {}", books.counts()));
    heal.send_replace(true);
    let ending = async {
        while let Some(ended) = editors.join_next().await {
            ended.unwrap();
        }
    };

    if timeout(SETTLING, ending).await.is_err() {
        for editor in books.unfinished() {
            books.wrong(&format!("it does not come to an end: {editor}"));
        }
        editors.shutdown().await;
    }

    let query = "SELECT id FROM sessions WHERE activated_at IS NOT NULL AND revoked_at IS NULL";
    books.compare(
        &cluster
            .database
            .texts(query)
            .await
            .into_iter()
            .collect::<BTreeSet<_>>(),
    );
    leak::look(&cluster, &before, &books).await;
    books.tell(&format!("in the end: {}", books.counts()));
    let wrongs = books.wrongs();
    if !wrongs.is_empty() {
        for member in &cluster.members {
            say(&format!(
                "what {} says:\n{}",
                member.name,
                member.log().await
            ));
        }
    }

    assert!(
        books.counted("signed in") >= EDITORS,
        "the run was none: {}",
        books.counts()
    );

    wrongs
}
