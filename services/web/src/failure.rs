//! Everything that can fail in the browser, in the words that a person reads. Knows neither the
//! cause nor any name or code.

use http::StatusCode;
use tracing::Level;

/// Why a page cannot be shown or an action was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The link names no connection, or not as a UUID.
    MalformedLink,
    /// The form lacks a field or has an unknown one.
    MalformedForm,
    /// The login is unknown, or over for an unknown reason.
    LoginOver,
    Denied,
    Cancelled,
    Expired,
    /// Wrong codes have used up its tries.
    Burned,
    /// The editor has answered that it does not accept this sign-in.
    EditorRefused,
    /// The editor cannot be tied to this browser as strongly as the server requires.
    EditorCannotBind,
    /// The editor waits for its code at an address to which a browser must not be sent.
    UnsafeReturn,
    /// Another browser or account has approved this login.
    Claimed,
    /// Another site caused the request.
    CrossSite,
    /// The form was made for another browser, login or account, or this browser has lost its
    /// cookie.
    StaleForm,
    /// The page belongs to the browser in which the login was approved.
    OtherBrowser,
    /// The identity provider reports no sign-in, twice in a row.
    NotSignedIn,
    /// The data that the browser brought from the identity provider is not trusted.
    NotBelieved,
    /// The person is known to the identity provider, and may not sign in.
    NotAllowed,
    /// The identity provider says that the person is no longer signed in, or the sign-in was ended.
    SignInOver,
    /// It is unknown whether the sign-in was ended.
    Unchecked,
    /// This browser has forgotten the sign-in, and copies of it may still be valid.
    NotEnded,
    /// The person has the maximum number of signed-in editors, and all are in use.
    SessionsFull,
    /// The person has the maximum number of sign-ins that wait for their editors.
    PendingFull,
    /// The person, in all browsers together, asks for more than anybody needs.
    TooOften,
    /// The development provider was called from another machine.
    DevelopmentOnly,
    /// The development provider was called through a proxy or a tunnel.
    DevelopmentThrough,
    /// Too many wrong keys were entered at the development provider.
    TooManyGuesses,
    NotFound,
    WrongMethod,
    /// Another role does not answer.
    Unavailable,
    /// The identity provider does not answer.
    ProviderUnavailable,
    /// A fault of ours.
    Broken,
}

/// The action of a button on the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WayOn {
    Again,
    /// Returns whether the page retries automatically: nothing was done that the person would have
    /// to know about.
    AgainByItself,
    /// Try again, once the person has ended the session of an editor or finished a sign-in there.
    EditorsFirst,
    AnotherAccount,
    /// Continue as a browser that has signed out.
    SignedOut,
}

/// All properties of a reason.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) status: StatusCode,
    pub(crate) title: &'static str,
    /// Returns what happened.
    pub(crate) text: &'static str,
    /// Returns what the person can do.
    pub(crate) advice: &'static str,
    pub(crate) way_on: Option<WayOn>,
    /// The level of its log line.
    pub(crate) level: Level,
}

impl Row {
    /// Returns the label of the button.
    pub(crate) fn label(&self) -> &'static str {
        if self.way_on == Some(WayOn::SignedOut) {
            "Go on"
        } else {
            "Try again"
        }
    }

    pub(crate) fn is_tried_again(&self) -> bool {
        self.way_on == Some(WayOn::AgainByItself)
    }

    pub(crate) fn leads_to_editors(&self) -> bool {
        self.way_on == Some(WayOn::EditorsFirst)
    }

    /// Returns whether a sign-in was under way and an editor may have kept its part of it, so that
    /// the person should check.
    pub(crate) fn leaves_doubt(&self) -> bool {
        matches!(self.status, StatusCode::GONE | StatusCode::CONFLICT)
    }
}

impl Reason {
    /// Returns the row of a reason. This is the only table of the texts; review or translate them
    /// here.
    #[expect(clippy::too_many_lines, reason = "a table, with a row for each reason")]
    pub(crate) fn row(self) -> Row {
        match self {
            Self::MalformedLink => Row {
                status: StatusCode::BAD_REQUEST,
                title: "This link is incomplete",
                text: "A part of the sign-in link is missing or was changed on its way here.",
                advice: "Go back to VVS and open the link from there, or copy all of it.",
                way_on: None,
                level: Level::INFO,
            },
            Self::MalformedForm => Row {
                status: StatusCode::BAD_REQUEST,
                title: "That request was incomplete",
                text: "A part of the form is missing. Nothing was done.",
                advice: "Go back to VVS and open the link again. Do not approve a sign-in that you \
                     did not start yourself.",
                way_on: None,
                level: Level::INFO,
            },
            Self::LoginOver => Row {
                status: StatusCode::GONE,
                title: "This sign-in is over",
                text: "Its link was used, denied or cancelled, or its time ran out.",
                advice: "Start again in VVS. You get a new link and a new code.",
                way_on: None,
                level: Level::INFO,
            },
            Self::Denied => Row {
                status: StatusCode::GONE,
                title: "This sign-in is over",
                text: "It was denied in a browser, and did not finish in VVS.",
                advice: "Start again in VVS. You get a new link and a new code.",
                way_on: None,
                level: Level::INFO,
            },
            Self::Cancelled => Row {
                status: StatusCode::GONE,
                title: "This sign-in is over",
                text: "The editor gave up, or its connection was lost permanently. The sign-in did \
                     not finish in VVS.",
                advice: "Start again in VVS. You get a new link and a new code.",
                way_on: None,
                level: Level::INFO,
            },
            Self::Expired => Row {
                status: StatusCode::GONE,
                title: "This sign-in is over",
                text: "Its time ran out before it had finished in VVS.",
                advice: "Start again in VVS. You get a new link and a new code.",
                way_on: None,
                level: Level::INFO,
            },
            Self::Burned => Row {
                status: StatusCode::GONE,
                title: "Too many wrong codes",
                text: "Wrong codes were entered in the editor too often, so the sign-in was ended \
                     before it finished.",
                advice: "Start again in VVS. If you did not type the codes, somebody tried to \
                     guess yours, without success.",
                way_on: None,
                level: Level::INFO,
            },
            Self::EditorRefused => Row {
                status: StatusCode::GONE,
                title: "Your editor did not take the sign-in",
                text: "It could not store the sign-in, or it does not accept this account.",
                advice: "VVS says why. Start again there when that is solved.",
                way_on: None,
                level: Level::INFO,
            },
            Self::EditorCannotBind => Row {
                status: StatusCode::FORBIDDEN,
                title: "This editor cannot sign in here",
                text: "This server requires a safer way to hand over a sign-in than this editor \
                     supports.",
                advice: "Update VVS, then start again there.",
                way_on: None,
                level: Level::INFO,
            },
            Self::UnsafeReturn => Row {
                status: StatusCode::FORBIDDEN,
                title: "There is no safe way back to this editor",
                text: "It asks for its code at an address that no browser should open, so the code \
                     was not handed over.",
                advice: "Update VVS, then start again there.",
                way_on: None,
                level: Level::INFO,
            },
            Self::Claimed => Row {
                status: StatusCode::CONFLICT,
                title: "This sign-in is already taken",
                text: "It was approved before, in another browser or with another account.",
                advice: "If that was you, there is nothing to do. If not, do not use that editor, \
                     and start again in yours.",
                way_on: None,
                level: Level::INFO,
            },
            Self::CrossSite => Row {
                status: StatusCode::FORBIDDEN,
                title: "Another site sent you here",
                text: "Only our own pages may approve or deny a sign-in. Nothing was done.",
                advice: "Go back to VVS and open the link again. Do not approve a sign-in that you \
                     did not start yourself.",
                way_on: None,
                level: Level::INFO,
            },
            Self::StaleForm => Row {
                status: StatusCode::FORBIDDEN,
                title: "This page was out of date",
                text: "It was open for too long, was made for another account, or your browser \
                     blocks our cookie. Nothing was done.",
                advice: "Open the page again, and check which account it shows before you \
                     continue.",
                way_on: Some(WayOn::Again),
                level: Level::INFO,
            },
            Self::OtherBrowser => Row {
                status: StatusCode::FORBIDDEN,
                title: "This page belongs to another browser",
                text: "Only the browser in which a sign-in was approved can see how it went.",
                advice: "Look there, or in VVS itself: it shows whether you are signed in.",
                way_on: None,
                level: Level::INFO,
            },
            Self::NotSignedIn => Row {
                status: StatusCode::FORBIDDEN,
                title: "You are not signed in yet",
                text: "Your browser came back without a sign-in. It may be blocking our cookies.",
                advice: "Allow cookies for this site, then try again.",
                way_on: Some(WayOn::Again),
                level: Level::INFO,
            },
            Self::NotBelieved => Row {
                status: StatusCode::UNAUTHORIZED,
                title: "This sign-in cannot be trusted",
                text: "The data that your browser brought back from the sign-in service did not \
                     pass our checks.",
                advice: "Sign in again. If it happens again, tell the operator of this server.",
                way_on: Some(WayOn::AnotherAccount),
                level: Level::INFO,
            },
            Self::NotAllowed => Row {
                status: StatusCode::FORBIDDEN,
                title: "This account may not sign in here",
                text: "You did sign in, but the account is locked, or this server does not allow \
                     it.",
                advice: "Use another account, or ask the operator of this server to allow yours.",
                way_on: Some(WayOn::AnotherAccount),
                level: Level::INFO,
            },
            Self::SignInOver => Row {
                status: StatusCode::FORBIDDEN,
                title: "You are no longer signed in",
                text: "You have signed out meanwhile, or your sign-in was ended. Your editor was \
                     not signed in with it.",
                advice: "Sign in again, then approve.",
                way_on: Some(WayOn::Again),
                level: Level::INFO,
            },
            Self::Unchecked => Row {
                status: StatusCode::SERVICE_UNAVAILABLE,
                title: "Your sign-in cannot be checked right now",
                text: "The part of VVS that knows whether you are still signed in does not answer, \
                     so this page shows nothing of yours, and nothing was done.",
                advice: "Try again in a moment.",
                way_on: Some(WayOn::AgainByItself),
                level: Level::WARN,
            },
            Self::NotEnded => Row {
                status: StatusCode::SERVICE_UNAVAILABLE,
                title: "Signed out in this browser only",
                text: "This browser has forgotten who you are, but a part of VVS does not answer. \
                     If somebody has copied its cookies, the copy works until that sign-in \
                     expires.",
                advice: "To be sure, sign in again in a moment and choose “Sign out everywhere”: \
                     that ends every copy.",
                way_on: Some(WayOn::SignedOut),
                level: Level::WARN,
            },
            Self::SessionsFull => Row {
                status: StatusCode::FORBIDDEN,
                title: "Too many editors are signed in",
                text: "Your account has the maximum number that this server allows, and all were \
                     used within the last week. Nothing was approved.",
                advice: "Sign one of them out, then try again. VVS waits meanwhile.",
                way_on: Some(WayOn::EditorsFirst),
                level: Level::INFO,
            },
            Self::PendingFull => Row {
                status: StatusCode::TOO_MANY_REQUESTS,
                title: "Too many sign-ins are unfinished",
                text: "Several editors were approved with your account and have not confirmed it \
                     yet. Nothing was approved.",
                advice: "Finish those in VVS or sign them out, then try again.",
                way_on: Some(WayOn::EditorsFirst),
                level: Level::INFO,
            },
            Self::TooOften => Row {
                status: StatusCode::TOO_MANY_REQUESTS,
                title: "That was too fast",
                text: "Within a minute your account sent more requests than this server allows for \
                     one person.",
                advice: "Try again in a moment.",
                way_on: Some(WayOn::Again),
                level: Level::INFO,
            },
            Self::DevelopmentOnly => Row {
                status: StatusCode::FORBIDDEN,
                title: "Only on the machine itself",
                text: "This server runs with its development sign-in, which signs in anyone as \
                     anyone. It answers only its own machine.",
                advice: "Open the link in a browser on the machine that VVS runs on.",
                way_on: None,
                level: Level::INFO,
            },
            Self::DevelopmentThrough => Row {
                status: StatusCode::FORBIDDEN,
                title: "Not through a proxy or a tunnel",
                text: "This server runs with its development sign-in, which signs in anyone as \
                     anyone, so it answers only browsers on its own machine. This request shows a \
                     sign of a proxy or a tunnel: a header such as X-Forwarded-For or Via, or \
                     HTTP/1.0.",
                advice: "Open the server's own address in a browser on the machine that VVS runs \
                     on. To let other people sign in, choose an identity provider: \
                     VVS_WEB_IDENTITY. A proxy that only you use can be named in \
                     VVS_GATEWAY_TRUSTED_PROXIES; it must name its caller in X-Forwarded-For.",
                way_on: None,
                level: Level::INFO,
            },
            Self::TooManyGuesses => Row {
                status: StatusCode::TOO_MANY_REQUESTS,
                title: "Too many wrong keys",
                text: "This server checks only a few keys each minute.",
                advice: "Wait a minute, then enter the key that was printed when the server \
                     started.",
                way_on: Some(WayOn::Again),
                level: Level::INFO,
            },
            Self::NotFound => Row {
                status: StatusCode::NOT_FOUND,
                title: "There is no such page",
                text: "The address may be misspelled, or the page no longer exists.",
                advice: "To sign in, start in VVS and open the link from there.",
                way_on: None,
                level: Level::INFO,
            },
            Self::WrongMethod => Row {
                status: StatusCode::METHOD_NOT_ALLOWED,
                title: "This address works differently",
                text: "It cannot be opened like a page.",
                advice: "To sign in, start in VVS and open the link from there.",
                way_on: None,
                level: Level::INFO,
            },
            Self::Unavailable => Row {
                status: StatusCode::SERVICE_UNAVAILABLE,
                title: "A part of VVS does not answer",
                text: "Nothing was lost. It usually takes a few seconds.",
                advice: "Try again in a moment.",
                way_on: Some(WayOn::Again),
                level: Level::WARN,
            },
            Self::ProviderUnavailable => Row {
                status: StatusCode::SERVICE_UNAVAILABLE,
                title: "The sign-in service does not answer",
                text: "VVS could not ask it whether you are signed in. Editors that are signed in \
                     stay signed in.",
                advice: "Try again in a moment.",
                way_on: Some(WayOn::Again),
                level: Level::WARN,
            },
            Self::Broken => Row {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                title: "Something broke on our side",
                text: "The details are in our log.",
                advice: "Try again. If the problem remains, tell us the request number below.",
                way_on: Some(WayOn::Again),
                level: Level::ERROR,
            },
        }
    }
}

/// Why an approved sign-in is not in the editor yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It was sent, and the editor has not answered.
    Unacknowledged,
    /// The editor's connection is gone and may come back.
    EditorAway,
    /// A role does not answer.
    Unavailable,
    ProviderUnavailable,
}

impl Trouble {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Unacknowledged => {
                "It was sent to your editor, which has not confirmed it so far."
            }
            Self::EditorAway => {
                "Your editor has lost its connection. It gets the sign-in as soon as it is back."
            }
            Self::ProviderUnavailable => {
                "The service that signs you in does not answer at the moment, so that VVS cannot \
                 ask whether your sign-in still holds. Your approval is not lost."
            }
            Self::Unavailable => {
                "A part of VVS does not answer at the moment. Your approval is not lost."
            }
        }
    }
}
