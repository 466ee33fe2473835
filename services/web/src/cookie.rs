//! The cookies of a browser: its own random id, and sealed under that id the sign-in, when it was
//! used, the logins it has seen and its trips to an identity provider. Each has a separate cookie,
//! so that two tabs that answer at the same time overwrite nothing of each other. Knows no route.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vvs_auth::Error;
use vvs_auth::key::{Keyring, base64url, from_base64url, random};
use vvs_proto::ConnectionId;
use vvs_runtime::origin::Origin;

use crate::kept::Kept;
use crate::login::Seen;

/// The maximum number of logins that one browser remembers.
const MAX_LOGINS: usize = 8;
/// The maximum number of simultaneous trips of one browser to an identity provider.
const MAX_FLOWS: usize = 4;
/// How long after a login's own time the success page can be opened again, in seconds.
const AFTERWARDS: i64 = 3600;

/// Names one browser: 16 random bytes, base64url. A value that is sealed for one browser is useless
/// to any other.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct BrowserId(String);

impl BrowserId {
    pub(crate) fn mint() -> Result<Self, Error> {
        Ok(Self(base64url(&random::<16>()?)))
    }

    fn parse(text: &str) -> Option<Self> {
        (from_base64url(text)?.len() == 16).then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The names and the seal of this installation's cookies.
pub(crate) struct Cookies {
    keys: Keyring,
    prefix: String,
    secure: bool,
}

impl Cookies {
    pub(crate) fn new(keys: &Keyring, public_url: &Origin) -> Result<Self, Error> {
        let secure = public_url.is_secure();
        // Cookies do not know ports (RFC 6265, section 8.5), so on one machine the name has to.
        let port = public_url
            .authority()
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok())
            .unwrap_or(80_u16);
        let prefix = if secure {
            "__Host-vvs-".to_owned()
        } else {
            format!("vvs-{port}-")
        };

        Ok(Self {
            keys: keys.derive("vvs.web.cookie")?,
            prefix,
            secure,
        })
    }

    /// Reads the cookies of a request.
    pub(crate) fn read(&self, headers: &HeaderMap) -> Jar {
        let lines = headers
            .get_all(COOKIE)
            .into_iter()
            .filter_map(|line| line.to_str().ok());
        let pairs = lines
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='));
        let ours: Vec<_> = pairs
            .filter_map(|(name, value)| Some((name.strip_prefix(&self.prefix)?, value)))
            .collect();
        let browser = ours
            .iter()
            .find_map(|(name, value)| (*name == "browser").then(|| BrowserId::parse(value))?);
        let Some(browser) = browser else {
            return Jar::default();
        };

        let sealed = ours.iter().find_map(|(name, value)| {
            (*name == "sign-in").then(|| self.open(name, &browser, value))?
        });
        let seen = ours.iter().find_map(|(name, value)| {
            (*name == "seen").then(|| self.open(name, &browser, value))?
        });
        let key = ours.iter().find_map(|(name, value)| {
            (*name == "dev-key").then(|| self.open(name, &browser, value))?
        });
        let logins = ours.iter().filter_map(|(name, value)| {
            Some((
                name.strip_prefix("login-")?.parse().ok()?,
                self.open(name, &browser, value)?,
            ))
        });
        let flows = ours.iter().filter_map(|(name, value)| {
            Some((
                name.strip_prefix("flow-")?.to_owned(),
                self.open(name, &browser, value)?,
            ))
        });

        Jar {
            logins: logins.collect(),
            flows: flows.collect(),
            sealed,
            seen,
            key,
            browser: Some(browser),
            set: Vec::new(),
        }
    }

    fn open<T: DeserializeOwned>(&self, name: &str, browser: &BrowserId, value: &str) -> Option<T> {
        let plain = self
            .keys
            .open(&self.context(name, browser), &from_base64url(value)?)
            .ok()?;
        serde_json::from_slice(&plain).ok()
    }

    fn seal<T: Serialize>(
        &self,
        name: &str,
        browser: &BrowserId,
        content: &T,
    ) -> Result<String, Error> {
        // Structs of texts and numbers always have a JSON form.
        let plain = serde_json::to_vec(content).map_err(|_cause| Error::Sealed)?;
        Ok(base64url(
            &self.keys.seal(&self.context(name, browser), &plain)?,
        ))
    }

    fn context(&self, name: &str, browser: &BrowserId) -> String {
        format!("{}{name} {}", self.prefix, browser.as_str())
    }

    fn line(&self, name: &str, value: &str, max_age: Option<i64>) -> HeaderValue {
        let secure = if self.secure { "; Secure" } else { "" };
        let max_age = max_age
            .map(|seconds| format!("; Max-Age={seconds}"))
            .unwrap_or_default();
        let line = format!(
            "{}{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{max_age}",
            self.prefix
        );
        // Names and values are base64url and always fit.
        HeaderValue::try_from(line).unwrap_or(HeaderValue::from_static(""))
    }
}

/// A trip to an identity provider, which ends with an answer to exactly this request.
#[derive(Serialize, Deserialize)]
pub(crate) struct Flow {
    /// The login that it is about; `None` when it is about the account.
    pub(crate) login: Option<String>,
    /// Returned in the ID token (OpenID Connect Core, section 2).
    pub(crate) nonce: String,
    /// Sent with the code (RFC 7636, section 4.1).
    pub(crate) verifier: String,
    /// The watermark of the resulting sign-in: an end after the beginning of the trip ends that
    /// too.
    #[serde(default)]
    pub(crate) watermark: u64,
    /// Seconds since 1970.
    pub(crate) expires_at: i64,
}

/// One browser's cookies, and the answer's changes to them.
#[derive(Default)]
pub(crate) struct Jar {
    browser: Option<BrowserId>,
    /// The sealed sign-in. It does not say who is signed in: [`crate::visit`] decides that, after
    /// it has asked whether the sign-in is still valid.
    sealed: Option<Kept>,
    /// When the person last looked after their editors, seconds since 1970.
    pub(crate) seen: Option<i64>,
    /// The mark of the development key that was entered here.
    pub(crate) key: Option<String>,
    logins: Vec<(ConnectionId, Seen)>,
    /// By the `state` that the provider returns.
    flows: Vec<(String, Flow)>,
    /// `Set-Cookie` by name, so that only the last value is sent.
    set: Vec<(String, HeaderValue)>,
}

impl Jar {
    /// Returns the browser's id, if it sent one.
    pub(crate) fn known_browser(&self) -> Option<&BrowserId> {
        self.browser.as_ref()
    }

    /// Returns the browser's id, and makes one if it has none. Do not call it for a POST: one from
    /// another site comes without cookies, and a new id would invalidate the pages that the browser
    /// has open.
    pub(crate) fn browser(&mut self, cookies: &Cookies) -> Result<BrowserId, Error> {
        if let Some(browser) = &self.browser {
            return Ok(browser.clone());
        }
        let browser = BrowserId::mint()?;
        self.put("browser", cookies.line("browser", browser.as_str(), None));
        self.browser = Some(browser.clone());
        Ok(browser)
    }

    /// Stores a sign-in, without an age: the owner of a form must be known when it is sent, even if
    /// the sign-in is too old by then.
    pub(crate) fn keep(&mut self, cookies: &Cookies, kept: Kept) -> Result<(), Error> {
        let sealed = cookies.seal("sign-in", &self.browser(cookies)?, &kept)?;
        self.put("sign-in", cookies.line("sign-in", &sealed, None));
        self.sealed = Some(kept);
        Ok(())
    }

    /// Stores it as the previous version did, whose cookies have neither an id nor an end.
    #[cfg(test)]
    pub(crate) fn keep_as_before(
        &mut self,
        cookies: &Cookies,
        who: &vvs_identity::SignIn,
    ) -> Result<(), Error> {
        let sealed = cookies.seal("sign-in", &self.browser(cookies)?, who)?;
        self.put("sign-in", cookies.line("sign-in", &sealed, None));
        Ok(())
    }

    /// Returns the sign-in in the cookie, valid or not: forms are made for it.
    pub(crate) fn sealed(&self) -> Option<&Kept> {
        self.sealed.as_ref()
    }

    /// Records a use, in a separate cookie: a page that was requested before somebody signed out,
    /// or in as another person, must not restore the old sign-in.
    pub(crate) fn see(&mut self, cookies: &Cookies, now: i64) -> Result<(), Error> {
        let sealed = cookies.seal("seen", &self.browser(cookies)?, &now)?;
        self.put("seen", cookies.line("seen", &sealed, None));
        self.seen = Some(now);
        Ok(())
    }

    /// Records that the browser has entered the development key with this mark.
    pub(crate) fn show_key(&mut self, cookies: &Cookies, mark: &str) -> Result<(), Error> {
        let sealed = cookies.seal("dev-key", &self.browser(cookies)?, &mark)?;
        self.put("dev-key", cookies.line("dev-key", &sealed, None));
        self.key = Some(mark.to_owned());
        Ok(())
    }

    pub(crate) fn sign_out(&mut self, cookies: &Cookies) {
        for name in ["sign-in", "seen"] {
            self.put(name, cookies.line(name, "", Some(0)));
        }
        (self.sealed, self.seen) = (None, None);
    }

    pub(crate) fn login(&self, id: ConnectionId) -> Option<&Seen> {
        self.logins
            .iter()
            .find_map(|(known, entry)| (*known == id).then_some(entry))
    }

    /// Returns the login that last succeeded here.
    pub(crate) fn last_acked(&self) -> Option<ConnectionId> {
        let acked = self.logins.iter().filter(|(_, entry)| entry.acked);
        acked
            .max_by_key(|(_, entry)| entry.expires_at)
            .map(|(id, _)| *id)
    }

    /// Stores the state of a login, and drops the oldest when there are too many: logins that
    /// others made must not fill up the header.
    pub(crate) fn remember(
        &mut self,
        cookies: &Cookies,
        id: ConnectionId,
        entry: Seen,
        now: i64,
    ) -> Result<(), Error> {
        let name = format!("login-{id}");
        let sealed = cookies.seal(&name, &self.browser(cookies)?, &entry)?;
        let max_age = entry.expires_at.saturating_sub(now).max(0) + AFTERWARDS;
        self.put(&name, cookies.line(&name, &sealed, Some(max_age)));
        self.logins.retain(|(known, _)| *known != id);
        self.logins.sort_by_key(|(_, entry)| entry.expires_at);
        while self.logins.len() >= MAX_LOGINS {
            let name = format!("login-{}", self.logins.remove(0).0);
            self.put(&name, cookies.line(&name, "", Some(0)));
        }

        self.logins.push((id, entry));

        Ok(())
    }

    /// Stores the values for the browser's return with this `state`, and drops the oldest trip when
    /// there are too many.
    pub(crate) fn begin(
        &mut self,
        cookies: &Cookies,
        state: &str,
        flow: Flow,
        now: i64,
    ) -> Result<(), Error> {
        let name = format!("flow-{state}");
        let sealed = cookies.seal(&name, &self.browser(cookies)?, &flow)?;
        let max_age = flow.expires_at.saturating_sub(now).max(0);
        self.put(&name, cookies.line(&name, &sealed, Some(max_age)));
        self.flows.sort_by_key(|(_, flow)| flow.expires_at);
        while self.flows.len() >= MAX_FLOWS {
            let name = format!("flow-{}", self.flows.remove(0).0);
            self.put(&name, cookies.line(&name, "", Some(0)));
        }
        self.flows.push((state.to_owned(), flow));
        Ok(())
    }

    /// Returns the trip with this `state`, if this browser is on it. The trip is then over,
    /// whatever the result.
    pub(crate) fn end(&mut self, cookies: &Cookies, state: &str, now: i64) -> Option<Flow> {
        let found = self.flows.iter().position(|(known, _)| known == state)?;
        let (state, flow) = self.flows.swap_remove(found);
        let name = format!("flow-{state}");
        self.put(&name, cookies.line(&name, "", Some(0)));
        (now < flow.expires_at).then_some(flow)
    }

    fn put(&mut self, name: &str, line: HeaderValue) {
        self.set.retain(|(known, _)| known != name);
        self.set.push((name.to_owned(), line));
    }

    /// Returns the `Set-Cookie` headers of the answer.
    pub(crate) fn into_set(self) -> impl Iterator<Item = HeaderValue> {
        self.set.into_iter().map(|(_, line)| line)
    }
}

#[cfg(test)]
mod tests;
