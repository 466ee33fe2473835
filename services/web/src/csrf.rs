//! Whether a POST comes from one of our pages, and from exactly the page that was made for this
//! browser, login and user.

use http::header::ORIGIN;
use http::{HeaderMap, HeaderName};
use secrecy::SecretString;
use vvs_auth::Error;
use vvs_auth::key::{Keyring, base64url, from_base64url};
use vvs_identity::SignIn;
use vvs_runtime::origin::Origin;

use crate::cookie::BrowserId;

/// Fetch Metadata Request Headers, section 2.4.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Returns whether one of our pages caused this request. A browser that says nothing about the site
/// must name our origin; a foreign origin is always refused.
pub(crate) fn is_same_origin(headers: &HeaderMap, public_url: &Origin) -> bool {
    let ours = public_url.to_string();
    let mut origins = headers.get_all(ORIGIN).into_iter().peekable();
    let names_us = origins
        .peek()
        .is_some_and(|origin| *origin == ours.as_str());
    if origins.any(|origin| *origin != ours.as_str() && origin != "null") {
        return false;
    }

    let mut sites = headers.get_all(SEC_FETCH_SITE).into_iter().peekable();

    match sites.peek() {
        Some(_) => sites.all(|site| site == "same-origin"),
        None => names_us,
    }
}

/// Returns whether one of our pages led here, as far as the browser says so. For a GET, which names
/// no origin.
pub(crate) fn is_from_here(headers: &HeaderMap) -> bool {
    headers
        .get(SEC_FETCH_SITE)
        .is_some_and(|site| site == "same-origin")
}

/// Makes and checks the value in every form.
pub(crate) struct Csrf(Keyring);

impl Csrf {
    pub(crate) fn new(keys: &Keyring) -> Result<Self, Error> {
        Ok(Self(keys.derive("vvs.web.csrf")?))
    }

    pub(crate) fn value(
        &self,
        browser: &BrowserId,
        login: &str,
        user: Option<&SignIn>,
    ) -> SecretString {
        base64url(&self.0.mac(&parts(browser, login, user))).into()
    }

    pub(crate) fn holds(
        &self,
        browser: &BrowserId,
        login: &str,
        user: Option<&SignIn>,
        value: &str,
    ) -> bool {
        from_base64url(value)
            .is_some_and(|value| self.0.check_mac(&parts(browser, login, user), &value))
    }
}

fn parts<'a>(browser: &'a BrowserId, login: &'a str, user: Option<&'a SignIn>) -> [&'a str; 4] {
    let (provider, subject) = user.map_or(("", ""), |user| (&user.provider, &user.subject));
    [browser.as_str(), login, provider, subject]
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;
    use vvs_identity::dev;

    #[test]
    fn a_post_is_taken_from_our_own_pages_only() {
        let ours = "https://auth.test".parse().unwrap();
        let check = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            is_same_origin(&headers, &ours)
        };
        let (site, origin) = ("sec-fetch-site", "origin");
        for taken in [
            &[(site, "same-origin")][..],
            &[(site, "same-origin"), (origin, "https://auth.test")],
            &[(site, "same-origin"), (origin, "null")],
            &[(origin, "https://auth.test")],
        ] {
            assert!(check(taken), "{taken:?}");
        }

        for refused in [
            &[][..],
            &[(origin, "null")],
            &[(origin, "https://evil.test")],
            &[(origin, "http://auth.test")],
            &[(origin, "https://auth.test.evil.test")],
            &[(origin, "https://auth.test"), (origin, "https://evil.test")],
            &[(site, "same-origin"), (origin, "https://evil.test")],
            &[(site, "same-site"), (origin, "https://auth.test")],
            &[(site, "cross-site"), (origin, "https://auth.test")],
            &[(site, "cross-site"), (site, "same-origin")],
            &[(site, "none")],
            &[(site, "")],
        ] {
            assert!(!check(refused), "{refused:?}");
        }
    }

    #[test]
    fn a_value_holds_for_its_browser_login_and_user_only() {
        let csrf = Csrf::new(&Keyring::parse(&Keyring::generate().unwrap()).unwrap()).unwrap();
        let (here, there) = (BrowserId::mint().unwrap(), BrowserId::mint().unwrap());
        let user = |email| dev::sign_in(email, "", "s".to_owned(), 0).ok().unwrap();
        let (ada, bob) = (user("ada@example.com"), user("bob@example.com"));
        let value = csrf.value(&here, "login", Some(&ada));
        let value = value.expose_secret();
        assert!(csrf.holds(&here, "login", Some(&ada), value));
        assert!(!csrf.holds(&there, "login", Some(&ada), value));
        assert!(!csrf.holds(&here, "other", Some(&ada), value));
        assert!(!csrf.holds(&here, "login", Some(&bob), value));
        assert!(!csrf.holds(&here, "login", None, value));

        // A subject is one provider's name for a person.
        let elsewhere = SignIn {
            provider: "https://id.test".to_owned(),
            ..ada.clone()
        };
        assert!(!csrf.holds(&here, "login", Some(&elsewhere), value));
        assert!(!csrf.holds(&here, "login", Some(&ada), ""));
        assert!(!csrf.holds(&here, "login", Some(&ada), "not base64url"));
    }
}
