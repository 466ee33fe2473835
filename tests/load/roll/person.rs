//! Persons who sign their editors in through the pages, and go on as the pages' scripts do when a
//! part of the system moves.

use std::time::Duration;

use futures_util::StreamExt as _;
use http::StatusCode;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};
use vvs_client::{Event, Input, Options, Outcome, Profile};
use vvs_proto::Secret;
use vvs_tests::{Browser, Page, Secrets};

use crate::Failure;

/// How often a page that waits for an editor, or for a relay, is looked at again, and the pause
/// before.
const ROUNDS: usize = 60;
const PAUSE: Duration = Duration::from_secs(1);

/// What came of a bare login.
pub(crate) enum Signed {
    In,
    /// The editor was sent away before. It has no ticket.
    Interrupted,
}

/// The reference editor signs in; the person types the code from the browser into it.
pub(crate) async fn login(url: &str, profile: Profile, thought: Duration) -> Result<(), Failure> {
    let options = Options {
        typed: true,
        ..Options::new(url.parse()?, profile)
    };
    let name = options.profile.name().to_owned();
    let (person, inputs) = mpsc::channel(1);
    let (link, linked) = oneshot::channel();
    let (mut link, mut changed) = (Some(link), false);
    let (asks, mut asked) = watch::channel(0);
    let signing_in = Box::pin(vvs_client::login(&options, inputs, |event| {
        if let Event::Pending { .. } = event {
            asks.send_modify(|asks| *asks += 1);
        }

        if let Event::Link {
            login_url,
            changed: again,
            ..
        } = event
        {
            changed |= again;
            if let Some(link) = link.take() {
                link.send(login_url).ok();
            }
        }
    }));
    let approving = async {
        let link = linked.await?;
        let mut visit = Visit::begin(url, &link, &name, thought).await?;
        let code = visit
            .approve()
            .await?
            .ok_or("an editor with a key is signed in without a code")?;

        // The editor asks for it again when it has moved.
        let typing = async {
            let mut answered = 0;
            loop {
                answered = *asked.wait_for(|asks| *asks > answered).await?;
                sleep(thought).await;
                person
                    .send(Input::Code(Secret::new(code.clone())))
                    .await
                    .ok();
            }
        };

        tokio::select! {
            followed = visit.follow() => followed,
            failed = typing => failed,
        }
    };

    let (outcome, ()) = tokio::try_join!(async { Ok::<_, Failure>(signing_in.await?) }, approving)?;
    if changed {
        return Err("the login had to begin again".into());
    }

    if matches!(outcome, Outcome::SignedIn { .. }) {
        Ok(())
    } else {
        Err(outcome.to_string().into())
    }
}

/// An editor that says nothing of itself.
pub(crate) async fn bare_login(
    url: &str,
    number: u32,
    thought: Duration,
) -> Result<Signed, Failure> {
    let address = url.strip_prefix("http://").ok_or("not a plain URL")?;
    let stream = TcpStream::connect(address).await?;
    let (mut editor, _) = client_async(format!("ws://{address}/ws"), stream).await?;
    let first = frame(&mut editor).await?;
    let link = first["loginUrl"]
        .as_str()
        .ok_or("a first frame without a link")?
        .to_owned();
    let name = format!("bare{number}");
    let approving = async {
        let mut visit = Visit::begin(url, &link, &name, thought).await?;
        if visit.approve().await?.is_some() {
            return Err("a bare editor is to show a code".into());
        }
        visit.succeeded().await
    };

    let signing_in = async {
        let told = frame(&mut editor).await?;
        match told["type"].as_str() {
            Some("reconnect") => Ok(Signed::Interrupted),
            Some("auth:success") => {
                // Reads on, which is how it acknowledges.
                while let Some(Ok(_)) = editor.next().await {}
                Ok(Signed::In)
            }
            _ => Err(Failure::from(format!(
                "{} instead of a token",
                told["type"]
            ))),
        }
    };

    tokio::pin!(approving);

    tokio::select! {
        approved = &mut approving => approved.map(|()| Signed::In),
        signed = signing_in => match signed? {
            Signed::In => approving.await.map(|()| Signed::In),
            Signed::Interrupted => Ok(Signed::Interrupted),
        },
    }
}

/// The next frame; pings are answered on the way.
async fn frame(editor: &mut WebSocketStream<TcpStream>) -> Result<Value, Failure> {
    loop {
        let message = editor.next().await.ok_or("the socket is gone")??;
        match message {
            Message::Text(text) => return Ok(serde_json::from_str(&text)?),
            Message::Close(_) => return Err("the socket was closed".into()),
            Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_) => {}
        }
    }
}

/// A browser on its way through one login.
struct Visit {
    browser: Browser,
    id: String,
    approval: Page,
}

impl Visit {
    /// To the page that asks for the decision.
    async fn begin(url: &str, link: &str, name: &str, thought: Duration) -> Result<Self, Failure> {
        let path = link.strip_prefix(url).ok_or("a link to somewhere else")?;
        let (_, id) = path
            .split_once("connection_id=")
            .ok_or("a link without a login")?;
        let mut browser = Browser::at(url, &Secrets::default());
        sleep(thought).await;
        let form = until(&mut browser, path, "name=\"email\"").await?;
        let (email, csrf) = (format!("{name}@example.com"), form.field("csrf"));
        let fields = [
            ("email", &*email),
            ("name", name),
            ("connection_id", id),
            ("csrf", &csrf),
        ];
        let signed_in = browser.post("/dev/sign-in", &fields).await;
        if signed_in.status != StatusCode::SEE_OTHER {
            return Err(told("the sign-in", &signed_in));
        }

        let approval = until(&mut browser, &signed_in.location(), "name=\"confirmed\"").await?;
        sleep(thought).await;

        Ok(Self {
            browser,
            id: id.to_owned(),
            approval,
        })
    }

    /// Approves until that has come to something: a code to type, or nothing more to do.
    async fn approve(&mut self) -> Result<Option<String>, Failure> {
        for _ in 0..ROUNDS {
            let answer = self.browser.approve(&self.approval).await;
            match (answer.status, answer.code()) {
                (StatusCode::OK, Some(code)) => return Ok(Some(code)),
                (StatusCode::SEE_OTHER, _) => return Ok(None),
                // A page that waits, or tries again, by itself.
                (StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE, _)
                    if answer.body.contains("role=\"status\"") => {}
                _ => return Err(told("the approval", &answer)),
            }
            sleep(PAUSE).await;
        }

        Err("the approval comes to nothing".into())
    }

    /// As the page with the code does: waits until the editor is signed in.
    async fn follow(&mut self) -> Result<(), Failure> {
        let mut known = "HELD".to_owned();
        for _ in 0..ROUNDS {
            let path = format!("/login/status?connection_id={}&known={known}", self.id);
            let answer = self.browser.get(&path).await;
            if answer.status != StatusCode::OK {
                return Err(told("the status", &answer));
            }

            let state: Value = serde_json::from_str(&answer.body)?;
            match state["state"].as_str().unwrap_or_default() {
                "ACKED" => return self.succeeded().await,
                state @ ("HELD" | "SENT") => state.clone_into(&mut known),
                _ => match self.approve().await? {
                    Some(_) => "HELD".clone_into(&mut known),
                    None => return self.succeeded().await,
                },
            }

            sleep(PAUSE).await;
        }

        Err("the browser does not hear of the editor's token".into())
    }

    async fn succeeded(&mut self) -> Result<(), Failure> {
        let page = self
            .browser
            .get(&format!("/auth-success?connection_id={}", self.id))
            .await;
        if page.status == StatusCode::OK {
            Ok(())
        } else {
            Err(told("the success", &page))
        }
    }
}

/// The page at a path, once it has this on it. What waits for an editor looks again by itself.
async fn until(browser: &mut Browser, path: &str, part: &str) -> Result<Page, Failure> {
    for _ in 0..ROUNDS {
        let page = browser.get(path).await;
        if page.status != StatusCode::OK {
            return Err(told(path.split('?').next().unwrap_or_default(), &page));
        }
        if page.body.contains(part) {
            return Ok(page);
        }
        sleep(PAUSE).await;
    }
    Err("a page goes on waiting".into())
}

fn told(what: &str, page: &Page) -> Failure {
    let heading = page
        .body
        .split_once("<h1")
        .and_then(|(_, rest)| rest.split_once("</h1>"))
        .map_or("", |(text, _)| text);
    let text = heading
        .split_once('>')
        .map_or(page.body.as_str(), |(_, text)| text);

    format!(
        "{what}: {} {}",
        page.status,
        text.chars().take(200).collect::<String>()
    )
    .into()
}
