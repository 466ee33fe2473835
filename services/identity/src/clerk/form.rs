//! The sign-in form, which is ClerkJS's own: where its scripts come from, what they are told, and
//! what a page with them may load and speak to.

use askama::Template;

use super::settings::{Base, Config};
use crate::about::{About, SIGN_IN_PATH};
use crate::provider::{Ask, Part, html};
use crate::source::{Nonce, Sources};

/// Below which path each of Clerk's packages has its scripts, here as there.
const SCRIPTS_PATH: &str = "/npm/@clerk";
/// A script of theirs here.
pub(super) const SCRIPT_PATH: &str = "/npm/@clerk/{package}/dist/{file}";
/// Where Clerk's checks for bots and abuse come from.
const CAPTCHA: &str = "https://challenges.cloudflare.com";
const PROTECT: &str = "https://*.protect.clerk.com";

/// What is the same on all sign-in pages.
pub(super) struct Form {
    publishable_key: String,
    proxy_url: Option<String>,
    /// What stands before the paths of scripts: nothing when they come from here.
    scripts: String,
    /// The origin that ClerkJS speaks to.
    frontend_api: String,
}

#[derive(Template)]
#[template(path = "clerk.html")]
struct Page<'a> {
    nonce: &'a Nonce,
    publishable_key: &'a str,
    proxy_url: Option<&'a str>,
    scripts: String,
    /// Where the browser goes once somebody is signed in.
    callback: String,
    /// The page itself, without what it was asked for only once.
    here: String,
    /// The same page again.
    again: String,
    /// Whoever Clerk has signed in to this browser is signed out first: the person wants to be
    /// somebody else, or nobody.
    forgets: bool,
}

impl Form {
    pub(super) fn new(config: &Config, proxy_url: Option<&Base>) -> Self {
        let issuer = config.issuer.to_string();
        let base = proxy_url.map_or_else(|| issuer.clone(), ToString::to_string);

        Self {
            publishable_key: config.publishable_key.clone(),
            proxy_url: proxy_url.map(ToString::to_string),
            scripts: if config.files.is_some() {
                String::new()
            } else {
                base
            },
            frontend_api: proxy_url.map_or(issuer, Base::origin),
        }
    }

    pub(super) fn part(&self, ask: &Ask<'_>) -> Part {
        let here = match ask.about {
            About::Login(_) => ask.about.path(),
            About::Account => SIGN_IN_PATH.to_owned(),
        };

        let forgets = ask.another || ask.signed_out;
        let again = match (forgets, ask.retry) {
            (true, _) => ask.about.another(),
            (false, true) => ask.about.sign_in_again(),
            (false, false) => here.clone(),
        };

        let page = Page {
            nonce: ask.nonce,
            publishable_key: &self.publishable_key,
            proxy_url: self.proxy_url.as_deref(),
            scripts: format!("{}{SCRIPTS_PATH}", self.scripts),
            callback: ask.about.callback(ask.retry),
            here,
            again,
            forgets,
        };

        Part {
            html: html(&page),
            sources: self.sources(ask.nonce),
            ..Part::default()
        }
    }

    /// Browsers that know `strict-dynamic` leave the hosts of scripts aside: what a script with our
    /// nonce loads may run, and nothing else. The other ones keep to the hosts.
    fn sources(&self, nonce: &Nonce) -> Sources {
        let api = &self.frontend_api;
        Sources {
            script: format!("'strict-dynamic' 'self' {api} {CAPTCHA} {PROTECT}"),
            style: format!("'nonce-{nonce}'"),
            // A source without a port stands for the scheme's own only.
            connect: format!("{api} {PROTECT}:*"),
            img: "https://img.clerk.com".to_owned(),
            frame: format!("{CAPTCHA} {PROTECT}"),
            worker: "'self' blob:".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
