//! The sign-in form of ClerkJS: where its scripts come from, their parameters, and what a page with
//! them may load and connect to.

use askama::Template;

use super::settings::{Base, Config};
use crate::about::{About, SIGN_IN_PATH};
use crate::provider::{Ask, Part, html};
use crate::source::{Nonce, Sources};

/// The path below which each of Clerk's packages has its scripts, here and at Clerk.
const SCRIPTS_PATH: &str = "/npm/@clerk";
/// The path of one of their scripts here.
pub(super) const SCRIPT_PATH: &str = "/npm/@clerk/{package}/dist/{file}";
/// The source of Clerk's checks for bots and abuse.
const CAPTCHA: &str = "https://challenges.cloudflare.com";
const PROTECT: &str = "https://*.protect.clerk.com";

/// The values that are the same on all sign-in pages.
pub(super) struct ClerkForm {
    publishable_key: String,
    proxy_url: Option<String>,
    /// The prefix of the paths of scripts: empty when they come from here.
    scripts: String,
    /// The origin that ClerkJS connects to.
    frontend_api: String,
}

#[derive(Template)]
#[template(path = "clerk.html")]
struct ClerkPart<'a> {
    nonce: &'a Nonce,
    publishable_key: &'a str,
    proxy_url: Option<&'a str>,
    scripts: String,
    /// Where the browser goes after the sign-in.
    callback: String,
    /// The page itself, without one-time parameters.
    here: String,
    /// The URL that opens the same page again.
    again: String,
    /// Whether to sign out the current user of Clerk in this browser first: the person wants to use
    /// another account, or none.
    forgets: bool,
}

impl ClerkForm {
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

        let page = ClerkPart {
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

    /// Returns the sources. Browsers that know `strict-dynamic` ignore the hosts of scripts: a
    /// script that a script with our nonce loads may run, and no other. Other browsers check the
    /// hosts.
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
