//! Somebody at a browser, whose pages do what their scripts do: deliver again, ask for news, go on.
//! Whatever does not answer is loaded again.

use std::fmt;
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::sleep;
use vvs_tests::{Browser, Page};

use super::Site;
use super::chance::Chance;

/// What the browser shows in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Succeeded,
    /// With this page.
    Failed(String),
}

/// What the browser does next.
#[derive(Debug, Clone)]
enum Step {
    Get(String),
    Post(&'static str, Vec<(&'static str, String)>),
    End(Verdict),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get(path) => write!(f, "GET {path}"),
            Self::Post(path, _) => write!(f, "POST {path}"),
            Self::End(verdict) => write!(f, "{verdict:?}"),
        }
    }
}

#[derive(Debug)]
pub(super) struct Person {
    site: Site,
    chance: Chance,
    browser: Browser,
    name: String,
    /// A page of the present login has been seen.
    has_seen: bool,
    /// It was sent to the page that says so.
    is_told: bool,
}

impl Person {
    pub(super) fn new(site: &Site, name: &str, chance: Chance) -> Self {
        let browser = Browser::at(&site.url, &site.secrets);
        Self {
            site: site.clone(),
            chance,
            browser,
            name: name.to_owned(),
            has_seen: false,
            is_told: false,
        }
    }

    /// Follows an editor's link to the end. The code on its way back to the editor goes to `code`.
    pub(super) async fn approve(
        &mut self,
        link: &str,
        code: &watch::Sender<Option<String>>,
    ) -> Verdict {
        (self.has_seen, self.is_told) = (false, false);
        let mut step = Step::Get(link.to_owned());
        let who = format!("person before {link}");

        loop {
            self.site.books.stage(&who, step.to_string());
            step = match step {
                Step::End(verdict) => {
                    self.site.books.ended(&who);
                    return verdict;
                }
                Step::Get(_) | Step::Post(..) => match self.go(&step).await {
                    Some(page) => self.next(page, link, code).await,
                    None => step,
                },
            };
        }
    }

    /// `None` when there is nothing to see but that it should be tried again.
    async fn go(&mut self, step: &Step) -> Option<Page> {
        let page = match step {
            Step::Get(path) => self.browser.try_get(path).await,
            Step::Post(path, fields) => {
                let fields: Vec<_> = fields
                    .iter()
                    .map(|(name, value)| (*name, value.as_str()))
                    .collect();
                self.browser.try_post(path, &fields).await
            }
            Step::End(_) => None,
        };

        let is_ours = page
            .as_ref()
            .is_some_and(|page| page.status.is_redirection() || page.body.contains("<main"));
        if is_ours {
            return page;
        }

        self.site.books.count("pages loaded again");
        self.pause().await;

        None
    }

    async fn pause(&mut self) {
        sleep(self.chance.millis(200, 1000)).await;
    }

    async fn next(&mut self, page: Page, link: &str, code: &watch::Sender<Option<String>>) -> Step {
        if page.status == StatusCode::SEE_OTHER {
            let location = page.location();
            self.is_told |= location.starts_with("/auth-success");
            return Step::Get(location);
        }

        let has = |text: &str| page.body.contains(text);
        let same = |action| {
            let fields = ["connection_id", "csrf"].map(|name| (name, page.field(name)));
            Step::Post(
                action,
                [&fields[..], &[("confirmed", "yes".to_owned())]].concat(),
            )
        };
        if has("data-deliver") {
            self.site.books.count("deliveries made again");
            self.pause().await;
            return same("/login/approve");
        }

        if has("data-status") {
            return self.wait(link).await;
        }

        if has("data-resume") {
            return same("/login/approve");
        }

        if has("data-connection") {
            code.send_replace(page.code());
            let connection = page.field("connection_id");
            return if self.watch(&connection).await {
                Step::Get(format!("/auth-success?connection_id={connection}"))
            } else {
                same("/login/approve")
            };
        }

        if has("name=\"confirmed\"") {
            self.has_seen = true;
            return same("/login/approve");
        }

        if has("action=\"/dev/sign-in\"") {
            self.has_seen = true;
            let mut fields = vec![
                ("email", format!("{}@example.com", self.name)),
                ("name", self.name.clone()),
            ];
            fields.extend(["connection_id", "csrf"].map(|name| (name, page.field(name))));
            return Step::Post("/dev/sign-in", fields);
        }

        self.end(&page, link).await
    }

    /// A page that nothing leads on from.
    async fn end(&mut self, page: &Page, link: &str) -> Step {
        let title = page
            .body
            .split_once("<h1>")
            .and_then(|(_, rest)| Some(rest.split_once("</h1>")?.0));
        let title = title.unwrap_or(&page.body);
        if page.status == StatusCode::OK && title == "Your editor is signed in" {
            return Step::End(Verdict::Succeeded);
        }

        // "Try again", and a link that leads to a login that its editor is about to bring back.
        if page.status.is_server_error() || (page.status == StatusCode::GONE && !self.has_seen) {
            self.site.books.count("pages that said try again");
            self.pause().await;
            return Step::Get(link.to_owned());
        }

        if self.is_told {
            self.site.books.wrong(&format!(
                "{} was told that its editor is signed in, and then: {title}",
                self.name
            ));
        }

        Step::End(Verdict::Failed(format!("{} {title}", page.status)))
    }

    /// The state of a login, once there is news; `None` when nobody can say, as long as that may
    /// pass.
    async fn state(&mut self, connection: &str, known: &str) -> Option<String> {
        let page = self
            .browser
            .try_get(&format!(
                "/login/status?connection_id={connection}&known={known}"
            ))
            .await?;
        if page.status == StatusCode::TOO_MANY_REQUESTS || page.status.is_server_error() {
            return None;
        }

        // The edge's own words, or a browser that has not seen the login yet, are no state that
        // anybody knows.
        let answer = serde_json::from_str::<Value>(&page.body).unwrap_or_default();

        Some(answer["state"].as_str().unwrap_or("none").to_owned())
    }

    /// The page that waits for an editor to come back.
    async fn wait(&mut self, link: &str) -> Step {
        self.has_seen = true;
        let (_, connection) = link.split_once('=').unwrap();

        loop {
            self.pause().await;
            if self
                .state(connection, "AWAY")
                .await
                .is_some_and(|state| state != "AWAY")
            {
                return Step::Get(link.to_owned());
            }
        }
    }

    /// The page that has handed the code over: whether the editor has used it. Otherwise the
    /// delivery is to be made again.
    async fn watch(&mut self, connection: &str) -> bool {
        let mut known = "HELD".to_owned();
        loop {
            if let Some(state) = self
                .state(connection, &known)
                .await
                .filter(|state| state != "none")
            {
                known = state;
            }

            match known.as_str() {
                "ACKED" => return true,
                "HELD" | "SENT" => self.pause().await,
                _ => return false,
            }
        }
    }

    /// Ends a session on the page of the person's editors, and returns when that page says so.
    pub(super) async fn revoke(&mut self, session_id: &str) {
        while self.try_revoke(session_id).await.is_none() {
            self.site.books.count("revocations tried again");
            self.pause().await;
        }
    }

    async fn try_revoke(&mut self, session_id: &str) -> Option<()> {
        let mut list = self.account().await?;
        if list.status != StatusCode::OK {
            let form = self
                .browser
                .try_get("/account/sign-in")
                .await
                .filter(|page| page.status == StatusCode::OK)?;
            let email = format!("{}@example.com", self.name);
            let fields = [
                ("email", &*email),
                ("name", &self.name),
                ("csrf", &form.field("csrf")),
            ];
            self.browser.try_post("/dev/sign-in", &fields).await?;
            list = self
                .account()
                .await
                .filter(|page| page.status == StatusCode::OK)?;
        }

        let csrf = list.field("csrf");
        let path = format!("/account/sessions/{session_id}/revoke");
        let done = self.browser.try_post(&path, &[("csrf", &csrf)]).await?;

        (done.status == StatusCode::SEE_OTHER && done.location().contains("done=")).then_some(())
    }

    async fn account(&mut self) -> Option<Page> {
        let page = self.browser.try_get("/account/sessions").await?;
        (page.status == StatusCode::OK || page.status == StatusCode::SEE_OTHER).then_some(page)
    }
}

/// How long an editor may take to hear of its end, when nothing is wrong any more.
pub(super) const BOUND: Duration = Duration::from_secs(12);
