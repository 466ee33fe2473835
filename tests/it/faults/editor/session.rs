//! How an editor stays signed in, and how it is signed out.

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};
use vvs_client::Use;

use super::super::chance::Chance;
use super::super::line::{Heard, Line};
use super::super::person::{BOUND, Person};
use super::{Editor, Over};

/// Being signed in.
impl Editor {
    pub(super) fn refresh_at(&mut self, seconds: u64) -> Instant {
        Instant::now() + self.chance.millis(seconds * 500, seconds * 1000 + 1)
    }

    /// Longer each time, as long as nothing comes about.
    pub(super) async fn pause(&mut self) {
        self.failures += 1;
        let most = 300 * u64::from(self.failures.min(8));
        sleep(self.chance.millis(50, most)).await;
    }

    /// Stays signed in until then, through as many sockets as it takes.
    pub(super) async fn hold(&mut self, until: impl Future<Output = ()>) -> Result<(), Over> {
        let mut until = std::pin::pin!(until);
        loop {
            if self.line.is_none() {
                tokio::select! {
                    () = &mut until => return Ok(()),
                    signed_on = self.sign_on() => signed_on?,
                }
                continue;
            }

            let credential = self.credential.as_ref().unwrap();
            let refresh_at = credential.key.as_ref().map(|_| credential.refresh_at);
            let due = async {
                match refresh_at {
                    Some(refresh_at) => sleep_until(refresh_at).await,
                    None => std::future::pending().await,
                }
            };

            tokio::select! {
                () = &mut until => return Ok(()),
                heard = self.line.as_mut().unwrap().hear() => self.hear(heard).await?,
                () = due => self.refresh().await,
            }
        }
    }

    async fn refresh(&mut self) {
        // Asked again if there is no answer by then.
        let again = Instant::now() + self.chance.millis(3000, 5000);
        let credential = self.credential.as_mut().unwrap();
        credential.refresh_at = again;
        let line = self.line.as_mut().unwrap();
        let proof = line.proof(credential.key.as_ref().unwrap(), Use::Refresh, None);
        line.send(json!({"type": "token:refresh", "proof": proof}))
            .await;
    }

    async fn hear(&mut self, heard: Heard) -> Result<(), Over> {
        match heard {
            Heard::Frame(frame) => self.frame(&frame).await,
            Heard::Closed(code) => {
                self.line = None;
                match code {
                    Some(4500 | 4501) => Err(format!("closed with {code:?}")),
                    Some(1009 | 4502 | 4503) => {
                        self.wrong(&format!("closed with {code:?}"));
                        Ok(())
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    async fn frame(&mut self, frame: &Value) -> Result<(), Over> {
        match frame["type"].as_str().unwrap() {
            "auth:token" => {
                self.fresh(frame);
                self.site.books.count("refreshed");
            }
            // The acknowledgement was not read: the login was delivered again on the same socket.
            "auth:success" => {
                let key = self.credential.as_ref().unwrap().key.clone();
                self.receive(frame, key).await;
            }
            "reconnect" => self.line = None,
            "session:revoked" => return Err(format!("revoked: {}", frame["reason"])),
            "session:expiring" => {}
            "auth:failure" if frame["terminal"] == true => return Err(frame["code"].to_string()),
            "auth:failure"
                if ["unavailable", "token_expired"].contains(&frame["code"].as_str().unwrap()) => {}
            "error" if frame["code"] == "not_now" => {
                self.site.books.count("frames that came too early");
            }
            _ => self.wrong(&format!("came {frame}")),
        }

        Ok(())
    }

    fn fresh(&mut self, frame: &Value) {
        let refresh_at = self.refresh_at(frame["tokenExpiresIn"].as_u64().unwrap());
        let credential = self.credential.as_mut().unwrap();
        frame["token"]
            .as_str()
            .unwrap()
            .clone_into(&mut credential.token);
        credential.refresh_at = refresh_at;
    }

    /// Shows its token on a new socket; it may have to be tried again.
    pub(super) async fn sign_on(&mut self) -> Result<(), Over> {
        self.pause().await;
        let Some((mut line, _)) = Line::open(&self.site, "/ws?for=session").await else {
            return Ok(());
        };

        for _ in 0..3 {
            let credential = self.credential.clone().unwrap();
            line.authenticate(&credential.token, credential.key.as_ref())
                .await;
            let Heard::Frame(frame) = line.answer().await else {
                return Ok(());
            };

            let code = frame["code"].as_str().unwrap_or_default();

            match frame["type"].as_str().unwrap() {
                "auth:ok" => {
                    if frame["session"]["id"] != credential.session_id {
                        self.wrong(&format!("signed on as {frame}"));
                    }
                    if frame["token"].is_string() {
                        self.fresh(&frame);
                    }
                    self.site.books.count("signed on");
                    (self.line, self.failures) = (Some(line), 0);
                    return Ok(());
                }
                "auth:failure" if frame["terminal"] == true => return Err(code.to_owned()),
                "session:revoked" => return Err("revoked".to_owned()),
                "auth:failure" if ["unavailable", "stale_feed"].contains(&code) => {
                    sleep(self.chance.millis(300, 1500)).await;
                }
                "reconnect" => return Ok(()),
                _ => {
                    self.wrong(&format!("authenticate was answered with {frame}"));
                    return Ok(());
                }
            }
        }

        Ok(())
    }
}

/// Its end.
impl Editor {
    /// Its person signs it out on the page of his editors.
    pub(super) async fn be_revoked(&mut self) {
        self.stage("being revoked");
        let session_id = self.credential.as_ref().unwrap().session_id.clone();
        let name = format!("user{}", self.number / 2);
        let chance = Chance::of(self.site.seed, self.number + 2_000_000);
        let mut person = Person::new(&self.site, &name, chance);
        let (site, stage) = (
            self.site.clone(),
            format!("{:?} revoked, and not told so", self.kind),
        );
        let number = self.number;
        let until = async {
            person.revoke(&session_id).await;
            site.books.count("revoked");
            site.books.stage(&format!("editor {number}"), stage);
            site.healed_for(BOUND).await;
        };

        let heard = Box::pin(self.hold(until)).await;
        match heard {
            Ok(()) => self.wrong("its session was revoked, and it is signed in"),
            Err(why) if why.contains("revoked") || why.contains("4500") => {}
            Err(why) => self.wrong(&format!("its session was revoked, and it was told {why}")),
        }

        self.end();
    }

    pub(super) async fn log_out(&mut self) {
        self.stage("logging out");

        loop {
            if self.line.is_none() {
                match self.sign_on().await {
                    Ok(()) if self.line.is_some() => {}
                    Ok(()) => continue,
                    // The answer before was lost.
                    Err(_) => break,
                }
            }

            let credential = self.credential.clone().unwrap();
            let line = self.line.as_mut().unwrap();
            let proof = credential
                .key
                .as_ref()
                .map(|key| line.proof(key, Use::Logout, None));
            line.send(json!({"type": "session:logout", "proof": proof}))
                .await;
            if self.is_logged_out().await {
                break;
            }

            self.pause().await;
        }

        self.site.books.count("logged out");
        self.end();
    }

    /// Past whatever else comes.
    async fn is_logged_out(&mut self) -> bool {
        loop {
            let Some(line) = &mut self.line else {
                return false;
            };

            match line.answer().await {
                Heard::Frame(frame) if frame["type"] == "session:ended" => return true,
                Heard::Frame(frame) => match self.frame(&frame).await {
                    Err(_) => return true,
                    Ok(()) if frame["type"] == "auth:failure" => return false,
                    Ok(()) => {}
                },
                Heard::Closed(_) => self.line = None,
            }
        }
    }
}
