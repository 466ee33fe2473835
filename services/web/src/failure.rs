//! What can go wrong in the browser, in the words a person reads. Knows neither the cause nor any name or code.

use http::StatusCode;

/// Why a page cannot be shown or an action was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The link names no connection, or not as a UUID.
    MalformedLink,
    /// The form lacks a field or holds one that is none of ours.
    MalformedForm,
    /// The login is unknown, or over for a reason that is not known here.
    LoginOver,
    Denied,
    Cancelled,
    Expired,
    /// Wrong codes have used up its tries.
    Burned,
    /// The editor has answered that it does not take this sign-in.
    EditorRefused,
    /// The editor cannot be tied to this browser as strongly as the server asks.
    EditorCannotBind,
    /// Another browser or account has approved this login.
    Claimed,
    /// The request was caused by another site.
    CrossSite,
    /// The form was made for another browser, login or account, or this browser has lost its cookie.
    StaleForm,
    /// The page belongs to the browser in which the login was approved.
    OtherBrowser,
    /// The identity provider knows of no sign-in, twice in a row.
    NotSignedIn,
    /// The development provider was called from another machine.
    DevelopmentOnly,
    NotFound,
    WrongMethod,
    /// Another role or the identity provider does not answer.
    Unavailable,
    /// Ours to repair.
    Broken,
}

impl Reason {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::MalformedLink | Self::MalformedForm => StatusCode::BAD_REQUEST,
            Self::LoginOver | Self::Denied | Self::Cancelled | Self::Expired | Self::Burned | Self::EditorRefused => {
                StatusCode::GONE
            }
            Self::Claimed => StatusCode::CONFLICT,
            Self::EditorCannotBind
            | Self::CrossSite
            | Self::StaleForm
            | Self::OtherBrowser
            | Self::NotSignedIn
            | Self::DevelopmentOnly => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Broken => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::MalformedLink => "This link is not complete",
            Self::MalformedForm => "That did not arrive whole",
            Self::LoginOver | Self::Denied | Self::Cancelled | Self::Expired => "This sign-in is over",
            Self::Burned => "Too many wrong codes",
            Self::EditorRefused => "Your editor did not take the sign-in",
            Self::EditorCannotBind => "This editor cannot sign in here",
            Self::Claimed => "This sign-in is already taken",
            Self::CrossSite => "Another site sent you here",
            Self::StaleForm => "This page was out of date",
            Self::OtherBrowser => "This page belongs to another browser",
            Self::NotSignedIn => "You are not signed in yet",
            Self::DevelopmentOnly => "Only on the machine itself",
            Self::NotFound => "There is no such page",
            Self::WrongMethod => "This address works differently",
            Self::Unavailable => "A part of VVS does not answer",
            Self::Broken => "Something broke on our side",
        }
    }

    /// What happened.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::MalformedLink => "A part of the sign-in link is missing or was changed on its way here.",
            Self::MalformedForm => "A part of what this page should have sent is missing. Nobody was signed in.",
            Self::LoginOver => "Its link was used, denied or cancelled, or its time ran out.",
            Self::Denied => "It was denied in a browser. Nobody was signed in.",
            Self::Cancelled => "The editor gave up, or its connection was lost for good. Nobody was signed in.",
            Self::Expired => "Its time ran out before it was finished. Nobody was signed in.",
            Self::Burned => {
                "The editor was given a wrong code too often, so the sign-in was ended, and its session with it. \
                 Nobody was signed in."
            }
            Self::EditorRefused => {
                "It could not store the sign-in, or it does not accept this account. Nobody was signed in."
            }
            Self::EditorCannotBind => {
                "This server asks for a safer way to hand over a sign-in than this editor knows. Nobody was signed in."
            }
            Self::Claimed => "It was approved before, in another browser or with another account.",
            Self::CrossSite => "Only our own pages may approve or deny a sign-in. Nothing was done.",
            Self::StaleForm => {
                "It was open for long, was made for another account, or your browser blocks our cookie. Nothing was done."
            }
            Self::OtherBrowser => "Only the browser in which a sign-in was approved can see how it went.",
            Self::NotSignedIn => "Your browser came back without a sign-in. It may be blocking our cookies.",
            Self::DevelopmentOnly => {
                "This server runs with its development sign-in, which lets in anyone as anyone. It answers no other machine."
            }
            Self::NotFound => "The address may be misspelled or the page gone.",
            Self::WrongMethod => "It cannot be opened like a page.",
            Self::Unavailable => "Nothing was lost, and nobody was signed in. It mostly takes a few seconds.",
            Self::Broken => "We have written down what happened. Nobody was signed in.",
        }
    }

    /// What the person can do.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::MalformedLink => "Go back to VVS and open the link from there, or copy all of it.",
            Self::LoginOver | Self::Denied | Self::Cancelled | Self::Expired => {
                "Start again in VVS. You get a new link and a new code."
            }
            Self::Burned => {
                "Start again in VVS. If it was not you who typed the codes, somebody has tried to guess yours, in vain."
            }
            Self::EditorRefused => "VVS says why. Start again there when that is solved.",
            Self::EditorCannotBind => "Update VVS, then start again there.",
            Self::Claimed => {
                "If that was you, there is nothing to do. If not, do not use that editor, and start again in yours."
            }
            Self::MalformedForm | Self::CrossSite => {
                "Go back to VVS and open the link again. Do not approve what you did not start yourself."
            }
            Self::StaleForm => "Open the page again, and look which account it names before you go on.",
            Self::OtherBrowser => "Look there, or in VVS itself: it shows whether you are signed in.",
            Self::NotSignedIn => "Allow cookies for this site, then try again.",
            Self::DevelopmentOnly => "Open the link in a browser on the machine that VVS runs on.",
            Self::NotFound | Self::WrongMethod => "To sign in, start in VVS and open the link from there.",
            Self::Unavailable => "Try again in a moment.",
            Self::Broken => "Try again. If it stays broken, tell us the number of the request below.",
        }
    }
}
