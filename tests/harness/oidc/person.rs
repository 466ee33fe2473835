//! A person with a browser at the provider, as far as HTTP goes. Its cookies are the provider's,
//! and secrets of no one here.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;
use url::form_urlencoded;

use crate::Front;
use crate::stack::PATIENCE;

/// What is at the other end of a link.
enum Place {
    /// A page of the provider, with a form; its own path.
    Form { path: String, body: String },
    /// Somewhere else.
    Elsewhere(String),
}

/// Cookies at the provider.
#[derive(Debug)]
pub struct Person {
    url: String,
    cookies: BTreeMap<String, String>,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Person {
    pub(super) fn new(front: &Front) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self {
            url: front.url().to_owned(),
            cookies: BTreeMap::new(),
            client,
        }
    }

    /// Says who it is and consents, wherever it is asked to; where the provider sends it back to.
    /// Without questions it is signed in already.
    pub async fn sign_in(&mut self, authorization_url: &str, login: &str) -> String {
        let mut place = self.follow(authorization_url.to_owned()).await;
        loop {
            place = match place {
                Place::Elsewhere(url) => return url,
                Place::Form { path, body } if body.contains("name=\"login\"") => {
                    self.post(&path, &[("login", login)]).await
                }
                Place::Form { path, body } if body.contains("name=\"consent\"") => {
                    self.post(&path, &[("consent", "yes")]).await
                }
                Place::Form { body, .. } => panic!("the provider says {body}"),
            };
        }
    }

    /// Says who it is, and does not consent.
    pub async fn refuse(&mut self, authorization_url: &str, login: &str) -> String {
        let mut place = self.follow(authorization_url.to_owned()).await;
        loop {
            place = match place {
                Place::Elsewhere(url) => return url,
                Place::Form { path, body } if body.contains("name=\"login\"") => {
                    self.post(&path, &[("login", login)]).await
                }
                Place::Form { path, .. } => self.post(&path, &[("consent", "no")]).await,
            };
        }
    }

    /// Is sent to an address of the provider and back again without a question.
    pub async fn pass(&mut self, authorization_url: &str) -> String {
        match self.follow(authorization_url.to_owned()).await {
            Place::Elsewhere(url) => url,
            Place::Form { body, .. } => panic!("the provider asks {body}"),
        }
    }

    /// Ends its session at the provider, which tells the client of it before this returns.
    pub async fn sign_out(&mut self) {
        self.sign_out_at(&format!("{}/session/end", self.url)).await;
    }

    /// The same, as a client's link asks for it; where the provider sends it afterwards, if it
    /// does.
    pub async fn sign_out_at(&mut self, end_session_url: &str) -> Option<String> {
        let Place::Form { body, .. } = self.follow(end_session_url.to_owned()).await else {
            panic!("nothing is asked")
        };

        let (_, rest) = body
            .split_once("name=\"xsrf\" value=\"")
            .unwrap_or_else(|| panic!("the provider says {body}"));
        let (xsrf, _) = rest.split_once('"').unwrap();

        match self
            .post("/session/end/confirm", &[("xsrf", xsrf), ("logout", "yes")])
            .await
        {
            Place::Elsewhere(url) => Some(url),
            Place::Form { .. } => None,
        }
    }

    async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Place {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let request = Request::post(format!("{}{path}", self.url));
        let request = request
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(body))
            .unwrap();
        let response = self.send(request).await;
        self.arrive(path.to_owned(), response).await
    }

    async fn follow(&mut self, url: String) -> Place {
        let response = self
            .send(Request::get(&url).body(Full::default()).unwrap())
            .await;
        self.arrive(url[self.url.len()..].to_owned(), response)
            .await
    }

    /// As far as redirects go within the provider.
    async fn arrive(&mut self, mut path: String, mut response: Response<String>) -> Place {
        while let Some(location) = response.headers().get(LOCATION) {
            let location = location.to_str().unwrap();
            path = match location.strip_prefix(&self.url) {
                Some(path) => path.to_owned(),
                None if location.starts_with('/') => location.to_owned(),
                None => return Place::Elsewhere(location.to_owned()),
            };
            let request = Request::get(format!("{}{path}", self.url))
                .body(Full::default())
                .unwrap();
            response = self.send(request).await;
        }

        Place::Form {
            path,
            body: response.into_body(),
        }
    }

    async fn send(&mut self, mut request: Request<Full<Bytes>>) -> Response<String> {
        let cookies: Vec<_> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        request
            .headers_mut()
            .insert(COOKIE, cookies.join("; ").parse().unwrap());
        let (parts, body) = timeout(PATIENCE, self.client.request(request))
            .await
            .unwrap()
            .unwrap()
            .into_parts();
        for cookie in parts.headers.get_all(SET_COOKIE) {
            let (name, value) = cookie
                .to_str()
                .unwrap()
                .split(';')
                .next()
                .unwrap()
                .split_once('=')
                .unwrap();
            if value.is_empty() {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }

        let body = body.collect().await.unwrap().to_bytes();

        Response::from_parts(parts, String::from_utf8_lossy(&body).into_owned())
    }
}
