//! A stand-in for Clerk: its Backend and Frontend APIs on one plain port, with people, session
//! tokens, keys that change, webhooks, and faults. The real ClerkJS signs in with it. What is not
//! asked of Clerk for signing in is not there.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response};
use serde_json::{Value, json};

use crate::front::Front;
use crate::{Browser, Chromium, Secrets, Stack, tool};

mod backend;
mod frontend;
mod key;
mod state;
mod webhook;

pub use state::{Address, PASSWORD, User};
pub use webhook::Webhook;

use key::Key;
use state::{State, now_ms};

/// An instance of Clerk.
#[derive(Debug)]
pub struct Clerk {
    front: Front,
    instance: Arc<Instance>,
    webhook_secret: Vec<u8>,
    files: tempfile::TempDir,
}

#[derive(Debug)]
struct Instance {
    /// Whether browsers are known by a parameter in place of a cookie.
    development: bool,
    issuer: String,
    publishable_key: String,
    secret_key: String,
    /// Of the names of cookies.
    suffix: String,
    state: Mutex<State>,
    /// Of those who want to know what must not be seen.
    secrets: Mutex<Vec<Secrets>>,
}

impl Clerk {
    /// A production instance with nobody in it.
    pub fn start() -> Self {
        Self::start_as("live", "clerk.vvs.example")
    }

    /// A development instance, for which ClerkJS is a different program in part.
    pub fn start_development() -> Self {
        Self::start_as("test", "upright-stand-in-01.clerk.accounts.dev")
    }

    fn start_as(kind: &str, host: &str) -> Self {
        let publishable_key = format!("pk_{kind}_{}", STANDARD_NO_PAD.encode(format!("{host}$")));
        let hash = digest::digest(
            &digest::SHA1_FOR_LEGACY_USE_ONLY,
            publishable_key.as_bytes(),
        );
        let instance = Arc::new(Instance {
            development: kind == "test",
            issuer: format!("https://{host}"),
            suffix: URL_SAFE_NO_PAD.encode(hash)[..8].to_owned(),
            publishable_key,
            secret_key: format!("sk_{kind}_{}", random()),
            state: Mutex::new(State::new()),
            secrets: Mutex::default(),
        });
        let webhook_secret = random().into_bytes();
        let files = tempfile::tempdir().unwrap();
        let write = |name, text: &str| std::fs::write(files.path().join(name), text).unwrap();
        write("secret.key", &instance.secret_key);
        write(
            "webhook.key",
            &format!("whsec_{}", STANDARD.encode(&webhook_secret)),
        );
        write("jwt.pem", &instance.state.lock().unwrap().key().pem);
        let (front, answering) = (Front::new(), instance.clone());
        front.answer(move |request| answering.answer(request));

        Self {
            front,
            instance,
            webhook_secret,
            files,
        }
    }

    /// What listens: faults, and counts of requests.
    pub fn front(&self) -> &Front {
        &self.front
    }

    /// Where both of its APIs are: the API URL and the proxy URL.
    pub fn url(&self) -> &str {
        self.front.url()
    }

    /// The issuer of its tokens: the frontend API that the publishable key names.
    pub fn issuer(&self) -> &str {
        &self.instance.issuer
    }

    pub fn publishable_key(&self) -> &str {
        &self.instance.publishable_key
    }

    /// The end of the names of its cookies.
    pub fn suffix(&self) -> &str {
        &self.instance.suffix
    }

    pub fn secret_key_file(&self) -> PathBuf {
        self.files.path().join("secret.key")
    }

    pub fn webhook_secret_file(&self) -> PathBuf {
        self.files.path().join("webhook.key")
    }

    /// The public half of the key that it signs with at first.
    pub fn jwt_key_file(&self) -> PathBuf {
        self.files.path().join("jwt.pem")
    }

    /// Settings with which a stack signs people in here.
    pub fn flags(&self) -> Vec<String> {
        let path = |path: PathBuf| path.to_str().unwrap().to_owned();
        [
            ["--web-identity".to_owned(), "clerk".to_owned()],
            [
                "--web-clerk-publishable-key".to_owned(),
                self.publishable_key().to_owned(),
            ],
            [
                "--web-clerk-secret-key-file".to_owned(),
                path(self.secret_key_file()),
            ],
            ["--web-clerk-api-url".to_owned(), self.url().to_owned()],
            ["--web-clerk-proxy-url".to_owned(), self.url().to_owned()],
            [
                "--web-clerk-webhook-secret-file".to_owned(),
                path(self.webhook_secret_file()),
            ],
        ]
        .concat()
    }

    /// From now on this stack must keep to itself what is secret here, every token too.
    pub fn guard(&self, stack: &Stack) {
        let secrets = stack.secrets().clone();
        secrets.add(&self.instance.secret_key);
        secrets.add(&STANDARD.encode(&self.webhook_secret));
        self.instance.secrets.lock().unwrap().push(secrets);
    }

    /// Someone who can sign in from now on; the id.
    pub fn add(&self, user: User) -> String {
        let id = user.id.clone();
        self.instance
            .state
            .lock()
            .unwrap()
            .users
            .insert(id.clone(), user);
        id
    }

    pub fn change(&self, user_id: &str, change: impl FnOnce(&mut User)) {
        change(
            self.instance
                .state
                .lock()
                .unwrap()
                .users
                .get_mut(user_id)
                .unwrap(),
        );
    }

    pub fn delete(&self, user_id: &str) {
        self.instance
            .state
            .lock()
            .unwrap()
            .users
            .remove(user_id)
            .unwrap();
    }

    /// A session of a browser that nobody sees; its id.
    pub fn sign_in(&self, user_id: &str) -> String {
        let mut state = self.instance.state.lock().unwrap();
        let client_id = state.id("client");
        state.sign_in(user_id, &client_id)
    }

    /// `revoked`, `ended`, `removed` or whatever else a session may become.
    pub fn end(&self, session_id: &str, status: &str) {
        let mut state = self.instance.state.lock().unwrap();
        status.clone_into(&mut state.sessions.get_mut(session_id).unwrap().status);
    }

    pub fn session_status(&self, session_id: &str) -> String {
        self.instance.state.lock().unwrap().sessions[session_id]
            .status
            .clone()
    }

    /// A fresh session token for a page of this origin.
    pub fn token(&self, session_id: &str, origin: &str) -> String {
        self.token_with(session_id, origin, |_, _| {})
    }

    /// One of which header and claims are changed before it is signed.
    pub fn token_with(
        &self,
        session_id: &str,
        origin: &str,
        change: impl FnOnce(&mut Value, &mut Value),
    ) -> String {
        self.instance.token(
            &mut self.instance.state.lock().unwrap(),
            session_id,
            Some(origin),
            change,
        )
    }

    /// One that someone has signed who does not have the key, and who names it all the same.
    pub fn token_by_stranger(&self, session_id: &str, origin: &str) -> String {
        let mut state = self.instance.state.lock().unwrap();
        let (header, claims) = state.token(session_id, &self.instance.issuer, Some(origin));
        Key::generate(String::new()).sign(&header, &claims)
    }

    /// Puts a token where ClerkJS does.
    pub fn give(&self, browser: &mut Browser, token: &str) {
        let time = (now_ms() / 1000).to_string();
        for (name, value) in [("__session", token), ("__client_uat", &time)] {
            browser.cookies.insert(name.to_owned(), value.to_owned());
            browser
                .cookies
                .insert(format!("{name}_{}", self.suffix()), value.to_owned());
        }
    }

    /// A new key signs from now on. The old one can still be had.
    pub fn rotate(&self) {
        self.instance.state.lock().unwrap().rotate();
    }

    /// Only the key that signs can be had.
    pub fn withdraw(&self) {
        let keys = &mut self.instance.state.lock().unwrap().keys;
        keys.drain(..keys.len() - 1);
    }

    /// An event of this kind.
    pub fn webhook(&self, kind: &str, data: &Value) -> Webhook {
        let id = self.instance.state.lock().unwrap().id("msg");
        let (time, attributes) = (
            now_ms(),
            json!({"http_request": {"client_ip": "", "user_agent": ""}}),
        );
        let event = json!({
            "object": "event", "type": kind, "timestamp": time, "instance_id": "ins_stand_in", "data": data,
            "event_attributes": attributes,
        });
        Webhook::new(id, time / 1000, event.to_string(), &self.webhook_secret)
    }

    pub fn user_deleted(&self, user_id: &str) -> Webhook {
        self.webhook(
            "user.deleted",
            &json!({"object": "user", "id": user_id, "deleted": true}),
        )
    }

    /// With the person as they are now.
    pub fn user_updated(&self, user_id: &str) -> Webhook {
        let user = self.instance.state.lock().unwrap().users[user_id].json();
        self.webhook("user.updated", &user)
    }

    /// `session.revoked`, `session.ended` or `session.removed`, with the session as it is now.
    pub fn session_event(&self, kind: &str, session_id: &str) -> Webhook {
        let session = self.instance.state.lock().unwrap().sessions[session_id].json();
        self.webhook(kind, &session)
    }

    /// Signs in at the components that a page has mounted.
    pub async fn sign_in_with(&self, chromium: &Chromium, address: &str) {
        chromium.wait_for("//input[@name='identifier']").await;
        chromium.fill("input[name=identifier]", address).await;
        chromium.click(".cl-formButtonPrimary").await;
        chromium
            .wait_for("//*[contains(@class, 'cl-signIn-password')]//input[@name='password']")
            .await;
        chromium.fill("input[name=password]", PASSWORD).await;
        chromium.click(".cl-formButtonPrimary").await;
    }

    /// Signs up at them, where nobody has this address.
    pub async fn sign_up_with(&self, chromium: &Chromium, address: &str) {
        chromium.wait_for("//input[@name='identifier']").await;
        chromium.fill("input[name=identifier]", address).await;
        chromium.click(".cl-formButtonPrimary").await;
        chromium
            .wait_for("//input[@autocomplete='new-password']")
            .await;
        chromium.fill("input[name=password]", PASSWORD).await;
        chromium.click(".cl-formButtonPrimary").await;
    }
}

/// The folder with ClerkJS: what a browser loads is in `@clerk/clerk-js/dist` and `@clerk/ui/dist`.
pub fn scripts() -> PathBuf {
    tool::path("clerk")
}

impl Instance {
    fn answer(&self, request: &Request<Bytes>) -> Response<Bytes> {
        let path: Vec<_> = request.uri().path().split('/').skip(1).collect();
        match &path[..] {
            [".well-known", "jwks.json"] => {
                backend::answer(&key::jwks(&self.state.lock().unwrap().keys))
            }
            ["v1", "client" | "environment" | "dev_browser", ..] => {
                self.frontend(request, &path[1..])
            }
            ["v1", ..] => self.backend(request, &path[1..]),
            ["npm", "@clerk", package, "dist", file] => script(package, file),
            _ => backend::not_found(),
        }
    }

    fn token(
        &self,
        state: &mut State,
        session_id: &str,
        origin: Option<&str>,
        change: impl FnOnce(&mut Value, &mut Value),
    ) -> String {
        let (mut header, mut claims) = state.token(session_id, &self.issuer, origin);
        change(&mut header, &mut claims);
        let token = state.key().sign(&header, &claims);
        self.secrets
            .lock()
            .unwrap()
            .iter()
            .for_each(|secrets| secrets.add(&token));
        token
    }
}

/// A file of a package, whatever version of it is asked for.
fn script(package: &str, file: &str) -> Response<Bytes> {
    let name = package.split('@').next().unwrap();
    match std::fs::read(scripts().join("@clerk").join(name).join("dist").join(file)) {
        Ok(text) => Response::builder()
            .header(CONTENT_TYPE, "text/javascript")
            .body(Bytes::from(text))
            .unwrap(),
        Err(_) => backend::not_found(),
    }
}

/// Random text that nobody guesses.
fn random() -> String {
    let mut bytes = [0; 24];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    URL_SAFE_NO_PAD.encode(bytes)
}
