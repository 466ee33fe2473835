//! The Frontend API, as far as ClerkJS needs it: a browser signs in with an address and a password,
//! signs up, keeps its token fresh, and signs out.

use std::collections::HashMap;

use bytes::Bytes;
use http::header::{self, COOKIE, HeaderValue, ORIGIN, SET_COOKIE};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::Instance;
use super::backend::{answer, not_found, refusal};
use super::state::{Client, PASSWORD, Session, State, User, now_ms};

/// What the components may offer.
const ENVIRONMENT: &str = include_str!("environment.json");
const YEAR: u32 = 31_536_000;

type Fields = HashMap<String, String>;

/// A request of a browser that is known.
struct Visit<'a> {
    instance: &'a Instance,
    state: &'a mut State,
    client_id: String,
    origin: Option<String>,
}

impl Instance {
    /// With what lets a page of another origin read it.
    pub(super) fn frontend(&self, request: &Request<Bytes>, path: &[&str]) -> Response<Bytes> {
        let mut response = if request.method() == Method::OPTIONS {
            Response::new(Bytes::new())
        } else {
            self.to_browser(request, path)
        };

        let headers = response.headers_mut();
        let mut allow = |name, from| {
            if let Some(value) = request.headers().get(from) {
                headers.insert(name, HeaderValue::clone(value));
            }
        };
        allow(header::ACCESS_CONTROL_ALLOW_ORIGIN, ORIGIN);
        allow(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            header::ACCESS_CONTROL_REQUEST_HEADERS,
        );
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST"),
        );
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
            HeaderValue::from_static("true"),
        );

        response
    }

    fn to_browser(&self, request: &Request<Bytes>, path: &[&str]) -> Response<Bytes> {
        let query = fields(request.uri().query().unwrap_or_default().as_bytes());
        let method = query
            .get("_method")
            .map_or(request.method().as_str(), String::as_str);
        let mut state = self.state.lock().unwrap();
        match (method, path) {
            ("GET" | "PATCH", ["environment"]) => {
                let mut environment: Value = serde_json::from_str(ENVIRONMENT).unwrap();
                let kind = if self.development {
                    "development"
                } else {
                    "production"
                };
                environment["display_config"]["instance_environment_type"] = kind.into();
                return answer(&environment);
            }
            ("POST", ["dev_browser"]) if self.development => {
                let id = state.id("dvb");
                state.clients.insert(id.clone(), Client::default());
                return answer(&json!({"object": "dev_browser", "id": id, "token": id}));
            }
            _ => {}
        }

        let known = if self.development {
            query.get("__clerk_db_jwt").cloned()
        } else {
            cookie(request, "__client")
        };

        let known = known.filter(|id| state.clients.contains_key(id));
        let is_new = known.is_none();
        let client_id = match known {
            Some(id) => id,
            None if self.development => {
                return refusal(
                    StatusCode::UNAUTHORIZED,
                    "dev_browser_unauthenticated",
                    "Browser unauthenticated",
                );
            }
            None => {
                let id = state.id("client");
                state.clients.insert(id.clone(), Client::default());
                id
            }
        };

        let origin = request
            .headers()
            .get(ORIGIN)
            .map(|it| it.to_str().unwrap().to_owned());
        let mut visit = Visit {
            instance: self,
            state: &mut state,
            client_id,
            origin,
        };
        let before = visit.sessions();
        let mut response = visit.answer(method, path, &fields(request.body()));
        if !self.development && (is_new || visit.sessions() != before) {
            visit.set_cookies(response.headers_mut());
        }

        response
    }
}

impl Visit<'_> {
    fn answer(&mut self, method: &str, path: &[&str], body: &Fields) -> Response<Bytes> {
        match (method, path) {
            ("GET" | "POST" | "PUT", ["client"]) => {
                let client = self.client_json();
                answer(&json!({"response": client, "client": null}))
            }
            ("POST", ["client", "sign_ins"]) => self.start_sign_in(body),
            ("POST", ["client", "sign_ins", _, "attempt_first_factor"]) => {
                self.finish_sign_in(body)
            }
            ("POST", ["client", "sign_ups"]) => self.sign_up(body),
            ("DELETE", ["client", "sessions"]) => {
                self.sessions()
                    .iter()
                    .for_each(|id| self.end(id, "removed"));
                let client = self.client_json();
                answer(&json!({"response": client, "client": null}))
            }
            ("POST", ["client", "sessions", id, verb])
                if self.sessions().iter().any(|it| it == id) =>
            {
                match *verb {
                    "tokens" => answer(&json!({"object": "token", "jwt": self.token(id)})),
                    "touch" => self.with_session(id),
                    "end" | "remove" => {
                        self.end(id, if *verb == "end" { "ended" } else { "removed" });
                        self.with_session(id)
                    }
                    _ => not_found(),
                }
            }
            _ => not_found(),
        }
    }

    fn start_sign_in(&mut self, body: &Fields) -> Response<Bytes> {
        let identifier = body.get("identifier").cloned().unwrap_or_default();
        let Some(user) = self.state.user_at(&identifier).cloned() else {
            return refuse_field(
                "form_identifier_not_found",
                "Couldn't find your account.",
                "identifier",
            );
        };

        let id = self.state.id("sia");
        let sign_in = json!({
            "object": "sign_in", "id": id, "status": "needs_first_factor", "identifier": identifier,
            "supported_identifiers": ["email_address"],
            "supported_first_factors": [{"strategy": "password"}], "supported_second_factors": null,
            "first_factor_verification": null, "second_factor_verification": null, "created_session_id": null,
            "user_data": {"first_name": user.first_name, "last_name": user.last_name, "image_url": user.image_url,
                "has_image": false},
            "abandon_at": now_ms() + 86_400_000,
        });
        self.client().sign_in = Some(sign_in);

        if body.contains_key("password") {
            self.finish_sign_in(body)
        } else {
            self.with_sign_in()
        }
    }

    fn finish_sign_in(&mut self, body: &Fields) -> Response<Bytes> {
        let Some(sign_in) = self.client().sign_in.clone() else {
            return not_found();
        };

        let user = sign_in["identifier"]
            .as_str()
            .and_then(|it| self.state.user_at(it))
            .cloned();
        let Some(user) = user else { return not_found() };
        if body.get("password").is_none_or(|it| it != PASSWORD) {
            return refuse_field(
                "form_password_incorrect",
                "Password is incorrect. Try again.",
                "password",
            );
        }

        if user.banned {
            return refusal(
                StatusCode::FORBIDDEN,
                "user_banned",
                "You are banned from this application.",
            );
        }

        let session_id = self.state.sign_in(&user.id, &self.client_id);
        let mut sign_in = sign_in;
        sign_in["status"] = "complete".into();
        sign_in["created_session_id"] = session_id.into();
        sign_in["first_factor_verification"] = json!({
            "object": "verification_password", "status": "verified", "strategy": "password", "attempts": 1,
            "expire_at": null,
        });
        self.client().sign_in = Some(sign_in);
        let done = self.with_sign_in();
        self.client().sign_in = None;

        done
    }

    /// Nothing is verified: the address of who signs up is not.
    fn sign_up(&mut self, body: &Fields) -> Response<Bytes> {
        let Some((address, _)) = body.get("email_address").zip(body.get("password")) else {
            return refuse_field(
                "form_param_missing",
                "Enter an address and a password.",
                "email_address",
            );
        };

        let mut user = User::named(address.split('@').next().unwrap());
        if self.state.users.contains_key(&user.id) {
            return refuse_field(
                "form_identifier_exists",
                "That email address is taken.",
                "email_address",
            );
        }

        user.addresses.truncate(1);
        user.addresses[0].address.clone_from(address);
        user.primary = Some(user.addresses[0].id.clone());
        self.state.users.insert(user.id.clone(), user.clone());
        let session_id = self.state.sign_in(&user.id, &self.client_id);
        let sign_up = json!({
            "object": "sign_up", "id": self.state.id("sua"), "status": "complete", "email_address": address,
            "required_fields": ["email_address", "password"], "optional_fields": [], "missing_fields": [],
            "unverified_fields": [], "verifications": {}, "username": null, "phone_number": null, "web3_wallet": null,
            "external_account": null, "has_password": true, "first_name": null, "last_name": null,
            "unsafe_metadata": {}, "public_metadata": {}, "created_session_id": session_id, "created_user_id": user.id,
            "abandon_at": now_ms() + 86_400_000,
        });
        self.client().sign_up = Some(sign_up.clone());
        let client = self.client_json();
        self.client().sign_up = None;

        answer(&json!({"response": sign_up, "client": client}))
    }

    fn end(&mut self, session_id: &str, status: &str) {
        status.clone_into(&mut self.state.sessions.get_mut(session_id).unwrap().status);
    }

    fn token(&mut self, session_id: &str) -> String {
        self.instance
            .token(self.state, session_id, self.origin.as_deref(), |_, _| {})
    }

    fn client(&mut self) -> &mut Client {
        self.state.clients.get_mut(&self.client_id).unwrap()
    }

    /// The ids of those that are active.
    fn sessions(&self) -> Vec<String> {
        self.state
            .active(&self.client_id)
            .into_iter()
            .map(|it| it.id)
            .collect()
    }

    fn with_sign_in(&mut self) -> Response<Bytes> {
        let client = self.client_json();
        answer(&json!({"response": client["sign_in"], "client": client}))
    }

    fn with_session(&mut self, id: &str) -> Response<Bytes> {
        let session = self.state.sessions[id].clone();
        let (session, client) = (self.session_json(&session), self.client_json());
        answer(&json!({"response": session, "client": client}))
    }

    fn session_json(&mut self, session: &Session) -> Value {
        let mut shown = session.json();
        let user = self.state.users.get(&session.user_id).map(User::json);
        shown["public_user_data"] = json!({
            "user_id": session.user_id, "first_name": user.as_ref().map(|it| &it["first_name"]),
            "last_name": user.as_ref().map(|it| &it["last_name"]), "image_url": "", "has_image": false,
            "identifier": session.user_id,
        });
        shown["user"] = user.into();
        shown["factor_verification_age"] = json!([0, -1]);
        shown["last_active_token"] = json!({"object": "token", "jwt": self.token(&session.id)});
        shown
    }

    fn client_json(&mut self) -> Value {
        let active = self.state.active(&self.client_id);
        let sessions: Vec<_> = active.iter().map(|it| self.session_json(it)).collect();
        let client = self.client();
        json!({
            "object": "client", "sign_in": client.sign_in, "sign_up": client.sign_up, "id": self.client_id,
            "last_active_session_id": active.last().map(|it| &it.id), "sessions": sessions,
            "last_authentication_strategy": null, "captcha_bypass": false, "cookie_expires_at": null,
            "created_at": 1_700_000_000_000_i64, "updated_at": now_ms(),
        })
    }

    /// In production the browser's own cookie, and the time of the last change of who is signed in.
    fn set_cookies(&self, headers: &mut http::HeaderMap) {
        let time = if self.sessions().is_empty() {
            0
        } else {
            now_ms() / 1000
        };

        let suffix = &self.instance.suffix;
        let lasting = format!("Path=/; SameSite=Lax; Max-Age={YEAR}");

        for cookie in [
            format!("__client={}; HttpOnly; {lasting}", self.client_id),
            format!("__client_uat={time}; {lasting}"),
            format!("__client_uat_{suffix}={time}; {lasting}"),
        ] {
            headers.append(SET_COOKIE, cookie.parse().unwrap());
        }
    }
}

fn refuse_field(code: &str, message: &str, field: &str) -> Response<Bytes> {
    let error = json!({"message": message, "long_message": message, "code": code, "meta": {"param_name": field}});
    let mut response = answer(&json!({"errors": [error]}));
    *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
    response
}

fn fields(form: &[u8]) -> Fields {
    form_urlencoded::parse(form).into_owned().collect()
}

fn cookie(request: &Request<Bytes>, name: &str) -> Option<String> {
    let cookies = request.headers().get(COOKIE)?.to_str().ok()?;
    cookies
        .split("; ")
        .find_map(|it| Some(it.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}
