//! Webhooks as Svix delivers them.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http::header::{CONTENT_TYPE, HOST};
use http_body_util::Full;

use crate::{Page, Stack};

/// One delivery. Whoever changes a part of it has a forged one.
#[derive(Debug, Clone)]
pub struct Webhook {
    pub id: String,
    /// Seconds since 1970.
    pub timestamp: i64,
    pub signature: String,
    pub body: String,
    secret: Vec<u8>,
}

impl Webhook {
    pub(super) fn new(id: String, timestamp: i64, body: String, secret: &[u8]) -> Self {
        let mut webhook = Self {
            id,
            timestamp,
            signature: String::new(),
            body,
            secret: secret.to_owned(),
        };
        webhook.sign();
        webhook
    }

    /// Signed by someone who does not have the secret.
    #[must_use]
    pub fn forged(&self) -> Self {
        Self::new(
            self.id.clone(),
            self.timestamp,
            self.body.clone(),
            b"another secret of twenty-four",
        )
    }

    /// Signed that many seconds later than it was, or earlier.
    #[must_use]
    pub fn moved_by(&self, seconds: i64) -> Self {
        Self::new(
            self.id.clone(),
            self.timestamp + seconds,
            self.body.clone(),
            &self.secret,
        )
    }

    /// With another id, and signed: not a second delivery of the same event.
    #[must_use]
    pub fn named(&self, id: &str) -> Self {
        Self::new(
            id.to_owned(),
            self.timestamp,
            self.body.clone(),
            &self.secret,
        )
    }

    /// Comes after a signature that does not match, as when a secret is changed.
    #[must_use]
    pub fn after_another_signature(mut self) -> Self {
        self.signature = format!("{} {}", self.forged().signature, self.signature);
        self
    }

    fn sign(&mut self) {
        let signed = format!("{}.{}.{}", self.id, self.timestamp, self.body);
        let tag = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, &self.secret),
            signed.as_bytes(),
        );
        self.signature = format!("v1,{}", STANDARD.encode(tag));
    }

    /// As a request to an origin's host.
    pub fn request(&self, host: &str) -> Request<Full<Bytes>> {
        let request = Request::post("/webhooks/clerk")
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/json");
        let request = request
            .header("svix-id", &self.id)
            .header("svix-timestamp", self.timestamp);
        let request = request
            .header("svix-signature", &self.signature)
            .header("user-agent", "Svix-Webhooks/1.0");
        request.body(Full::from(self.body.clone())).unwrap()
    }

    /// Delivers it, and returns what the stack says to that.
    pub async fn send(&self, stack: &Stack) -> Page {
        let addresses = stack.addresses();
        stack
            .browser()
            .send(
                addresses.public,
                self.request(addresses.public_url.authority()),
            )
            .await
    }
}
