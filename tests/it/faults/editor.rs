//! An editor that wants to be signed in, and goes on trying; and the person before it.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};
use vvs_client::DeviceKey;

use super::Site;
use super::chance::Chance;
use super::line::Line;
use super::person::BOUND;

mod login;
mod session;

/// How the browser that approves is tied to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bare,
    Typed,
    Link,
}

/// What it keeps.
#[derive(Debug, Clone)]
struct Credential {
    key: Option<DeviceKey>,
    token: String,
    session_id: String,
    refresh_at: Instant,
}

/// The server has ended the session, in these words.
type Over = String;

#[derive(Debug)]
pub(super) struct Editor {
    number: u64,
    kind: Kind,
    site: Site,
    chance: Chance,
    line: Option<Line>,
    failures: u32,
    credential: Option<Credential>,
    /// What the present login has pushed: the message and the session.
    pushed: Option<(Value, Value)>,
    /// Whose sessions are over.
    ended: Vec<Credential>,
}

impl Editor {
    pub(super) fn new(number: u64, site: Site) -> Self {
        let mut chance = Chance::of(site.seed, number);
        let kind = chance.pick(&[Kind::Bare, Kind::Typed, Kind::Link, Kind::Typed, Kind::Link]);

        Self {
            number,
            kind,
            site,
            chance,
            line: None,
            failures: 0,
            credential: None,
            pushed: None,
            ended: Vec::new(),
        }
    }

    fn stage(&self, stage: &str) {
        self.site.books.stage(
            &format!("editor {}", self.number),
            format!("{:?} {stage}", self.kind),
        );
    }

    fn wrong(&self, what: &str) {
        let session = self
            .credential
            .as_ref()
            .map_or("none", |credential| &credential.session_id);
        self.site.books.wrong(&format!(
            "editor {} ({:?}, session {session}): {what}",
            self.number, self.kind
        ));
    }

    /// Until everything is healed, and then it says what it has.
    pub(super) async fn live(mut self) {
        self.stage("not begun");
        sleep(self.chance.millis(0, 12_000)).await;

        loop {
            self.sign_in().await;
            self.site.books.count("signed in");
            if !Box::pin(self.use_session()).await {
                break;
            }
            self.line = None;
            if self.site.is_healed() {
                break;
            }
        }

        self.stage("waiting for the end");
        let settled = self.site.healed_for(BOUND);
        self.hold_to_the_end(settled).await;
        self.account_for().await;
        self.site.books.ended(&format!("editor {}", self.number));
    }

    async fn hold_to_the_end(&mut self, settled: impl Future<Output = ()>) {
        if self.credential.is_none() {
            settled.await;
        } else if let Err(why) = self.hold(settled).await {
            self.wrong(&format!("signed out without a reason: {why}"));
            self.end();
        }
    }

    /// Is signed in, for a time. Whether it is signed out again.
    async fn use_session(&mut self) -> bool {
        for _ in 0..self.chance.between(1, 4) {
            self.stage("signed in");
            let (time, healed) = (
                self.chance.millis(300, 5000),
                self.site.healed_for(Duration::ZERO),
            );
            let until = async {
                tokio::select! { () = sleep(time) => {}, () = healed => {} }
            };

            if let Err(why) = self.hold(until).await {
                self.wrong(&format!("signed out without a reason: {why}"));
                self.end();
                return true;
            }

            if self.chance.one_in(2) {
                // A window is closed and opened again, or a machine sleeps.
                self.line = None;
            }
        }

        match self.chance.between(0, 10) {
            0..4 => Box::pin(self.be_revoked()).await,
            4..6 => self.log_out().await,
            _ => return false,
        }

        true
    }

    fn end(&mut self) {
        self.line = None;
        self.ended.extend(self.credential.take());
    }

    /// When everything is as it should be: what it has is good, and what it had is not.
    async fn account_for(&mut self) {
        if self.credential.is_some() {
            self.stage("showing what it has");
            self.line = None;

            while self.line.is_none() {
                if let Err(why) = self.sign_on().await {
                    self.wrong(&format!("signed out without a reason: {why}"));
                    return;
                }
            }

            self.site
                .books
                .hold(&self.credential.as_ref().unwrap().session_id);
            self.line.take().unwrap().close().await;
        }

        self.stage("showing what is over");

        for over in std::mem::take(&mut self.ended) {
            self.credential = Some(over);
            let refused = loop {
                match self.sign_on().await {
                    Err(why) => break why,
                    Ok(()) if self.line.is_some() => break "signed on".to_owned(),
                    Ok(()) => {}
                }
            };

            if refused != "revoked" {
                self.wrong(&format!(
                    "its session is over, and it is answered {refused}"
                ));
            }

            self.line = None;
        }
    }
}
