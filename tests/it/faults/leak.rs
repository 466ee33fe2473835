//! What is left when all editors are gone.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use vvs_auth::peer::Role;
use vvs_tests::cluster::{Cluster, Member, Usage};

use super::books::Books;
use super::schedule::errors;

/// Connections between processes that come and go: pools, streams, NATS. Editors had many more.
const MORE_DESCRIPTORS: usize = 20;
/// What a process may have grown by: code that ran for the first time, and what the allocator
/// keeps.
const MORE_KIB: u64 = 48 * 1024;
/// How long sockets may take to be closed.
const CLOSING: Duration = Duration::from_secs(40);

/// Of each member, in their order.
pub(super) async fn usage(cluster: &Cluster) -> Vec<Usage> {
    let mut all = Vec::new();
    for member in &cluster.members {
        all.push(member.usage().await);
    }
    all
}

/// Compares with what there was before the first editor.
pub(super) async fn look(cluster: &Cluster, before: &[Usage], books: &Books) {
    let until = Instant::now() + CLOSING;
    for (member, before) in cluster.members.iter().zip(before) {
        if member.has_ended().await {
            books.wrong(&format!("{} has ended by itself", member.name));
            continue;
        }

        errors(member, &member.log().await, books);
        let left = loop {
            let left = left(cluster, member, *before).await;
            if left.is_empty() || Instant::now() > until {
                break left;
            }
            sleep(Duration::from_millis(200)).await;
        };

        let now = member.usage().await;
        books.tell(&format!(
            "{}: {} descriptors ({} at first), {} KiB ({} at first)",
            member.name, now.descriptors, before.descriptors, now.resident_kib, before.resident_kib
        ));

        for left in left {
            books.wrong(&format!("{} keeps {left}", member.name));
        }
    }
}

async fn left(cluster: &Cluster, member: &Member, before: Usage) -> Vec<String> {
    let mut left = Vec::new();
    let gauge = match member.role {
        Role::Relay => Some("vvs_connections"),
        Role::Gateway => Some("vvs_gateway_member_in_flight"),
        Role::Web | Role::Sessions | Role::Backend => None,
    };

    if let Some(gauge) = gauge {
        let value = cluster.metric(member, gauge).await;
        if value != 0.0 {
            left.push(format!("{gauge} {value}"));
        }
    }

    let now = member.usage().await;
    if now.descriptors > before.descriptors + MORE_DESCRIPTORS {
        left.push(format!(
            "{} descriptors, of {} at first",
            now.descriptors, before.descriptors
        ));
    }

    if now.resident_kib > before.resident_kib + MORE_KIB {
        left.push(format!(
            "{} KiB, of {} at first",
            now.resident_kib, before.resident_kib
        ));
    }

    left
}
