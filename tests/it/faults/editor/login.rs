//! How an editor signs in: through as many sockets as it takes, and with a person who follows its
//! link.

use serde_json::{Value, json};
use tokio::sync::watch;
use vvs_client::{DeviceKey, Use};
use vvs_tests::introduction;

use super::super::chance::Chance;
use super::super::line::{Heard, Line};
use super::super::person::{BOUND, Person, Verdict};
use super::{Credential, Editor, Kind};

const RETURN_URI: &str = "vvs://auth/complete";

/// A sign-in under way.
#[derive(Debug)]
struct Login {
    link: String,
    key: Option<DeviceKey>,
    ticket: Option<String>,
    is_pending: bool,
}

impl Editor {
    pub(super) async fn sign_in(&mut self) {
        let name = format!("user{}", self.number / 2);
        let mut person = Person::new(
            &self.site,
            &name,
            Chance::of(self.site.seed, self.number + 1_000_000),
        );

        loop {
            self.stage("beginning a login");
            self.pushed = None;
            let mut login = self.begin().await;
            self.site.books.count("logins begun");
            self.stage(&format!("login {}", login.link));
            let ((code, coming), (told, hearing)) = (watch::channel(None), watch::channel(None));
            let link = login.link.clone();
            let approving = async {
                told.send_replace(Some(person.approve(&link, &code).await));
                std::future::pending::<()>().await;
            };

            let verdict = tokio::select! {
                verdict = self.follow(&mut login, coming, hearing) => verdict,
                () = approving => None,
            };
            if self.judge(verdict) {
                return;
            }

            self.line = None;
        }
    }

    /// Whether this login is what it wanted. `verdict`: what the browser was told; `None` when the
    /// editor lost the login before.
    fn judge(&mut self, verdict: Option<Verdict>) -> bool {
        match (verdict, self.credential.is_some()) {
            (Some(Verdict::Succeeded), true) => return true,
            (Some(Verdict::Succeeded), false) => {
                self.wrong("the browser was told that it is signed in, and it is not");
            }
            (verdict, _) if self.kind != Kind::Bare => {
                self.wrong(&format!("the login was lost: {verdict:?}"));
            }
            (Some(Verdict::Failed(_)), _) => {
                self.site.books.count("bare logins told to have failed");
            }
            (None, true) => {
                self.site
                    .books
                    .count("bare logins of which the browser did not hear");
                return true;
            }
            (None, false) => self.site.books.count("bare logins lost with their socket"),
        }

        if let Some(credential) = self.credential.take() {
            self.site.books.doubt(&credential.session_id);
        }

        false
    }

    /// A login of which the person may see the link.
    async fn begin(&mut self) -> Login {
        loop {
            if let Some((line, connection)) = Line::open(&self.site, "/ws").await {
                self.line = Some(line);
                let id = connection["connectionId"].as_str().unwrap();
                let link = format!("/login?connection_id={id}");
                let mut login = Login {
                    link,
                    key: None,
                    ticket: None,
                    is_pending: false,
                };

                if self.kind == Kind::Bare || self.introduce(&mut login).await {
                    return login;
                }
            }

            self.pause().await;
        }
    }

    /// Says hello; whether that was taken.
    async fn introduce(&mut self, login: &mut Login) -> bool {
        let key = DeviceKey::generate().unwrap();
        let line = self.line.as_mut().unwrap();
        let proof = line.proof(&key, Use::Hello, None);
        let return_uri = (self.kind == Kind::Link).then_some(RETURN_URI);
        line.send(introduction(&key, return_uri, &proof)).await;

        match line.answer().await {
            Heard::Frame(frame) if frame["type"] == "hello:ok" => {
                login.key = Some(key);
                login.ticket = Some(frame["ticket"].as_str().unwrap().to_owned());
                true
            }
            Heard::Frame(frame) if frame["type"] == "reconnect" => false,
            Heard::Frame(frame) => {
                self.wrong(&format!("hello was answered with {frame}"));
                false
            }
            Heard::Closed(_) => false,
        }
    }

    /// Until the browser has been told how it ended, or the login is lost.
    async fn follow(
        &mut self,
        login: &mut Login,
        mut code: watch::Receiver<Option<String>>,
        mut told: watch::Receiver<Option<Verdict>>,
    ) -> Option<Verdict> {
        loop {
            let done = || {
                let mut told = told.clone();
                async move {
                    told.wait_for(Option::is_some)
                        .await
                        .map(|verdict| verdict.clone())
                        .ok()
                        .flatten()
                }
            };
            if self.credential.is_some() {
                self.stage(&format!("login {}, has its token", login.link));
                let (mut verdict, settled) = (None, self.site.healed_for(BOUND));
                let is_bare = self.kind == Kind::Bare;
                let until = async {
                    tokio::select! {
                        told = done() => verdict = told,
                        // Its person sees that it is signed in, and closes a page that cannot know
                        // it: the answer to the approval was lost, and with the relay whoever knew
                        // of the login.
                        () = settled, if is_bare => {}
                    }
                };

                let held = self.hold(until).await;
                let verdict = told.borrow().clone().or(verdict);
                if let Err(why) = held {
                    if self.kind != Kind::Bare || verdict == Some(Verdict::Succeeded) {
                        self.wrong(&format!("signed out while signing in: {why}"));
                    }
                    self.end();
                }

                return verdict;
            }

            if self.line.is_none() && !self.resume(login).await {
                return None;
            }

            let brought = code.borrow_and_update().clone();
            if let Some(brought) = brought.filter(|_| std::mem::take(&mut login.is_pending)) {
                let method = if self.kind == Kind::Link {
                    "link"
                } else {
                    "typed"
                };
                let line = self.line.as_mut().unwrap();
                line.send(json!({"type": "auth:complete", "code": brought, "method": method}))
                    .await;
            }

            tokio::select! {
                heard = self.line.as_mut().unwrap().hear() => {
                    if !self.take(login, heard).await {
                        return told.borrow_and_update().clone();
                    }
                }
                Ok(()) = code.changed() => {}
                verdict = done() => return verdict,
            }
        }
    }

    /// Something has come on the socket of a login; `false` when that is its end.
    async fn take(&mut self, login: &mut Login, heard: Heard) -> bool {
        match heard {
            Heard::Frame(frame) => match frame["type"].as_str().unwrap() {
                "auth:pending" => login.is_pending = true,
                "auth:success" => self.receive(&frame, login.key.clone()).await,
                "reconnect" => self.line = None,
                _ => self.wrong(&format!("in a login came {frame}")),
            },
            Heard::Closed(code) => {
                self.line = None;
                if code == Some(4503) && self.kind != Kind::Bare {
                    self.wrong("the login was closed with 4503");
                    return false;
                }
            }
        }

        self.line.is_some() || login.ticket.is_some()
    }

    /// A token, pushed for the first time or again.
    pub(super) async fn receive(&mut self, frame: &Value, key: Option<DeviceKey>) {
        let push = (frame["messageId"].clone(), frame["session"]["id"].clone());
        if self.pushed.as_ref().is_some_and(|before| *before != push) {
            self.wrong(&format!(
                "one login, two pushes: {:?} and {push:?}",
                self.pushed
            ));
        }

        self.site.books.count("tokens pushed");
        self.pushed = Some(push);
        let seconds = frame["tokenExpiresIn"].as_u64().unwrap();
        self.credential = Some(Credential {
            key,
            token: frame["token"].as_str().unwrap().to_owned(),
            session_id: frame["session"]["id"].as_str().unwrap().to_owned(),
            refresh_at: self.refresh_at(seconds),
        });

        if self.kind != Kind::Bare {
            let ack = json!({"type": "auth:ack", "messageId": frame["messageId"], "ok": true});
            self.line.as_mut().unwrap().send(ack).await;
        }
    }

    /// Takes the login to another socket, however long that takes; `false` when there is none any
    /// more.
    async fn resume(&mut self, login: &mut Login) -> bool {
        let (Some(key), Some(_)) = (login.key.clone(), &login.ticket) else {
            return false;
        };

        loop {
            self.pause().await;
            login.is_pending = false;
            let Some((mut line, _)) = Line::open(&self.site, "/ws?for=session").await else {
                continue;
            };

            let proof = line.proof(&key, Use::Resume, None);
            line.send(json!({"type": "resume", "ticket": login.ticket, "proof": proof}))
                .await;
            let Heard::Frame(frame) = line.answer().await else {
                continue;
            };

            match (frame["type"].as_str().unwrap(), frame["code"].as_str()) {
                ("connection", _) => {}
                ("reconnect", _) | ("auth:error", Some("not_ready")) => continue,
                _ => {
                    self.wrong(&format!("resume was answered with {frame}"));
                    return false;
                }
            }

            let Heard::Frame(hello) = line.answer().await else {
                continue;
            };

            let Some(ticket) = hello["ticket"].as_str() else {
                continue;
            };

            login.ticket = Some(ticket.to_owned());
            self.site.books.count("logins resumed");
            self.line = Some(line);
            self.failures = 0;
            return true;
        }
    }
}
