//! Which faults happen when, and that they happen.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use vvs_auth::peer::Role;
use vvs_tests::Wire;
use vvs_tests::cluster::{Cluster, Member};

use super::books::Books;
use super::chance::Chance;

/// What a fault hits; the numbers are those of the cluster's members, of their ways, and of its
/// servers.
#[derive(Debug, Clone, Copy)]
enum Target {
    Member(usize),
    Nats(usize),
    WayToMember(usize, usize),
    WayToNats(usize),
    WayToDatabase,
}

/// What happens to it.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    Terminate,
    Stop,
    Refuse,
    /// By this time in each direction.
    Slow(Duration),
}

/// A fault, when it begins, and for how long.
#[derive(Debug)]
struct Event {
    at: Duration,
    lasts: Duration,
    target: usize,
    fault: Fault,
}

/// All faults of a run.
#[derive(Debug)]
pub(super) struct Schedule {
    targets: Vec<Target>,
    events: Vec<Event>,
}

impl Schedule {
    /// The same for the same seed.
    pub(super) fn of(seed: u64, length: Duration, cluster: &Cluster) -> Self {
        let mut chance = Chance::of(seed, 0);
        let (targets, mut events, mut at) = (targets(cluster), Vec::new(), Duration::from_secs(1));

        loop {
            at += chance.millis(200, 1500);
            let lasts = chance.millis(200, 5000);
            if at + lasts > length {
                return Self { targets, events };
            }

            // Processes more often than the ways between them, which are many.
            let is_process = !chance.one_in(4);
            let fits = |target: &&Target| {
                matches!(target, Target::Member(_) | Target::Nats(_)) == is_process
            };
            let fitting: Vec<_> = targets
                .iter()
                .enumerate()
                .filter(|(_, target)| fits(target))
                .collect();
            let (target, _) = chance.pick(&fitting);
            let fault = match targets[target] {
                Target::Member(_) => chance.pick(&[Fault::Kill, Fault::Terminate, Fault::Stop]),
                Target::Nats(_) => chance.pick(&[Fault::Kill, Fault::Stop]),
                Target::WayToMember(..) | Target::WayToNats(_) | Target::WayToDatabase => {
                    let slow = Fault::Slow(chance.millis(20, 1500));
                    chance.pick(&[Fault::Refuse, slow])
                }
            };

            events.push(Event {
                at,
                lasts,
                target,
                fault,
            });
        }
    }

    /// Lets them happen. When it returns, everything is there again.
    pub(super) async fn happen(self, cluster: &Arc<Cluster>, books: &Arc<Books>) {
        let (start, mut happening) = (Instant::now(), JoinSet::new());
        // What is still being restarted is hit afterwards.
        let turns: Vec<_> = self
            .targets
            .iter()
            .map(|_| Arc::<Mutex<()>>::default())
            .collect();
        for Event {
            at,
            lasts,
            target,
            fault,
        } in self.events
        {
            let (cluster, books, turn, target) = (
                cluster.clone(),
                books.clone(),
                turns[target].clone(),
                self.targets[target],
            );
            happening.spawn(async move {
                sleep_until(start + at).await;
                let _turn = turn.lock().await;
                books.tell(&format!(
                    "{fault:?} {} for {lasts:?}",
                    name(target, &cluster)
                ));
                happen(fault, target, lasts, &cluster, &books).await;
            });
        }

        while let Some(ended) = happening.join_next().await {
            ended.unwrap();
        }
    }
}

fn targets(cluster: &Cluster) -> Vec<Target> {
    let mut targets = vec![Target::WayToDatabase];
    for (number, member) in cluster.members.iter().enumerate() {
        if member.role != Role::Gateway {
            targets.push(Target::Member(number));
        }
        targets.extend((0..member.ways().count()).map(|way| Target::WayToMember(number, way)));
    }

    targets.extend(
        (0..cluster.nats.len())
            .flat_map(|number| [Target::Nats(number), Target::WayToNats(number)]),
    );

    targets
}

fn name(target: Target, cluster: &Cluster) -> String {
    match target {
        Target::Member(number) => cluster.members[number].name.clone(),
        Target::Nats(number) => format!("nats {number}"),
        Target::WayToMember(number, way) => {
            format!("way {way} to {}", cluster.members[number].name)
        }
        Target::WayToNats(number) => format!("way to nats {number}"),
        Target::WayToDatabase => "way to the database".to_owned(),
    }
}

async fn happen(fault: Fault, target: Target, lasts: Duration, cluster: &Cluster, books: &Books) {
    match target {
        Target::Member(number) => hit(&cluster.members[number], fault, lasts, cluster, books).await,
        Target::Nats(number) => {
            let server = &cluster.nats[number].0;
            match fault {
                Fault::Stop => {
                    server.lock().await.freeze();
                    sleep(lasts).await;
                    server.lock().await.thaw();
                }
                Fault::Kill | Fault::Terminate | Fault::Refuse | Fault::Slow(_) => {
                    server.lock().await.stop();
                    sleep(lasts).await;
                    server.lock().await.restart().await;
                }
            }
        }
        Target::WayToMember(number, way) => {
            hamper(
                cluster.members[number].ways().nth(way).unwrap(),
                fault,
                lasts,
            )
            .await;
        }
        Target::WayToNats(number) => hamper(&cluster.nats[number].1, fault, lasts).await,
        Target::WayToDatabase => hamper(&cluster.to_database, fault, lasts).await,
    }
}

/// A process is gone, or stands still, and goes on.
async fn hit(member: &Member, fault: Fault, lasts: Duration, cluster: &Cluster, books: &Books) {
    if member.has_ended().await {
        books.wrong(&format!(
            "{} has ended by itself: {}",
            member.name,
            member.log().await
        ));
    }

    let log = member.log().await;
    match fault {
        Fault::Stop => {
            member.signal("STOP").await;
            sleep(lasts).await;
            member.signal("CONT").await;
            return;
        }
        Fault::Kill => member.kill().await,
        Fault::Terminate | Fault::Refuse | Fault::Slow(_) => {
            let code = member.terminate().await;
            if code != 0 {
                books.wrong(&format!(
                    "{} was told to end, and ended with {code}: {log}",
                    member.name
                ));
            }
        }
    }

    errors(member, &log, books);
    sleep(lasts).await;
    cluster.launch(member).await;
}

/// A log line at ERROR means that a person must act, and no fault here asks for one.
pub(super) fn errors(member: &Member, log: &str, books: &Books) {
    for line in log.lines().filter(|line| line.contains(" ERROR ")) {
        books.wrong(&format!("{} says: {line}", member.name));
    }
}

/// A way is closed, or everything takes longer on it.
async fn hamper(way: &Wire, fault: Fault, lasts: Duration) {
    if let Fault::Slow(delay) = fault {
        way.slow_down(delay);
        sleep(lasts).await;
        way.slow_down(Duration::ZERO);
    } else {
        way.refuse().await;
        sleep(lasts).await;
        way.accept();
    }
}
