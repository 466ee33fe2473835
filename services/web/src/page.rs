//! The pages: their content and status. Knows no route, no cookie, no relay and no provider.

use std::{fmt, net::IpAddr};

use askama::Template;
use http::{Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use time::{Duration, OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};
use vvs_identity::{Nonce, Part, SignIn, Sources};
use vvs_proto::ReturnUri;

use crate::{
    editor::Editor,
    failure::{Row, Trouble},
    header::{self, PageKind},
};

mod account;
mod dev_key;
mod handback;
mod stopped;
#[cfg(test)]
mod tests;

pub(crate) use account::{AccountSessions, AccountSignIn};
pub(crate) use dev_key::DevKeyPage;
pub(crate) use handback::{HandBackPage, HeldPage};
pub(crate) use stopped::Stopped;

/// The values that every page needs.
pub(crate) struct Shell {
    pub(crate) nonce: Nonce,
    /// The development provider is active, and the page has to say so.
    pub(crate) development: bool,
}

pub(crate) trait Page: Template {
    const KIND: PageKind;

    fn shell(&self) -> &Shell;

    fn status(&self) -> StatusCode {
        StatusCode::OK
    }

    /// Returns the sources that it needs besides our own files.
    fn sources(&self) -> Sources {
        Sources::default()
    }
}

/// Returns the whole answer: status, headers and text.
pub(crate) fn answer<P: Page>(page: &P) -> Response<String> {
    let (status, headers, body) = match page.render() {
        Ok(html) => (
            page.status(),
            header::page(P::KIND, &page.shell().nonce, &page.sources()),
            html,
        ),
        Err(cause) => {
            tracing::error!(%cause, "a page could not be rendered");
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                header::common(),
                String::new(),
            )
        }
    };

    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;

    response
}

/// Asks the person to sign in; the provider's part leads on.
#[derive(Template)]
#[template(path = "login.html")]
pub(crate) struct LoginPage {
    pub(crate) shell: Shell,
    pub(crate) part: Part,
    pub(crate) user_code: UserCode,
    /// How long the login can still be approved.
    pub(crate) expires_in: Duration,
    /// The browser came back from here without a sign-in.
    pub(crate) retry: bool,
}

impl LoginPage {
    fn time_left(&self) -> String {
        if self.expires_in < Duration::MINUTE {
            "minute at most".to_owned()
        } else {
            in_words(self.expires_in)
        }
    }
}

impl Page for LoginPage {
    const KIND: PageKind = PageKind::Form;

    fn shell(&self) -> &Shell {
        &self.shell
    }

    fn status(&self) -> StatusCode {
        if self.part.is_wrong {
            StatusCode::BAD_REQUEST
        } else {
            StatusCode::OK
        }
    }

    fn sources(&self) -> Sources {
        self.part.sources.clone()
    }
}

/// Shows who would sign in which editor, and asks for a decision.
#[derive(Template)]
#[template(path = "approval.html")]
pub(crate) struct ApprovalPage {
    pub(crate) shell: Shell,
    pub(crate) connection_id: String,
    pub(crate) csrf: SecretString,
    pub(crate) account: Account,
    pub(crate) user_code: UserCode,
    pub(crate) editor: Editor,
    /// Where this browser will take the one-time code.
    pub(crate) return_uri: Option<ReturnUri>,
    /// Where the editor connected from.
    pub(crate) address: IpAddr,
    pub(crate) place: Nearness,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) now: OffsetDateTime,
    /// The form came back with the box not ticked.
    pub(crate) unconfirmed: bool,
}

impl ApprovalPage {
    fn created(&self) -> String {
        exact(self.created_at)
    }

    /// Returns the age, both relative and absolute, because the page may stay open and the relative
    /// part gets outdated.
    fn age(&self) -> String {
        let age = (self.now - self.created_at).max(Duration::ZERO);
        let at = self.created_at.to_offset(UtcOffset::UTC);
        format!(
            "{} ago, at {:02}:{:02} UTC",
            in_words(age),
            at.hour(),
            at.minute()
        )
    }
}

impl Page for ApprovalPage {
    const KIND: PageKind = PageKind::Form;

    fn shell(&self) -> &Shell {
        &self.shell
    }

    fn status(&self) -> StatusCode {
        if self.unconfirmed {
            StatusCode::BAD_REQUEST
        } else {
            StatusCode::OK
        }
    }
}

/// Approved, and the editor has not acknowledged yet: sends the same approval again.
#[derive(Template)]
#[template(path = "delivery.html")]
pub(crate) struct Delivery {
    pub(crate) shell: Shell,
    pub(crate) connection_id: String,
    pub(crate) csrf: SecretString,
    pub(crate) trouble: Trouble,
    pub(crate) request_id: String,
}

impl Page for Delivery {
    const KIND: PageKind = PageKind::Form;

    fn shell(&self) -> &Shell {
        &self.shell
    }

    fn status(&self) -> StatusCode {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

/// Not approved yet, and the editor's connection is gone but may come back.
#[derive(Template)]
#[template(path = "waiting.html")]
pub(crate) struct WaitingPage {
    pub(crate) shell: Shell,
    pub(crate) connection_id: String,
}

impl Page for WaitingPage {
    const KIND: PageKind = PageKind::Text;

    fn shell(&self) -> &Shell {
        &self.shell
    }
}

/// Denied, and the editor cannot be told yet: sends the same denial again.
#[derive(Template)]
#[template(path = "denial.html")]
pub(crate) struct Denial {
    pub(crate) shell: Shell,
    pub(crate) connection_id: String,
    pub(crate) csrf: SecretString,
    pub(crate) trouble: Trouble,
}

impl Page for Denial {
    const KIND: PageKind = PageKind::Form;

    fn shell(&self) -> &Shell {
        &self.shell
    }

    fn status(&self) -> StatusCode {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

#[derive(Template)]
#[template(path = "denied.html")]
pub(crate) struct Denied {
    pub(crate) shell: Shell,
}

impl Page for Denied {
    const KIND: PageKind = PageKind::Text;

    fn shell(&self) -> &Shell {
        &self.shell
    }
}

#[derive(Template)]
#[template(path = "success.html")]
pub(crate) struct Success {
    pub(crate) shell: Shell,
    /// Unknown once another account is signed in to the browser.
    pub(crate) account: Option<Account>,
    pub(crate) editor: Editor,
}

impl Page for Success {
    const KIND: PageKind = PageKind::Text;

    fn shell(&self) -> &Shell {
        &self.shell
    }
}

#[derive(Template)]
#[template(path = "failure.html")]
pub(crate) struct FailurePage {
    pub(crate) shell: Shell,
    pub(crate) row: Row,
    /// The target of "Try again", one of our paths; `None` where trying again does not help.
    pub(crate) again: Option<String>,
    pub(crate) request_id: String,
}

impl Page for FailurePage {
    const KIND: PageKind = PageKind::Text;

    fn shell(&self) -> &Shell {
        &self.shell
    }

    fn status(&self) -> StatusCode {
        self.row.status
    }
}

/// The code that the editor shows too, as `XXXX-XXXX`.
pub(crate) struct UserCode(pub(crate) String);

impl UserCode {
    /// Returns it letter by letter, with a pause between the groups: a screen reader would try to
    /// pronounce the code as a word.
    fn spelled(&self) -> String {
        let spell = |group: &str| {
            group
                .chars()
                .map(String::from)
                .collect::<Vec<_>>()
                .join(" ")
        };
        self.0.split('-').map(spell).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for UserCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The person who is signed in to the browser. No picture: it would tell the picture's host who
/// signs in and when.
pub(crate) struct Account {
    pub(crate) name: Option<String>,
    pub(crate) email: Option<String>,
    /// Whether the provider says that the address belongs to the person.
    pub(crate) email_verified: bool,
}

impl Account {
    pub(crate) fn of(who: &SignIn) -> Self {
        Self {
            name: who.shown_name(),
            email: who.email.clone(),
            email_verified: who.email_verified,
        }
    }

    fn title(&self) -> &str {
        self.name
            .as_deref()
            .or(self.email.as_deref())
            .unwrap_or("An account without a name")
    }

    /// Returns the email, unless it is the title already.
    fn second_line(&self) -> Option<&str> {
        self.name.as_ref().and(self.email.as_deref())
    }

    fn initials(&self) -> String {
        let mut words = self
            .title()
            .split_whitespace()
            .filter_map(|word| word.chars().find(|c| c.is_alphanumeric()));
        let first = words.next();
        let last = if self.name.is_some() {
            words.next_back()
        } else {
            None
        };

        first
            .into_iter()
            .chain(last)
            .flat_map(char::to_uppercase)
            .collect()
    }
}

/// How the editor's address compares with the browser's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nearness {
    ThisMachine,
    SameNetwork,
    OtherNetwork,
    /// One is IPv4 and the other IPv6; one machine may use both at the same time.
    Incomparable,
}

impl Nearness {
    /// Compares two addresses. An IPv6 host changes the lower half of its address freely, so only
    /// the upper half counts.
    pub(crate) fn compare(editor: IpAddr, browser: IpAddr) -> Self {
        let (editor, browser) = (editor.to_canonical(), browser.to_canonical());
        let same = match (editor, browser) {
            _ if editor.is_loopback() && browser.is_loopback() => return Self::ThisMachine,
            (IpAddr::V4(editor), IpAddr::V4(browser)) => editor == browser,
            (IpAddr::V6(editor), IpAddr::V6(browser)) => {
                editor.segments()[..4] == browser.segments()[..4]
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                return Self::Incomparable;
            }
        };

        if same {
            Self::SameNetwork
        } else {
            Self::OtherNetwork
        }
    }
}

/// Formats a time for the `datetime` of a `<time>`.
fn exact(at: OffsetDateTime) -> String {
    at.to_offset(UtcOffset::UTC)
        .format(&Rfc3339)
        .unwrap_or_default()
}

/// Formats a time, both relative and absolute, because a page may stay open and the relative part
/// gets outdated.
fn ago(at: OffsetDateTime, now: OffsetDateTime) -> String {
    let age = (now - at).max(Duration::ZERO);
    let at = at.to_offset(UtcOffset::UTC);
    let (day, month, year) = (at.day(), at.month(), at.year());
    format!(
        "{} ago, on {day} {month} {year} at {:02}:{:02} UTC",
        in_words(age),
        at.hour(),
        at.minute()
    )
}

/// Formats a span in the largest whole unit up to days, rounded down.
fn in_words(span: Duration) -> String {
    let (count, unit) = match span.whole_seconds() {
        seconds @ ..60 => (seconds, "second"),
        seconds @ 60..3600 => (seconds / 60, "minute"),
        seconds @ 3600..86400 => (seconds / 3600, "hour"),
        seconds => (seconds / 86400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}
