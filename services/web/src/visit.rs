//! One request of one browser: who asks, which cookies the browser sent, and which it gets. Every
//! page and every form goes through here, so that no handler can forget a check.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Form, FromRequest, FromRequestParts, Query, Request};
use axum::response::{IntoResponse as _, Response};
use http::header::{LOCATION, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use secrecy::SecretString;
use serde::Deserialize;
use time::OffsetDateTime;
use vvs_auth::key::random;
use vvs_identity::{About, Nonce, SIGN_IN_PATH, SignIn};
use vvs_proto::ConnectionId;
use vvs_runtime::forwarded::{REQUEST_ID, THROUGH, client_address};
use vvs_runtime::http::Connection;

use crate::account::Notice;
use crate::call::Requester;
use crate::clock;
use crate::cookie::Jar;
use crate::csrf;
use crate::error::Refusal;
use crate::failure::{Reason, WayOn};
use crate::header;
use crate::kept::Person;
use crate::login::{Seen, View};
use crate::page::{self, DevKeyPage, FailurePage, Page, Shell};
use crate::web::Web;

mod browser;
mod person;

/// Where a browser enters the key of a development installation.
pub(crate) const KEY_PATH: &str = "/dev/key";

/// Returns where a person continues who has signed out of this browser.
fn signed_out(about: About) -> String {
    match about {
        About::Login(_) => about.another(),
        About::Account => format!("{SIGN_IN_PATH}?done={}", Notice::SignedOut),
    }
}

/// An answer before its cookies.
pub(crate) type Answer = http::Response<String>;

/// The parameters that our pages know.
#[derive(Default, Deserialize)]
struct Params {
    connection_id: Option<String>,
    account: Option<String>,
    retry: Option<String>,
    another: Option<String>,
    known: Option<String>,
    done: Option<String>,
}

/// One request of one browser.
pub(crate) struct Visit {
    pub(crate) web: Arc<Web>,
    pub(crate) now: OffsetDateTime,
    pub(crate) from: Requester,
    /// The gateway's id of this request.
    pub(crate) request_id: String,
    pub(crate) jar: Jar,
    /// The signed-in person, as confirmed by sessions.
    person: Person,
    /// The person in the browser's cookie when it arrived: the forms that it sends were made for
    /// that person.
    brought: Option<SignIn>,
    params: Params,
    /// One of our pages led here.
    is_from_here: bool,
    pub(crate) about: Option<About>,
    nonce: Nonce,
}

impl Visit {
    /// Reads a request, and asks whether its sign-in is still valid. Every page needs it, because
    /// there is no other way to the signed-in person.
    async fn new(web: &Arc<Web>, parts: &Parts) -> Result<Self, Refusal> {
        let mut visit = Self::read(web, parts)?;
        visit.person = visit.recognize().await;
        if visit.person == Person::Ended {
            visit.jar.sign_out(&web.cookies);
        }
        Ok(visit)
    }

    fn read(web: &Arc<Web>, parts: &Parts) -> Result<Self, Refusal> {
        let Query(params) = Query::<Params>::try_from_uri(&parts.uri).unwrap_or_default();
        let remote = parts
            .extensions
            .get::<Connection>()
            .map(|connection| connection.remote.ip());
        let address = client_address(&parts.headers)
            .or(remote)
            .ok_or(Reason::Broken)?;
        let jar = web.cookies.read(&parts.headers);

        Ok(Self {
            now: clock::now(),
            from: Requester { address },
            request_id: parts
                .headers
                .get(REQUEST_ID)
                .and_then(|id| id.to_str().ok())
                .unwrap_or("unknown")
                .to_owned(),
            person: Person::Nobody,
            brought: jar.sealed().map(|kept| kept.who.clone()),
            jar,
            about: match &params.connection_id {
                Some(id) => id.parse().ok().map(About::Login),
                None => params.account.as_ref().map(|_| About::Account),
            },
            params,
            is_from_here: csrf::is_from_here(&parts.headers),
            nonce: Nonce::new(random()?),
            web: web.clone(),
        })
    }

    /// Returns what the request is about.
    pub(crate) fn about(&self) -> Result<About, Refusal> {
        self.about.ok_or(Reason::MalformedLink.into())
    }

    /// Returns the login that the request is about.
    pub(crate) fn login(&self) -> Result<ConnectionId, Refusal> {
        match self.about {
            Some(About::Login(id)) => Ok(id),
            Some(About::Account) | None => Err(Reason::MalformedLink.into()),
        }
    }

    /// Returns whether the request names a login, valid or not.
    pub(crate) fn names_login(&self) -> bool {
        self.params.connection_id.is_some()
    }

    /// Returns whether the browser comes back from a sign-in that we did not find.
    pub(crate) fn is_retry(&self) -> bool {
        self.params.retry.is_some()
    }

    /// Returns whether the person wants to use another account. A link on another site cannot
    /// request this, because it would sign people out of the provider.
    pub(crate) fn is_another(&self) -> bool {
        self.params.another.is_some() && self.is_from_here
    }

    /// Returns whether the person has just signed out here.
    pub(crate) fn has_signed_out(&self) -> bool {
        matches!(self.notice(), Some(Notice::SignedOut | Notice::EndedAll(_))) && self.is_from_here
    }

    /// Returns the nonce of the page's own scripts.
    pub(crate) fn nonce(&self) -> &Nonce {
        &self.nonce
    }

    /// Returns the state that a page shows while it asks for another one.
    pub(crate) fn known_state(&self) -> Option<&str> {
        self.params.known.as_deref()
    }

    /// Returns the action before this page was requested.
    pub(crate) fn notice(&self) -> Option<Notice> {
        self.params.done.as_deref().and_then(Notice::parse)
    }

    /// Returns the relay's current view of a login. The browser remembers a login that it has seen
    /// while nobody had decided.
    pub(crate) async fn look(&mut self, id: ConnectionId) -> Result<View, Refusal> {
        let found = self.web.relay.look(id, None).await;
        if let Ok(view) = &found
            && view.state.is_undecided()
            && self.jar.login(id).is_none()
        {
            self.remember(id, Seen::new(view))?;
        }
        found
    }

    pub(crate) fn remember(&mut self, id: ConnectionId, entry: Seen) -> Result<(), Refusal> {
        Ok(self
            .jar
            .remember(&self.web.cookies, id, entry, self.now.unix_timestamp())?)
    }

    /// Returns the value of a form that is made now.
    pub(crate) fn csrf(&mut self, about: About) -> Result<SecretString, Refusal> {
        let browser = self.jar.browser(&self.web.cookies)?;
        Ok(self.web.csrf.value(
            &browser,
            &about.purpose(),
            self.jar.sealed().map(|kept| &kept.who),
        ))
    }

    /// Returns whether a form's value was made for this browser and the signed-in person, or for
    /// nobody if that is enough.
    fn made(&self, about: About, may_be_nobodys: bool, value: &str) -> bool {
        let holds = |browser, user| self.web.csrf.holds(browser, &about.purpose(), user, value);
        self.jar.known_browser().is_some_and(|browser| {
            holds(browser, self.brought.as_ref()) || (may_be_nobodys && holds(browser, None))
        })
    }

    /// Returns the values that every page needs.
    pub(crate) fn shell(&self) -> Shell {
        Shell {
            nonce: self.nonce.clone(),
            development: self.web.identity.is_development(),
        }
    }

    /// Answers instead of any page when a sign-in that signs in anyone is reached from elsewhere,
    /// or without its key.
    fn answer_instead(&mut self, parts: &Parts) -> Option<Result<Answer, Refusal>> {
        let web = self.web.clone();
        let through = parts
            .headers
            .get(THROUGH)
            .map(|sign| sign.to_str().unwrap_or("unreadable"));
        if let Err(refusal) = web.identity.admits(self.from.address, through) {
            return Some(Err(refusal.into()));
        }

        let key = web.identity.key()?;
        if parts.uri.path() == KEY_PATH || self.jar.key.as_ref() == Some(&key.mark()) {
            return None;
        }

        // A form that was sent without the key is lost; the page that it stood on asks for it.
        let is_form = parts.method == Method::POST;

        Some(if is_form {
            Err(Reason::StaleForm.into())
        } else {
            self.ask_key(self.about.unwrap_or(About::Account), false)
        })
    }

    /// Asks for the key of this installation.
    pub(crate) fn ask_key(&mut self, about: About, is_wrong: bool) -> Result<Answer, Refusal> {
        let csrf = self.csrf(about)?;
        Ok(page(&DevKeyPage {
            shell: self.shell(),
            about,
            csrf,
            is_wrong,
        }))
    }

    /// Returns the whole answer, with its cookies.
    pub(crate) fn finish(self, answer: Result<Answer, Refusal>) -> Response {
        let answer = answer.unwrap_or_else(|refusal| self.failure(&refusal));
        let mut response = answer.into_response();
        for line in self.jar.into_set() {
            response.headers_mut().append(SET_COOKIE, line);
        }
        response
    }

    fn failure(&self, refusal: &Refusal) -> Answer {
        refusal.log(&self.request_id);
        let row = refusal.reason().row();
        let again = self.about.and_then(|about| match row.way_on? {
            WayOn::Again | WayOn::AgainByItself | WayOn::EditorsFirst => Some(about.path()),
            WayOn::AnotherAccount => Some(about.another()),
            WayOn::SignedOut => Some(signed_out(about)),
        });

        page::answer(&FailurePage {
            shell: self.shell(),
            row,
            again,
            request_id: self.request_id.clone(),
        })
    }
}

pub(crate) fn page<P: Page>(page: &P) -> Answer {
    page::answer(page)
}

/// Redirects the browser with a GET. Paths are ours: an id in them is a UUID.
pub(crate) fn see(path: &str) -> Answer {
    let mut headers = header::common();
    headers.insert(
        LOCATION,
        HeaderValue::try_from(path).unwrap_or(HeaderValue::from_static("/")),
    );
    with_headers(StatusCode::SEE_OTHER, headers, String::new())
}

pub(crate) fn with_headers(status: StatusCode, headers: HeaderMap, body: String) -> Answer {
    let mut answer = http::Response::new(body);
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}

impl FromRequestParts<Arc<Web>> for Visit {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, web: &Arc<Web>) -> Result<Self, Response> {
        let mut visit = Self::new(web, parts).await.map_err(|refusal| {
            refusal.log("");
            (StatusCode::INTERNAL_SERVER_ERROR, header::common()).into_response()
        })?;
        match visit.answer_instead(parts) {
            None => Ok(visit),
            Some(answer) => Err(visit.finish(answer)),
        }
    }
}

/// The fields of all our forms.
#[derive(Deserialize)]
pub(crate) struct Fields {
    /// Absent in a form about the account.
    connection_id: Option<String>,
    #[serde(default)]
    csrf: String,
    confirmed: Option<String>,
    retry: Option<String>,
    pub(crate) key: Option<SecretString>,
}

impl Fields {
    fn about(&self) -> Option<About> {
        self.connection_id
            .as_ref()
            .map_or(Some(About::Account), |id| id.parse().ok().map(About::Login))
    }

    /// Returns whether the person has ticked the box; a box without a value sends `on`.
    pub(crate) fn is_confirmed(&self) -> bool {
        matches!(self.confirmed.as_deref(), Some("yes" | "on" | "true" | "1"))
    }

    /// Returns whether the page with the form was a retry.
    pub(crate) fn is_retry(&self) -> bool {
        self.retry.as_deref() == Some("1")
    }
}

/// A form that one of our pages sent, made for this browser, the subject of the visit and the
/// signed-in person.
pub(crate) struct Post {
    pub(crate) visit: Visit,
    pub(crate) fields: Fields,
    /// The whole form, as the browser sent it.
    pub(crate) body: Bytes,
}

impl Post {
    async fn take(
        request: Request,
        web: &Arc<Web>,
        may_be_nobodys: bool,
    ) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let mut visit = Visit::from_request_parts(&mut parts, web).await?;
        if !csrf::is_same_origin(&parts.headers, &web.public_url) {
            return Err(visit.finish(Err(Reason::CrossSite.into())));
        }

        let Some((fields, body)) = read(parts, body, web).await else {
            return Err(visit.finish(Err(Reason::MalformedForm.into())));
        };

        visit.about = fields.about();
        let is_ours = visit
            .about
            .is_some_and(|about| visit.made(about, may_be_nobodys, &fields.csrf));
        if !is_ours {
            return Err(visit.finish(Err(Reason::StaleForm.into())));
        }

        if visit.person == Person::Ended && !may_be_nobodys {
            // The person that the form was made for no longer decides anything.
            let answer = match visit.about {
                Some(About::Login(_)) => Err(Refusal::sign_in_over(
                    "it was ended before this form was sent",
                )),
                Some(About::Account) | None => Ok(see(SIGN_IN_PATH)),
            };
            return Err(visit.finish(answer));
        }

        Ok(Self {
            visit,
            fields,
            body,
        })
    }
}

/// Reads a form, and keeps the bytes for a handler that knows more of its fields.
async fn read(parts: Parts, body: Body, web: &Arc<Web>) -> Option<(Fields, Bytes)> {
    let whole = Request::from_parts(parts.clone(), body);
    let body = Bytes::from_request(whole, web).await.ok()?;
    let form = Request::from_parts(parts, Body::from(body.clone()));
    let Form(fields) = Form::from_request(form, web).await.ok()?;
    Some((fields, body))
}

impl FromRequest<Arc<Web>> for Post {
    type Rejection = Response;

    async fn from_request(request: Request, web: &Arc<Web>) -> Result<Self, Response> {
        Self::take(request, web, false).await
    }
}

/// A form that signs in a person. One that was made for nobody stays valid when somebody has signed
/// in in another tab.
pub(crate) struct Opening(pub(crate) Post);

impl FromRequest<Arc<Web>> for Opening {
    type Rejection = Response;

    async fn from_request(request: Request, web: &Arc<Web>) -> Result<Self, Response> {
        Post::take(request, web, true).await.map(Self)
    }
}
