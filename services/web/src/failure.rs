//! What can go wrong in the browser, in the words a person reads. Knows neither the cause nor any
//! name or code.

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
    /// The editor waits for its code where a browser must not be led.
    UnsafeReturn,
    /// Another browser or account has approved this login.
    Claimed,
    /// The request was caused by another site.
    CrossSite,
    /// The form was made for another browser, login or account, or this browser has lost its
    /// cookie.
    StaleForm,
    /// The page belongs to the browser in which the login was approved.
    OtherBrowser,
    /// The identity provider knows of no sign-in, twice in a row.
    NotSignedIn,
    /// What the browser brought from the identity provider is not to be believed.
    NotBelieved,
    /// The person is known to the identity provider, and may not sign in.
    NotAllowed,
    /// The identity provider says that the person is signed in no more, or the sign-in was ended.
    SignInOver,
    /// Whether the sign-in was ended cannot be asked.
    Unchecked,
    /// This browser has forgotten the sign-in, and its copies may be good still.
    NotEnded,
    /// The person has as many editors signed in as may be, and all are in use.
    SessionsFull,
    /// As many sign-ins of the person wait for their editors as may.
    PendingFull,
    /// The person, in whatever browser, asks for more than anybody needs.
    TooOften,
    /// The development provider was called from another machine.
    DevelopmentOnly,
    /// The development provider was called through a proxy or a tunnel.
    DevelopmentThrough,
    /// Too many wrong keys were shown to the development provider.
    TooManyGuesses,
    NotFound,
    WrongMethod,
    /// Another role does not answer.
    Unavailable,
    /// The identity provider does not answer.
    ProviderUnavailable,
    /// Ours to repair.
    Broken,
}

/// What a button on the page can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WayOn {
    Again,
    AnotherAccount,
    /// Go on from where a browser is that has signed out.
    SignedOut,
}

impl WayOn {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Again | Self::AnotherAccount => "Try again",
            Self::SignedOut => "Go on",
        }
    }
}

/// What happened to a request that came through something to the development sign-in.
const DEVELOPMENT_THROUGH: &str = "This server runs with its development sign-in, which signs in \
    anyone as anyone, so it answers only browsers on its own machine. This request shows a sign \
    of a proxy or a tunnel: a header such as X-Forwarded-For or Via, or HTTP/1.0.";

impl Reason {
    pub(crate) fn way_on(self) -> Option<WayOn> {
        match self {
            Self::Unavailable
            | Self::ProviderUnavailable
            | Self::NotSignedIn
            | Self::SignInOver
            | Self::Unchecked
            | Self::StaleForm
            | Self::TooManyGuesses
            | Self::SessionsFull
            | Self::PendingFull
            | Self::TooOften
            | Self::Broken => Some(WayOn::Again),
            Self::NotEnded => Some(WayOn::SignedOut),
            Self::NotBelieved | Self::NotAllowed => Some(WayOn::AnotherAccount),
            Self::MalformedLink
            | Self::MalformedForm
            | Self::LoginOver
            | Self::Denied
            | Self::Cancelled
            | Self::Expired
            | Self::Burned
            | Self::EditorRefused
            | Self::EditorCannotBind
            | Self::UnsafeReturn
            | Self::Claimed
            | Self::CrossSite
            | Self::OtherBrowser
            | Self::DevelopmentOnly
            | Self::DevelopmentThrough
            | Self::NotFound
            | Self::WrongMethod => None,
        }
    }

    /// What stands on the button.
    pub(crate) fn label(self) -> &'static str {
        self.way_on().map_or("", WayOn::label)
    }

    /// The page asks again by itself: nothing was done that the person would have to know of.
    pub(crate) fn is_tried_again(self) -> bool {
        self == Self::Unchecked
    }

    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::MalformedLink | Self::MalformedForm => StatusCode::BAD_REQUEST,
            Self::LoginOver
            | Self::Denied
            | Self::Cancelled
            | Self::Expired
            | Self::Burned
            | Self::EditorRefused => StatusCode::GONE,
            Self::Claimed => StatusCode::CONFLICT,
            Self::EditorCannotBind
            | Self::UnsafeReturn
            | Self::CrossSite
            | Self::StaleForm
            | Self::OtherBrowser
            | Self::NotSignedIn
            | Self::NotAllowed
            | Self::SignInOver
            | Self::SessionsFull
            | Self::DevelopmentOnly
            | Self::DevelopmentThrough => StatusCode::FORBIDDEN,
            Self::TooManyGuesses | Self::PendingFull | Self::TooOften => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::NotBelieved => StatusCode::UNAUTHORIZED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unavailable | Self::ProviderUnavailable | Self::Unchecked | Self::NotEnded => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Broken => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// A sign-in was under way, and an editor may have kept its part of it: the person had better
    /// look.
    pub(crate) fn leaves_doubt(self) -> bool {
        matches!(self.status(), StatusCode::GONE | StatusCode::CONFLICT)
    }

    /// The person has to end the session of an editor, or finish a sign-in there.
    pub(crate) fn leads_to_editors(self) -> bool {
        matches!(self, Self::SessionsFull | Self::PendingFull)
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::MalformedLink => "This link is incomplete",
            Self::MalformedForm => "That request was incomplete",
            Self::LoginOver | Self::Denied | Self::Cancelled | Self::Expired => {
                "This sign-in is over"
            }
            Self::Burned => "Too many wrong codes",
            Self::EditorRefused => "Your editor did not take the sign-in",
            Self::EditorCannotBind => "This editor cannot sign in here",
            Self::UnsafeReturn => "There is no safe way back to this editor",
            Self::Claimed => "This sign-in is already taken",
            Self::CrossSite => "Another site sent you here",
            Self::StaleForm => "This page was out of date",
            Self::OtherBrowser => "This page belongs to another browser",
            Self::NotSignedIn => "You are not signed in yet",
            Self::NotBelieved => "This sign-in cannot be trusted",
            Self::NotAllowed => "This account may not sign in here",
            Self::SignInOver => "You are no longer signed in",
            Self::Unchecked => "Your sign-in cannot be checked right now",
            Self::NotEnded => "Signed out in this browser only",
            Self::SessionsFull => "Too many editors are signed in",
            Self::PendingFull => "Too many sign-ins are unfinished",
            Self::TooOften => "That was too fast",
            Self::DevelopmentOnly => "Only on the machine itself",
            Self::DevelopmentThrough => "Not through a proxy or a tunnel",
            Self::TooManyGuesses => "Too many wrong keys",
            Self::NotFound => "There is no such page",
            Self::WrongMethod => "This address works differently",
            Self::Unavailable => "A part of VVS does not answer",
            Self::ProviderUnavailable => "The sign-in service does not answer",
            Self::Broken => "Something broke on our side",
        }
    }

    /// What happened.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::MalformedLink => {
                "A part of the sign-in link is missing or was changed on its way here."
            }
            Self::MalformedForm => "A part of the form is missing. Nothing was done.",
            Self::LoginOver => "Its link was used, denied or cancelled, or its time ran out.",
            Self::Denied => "It was denied in a browser, and did not finish in VVS.",
            Self::Cancelled => {
                "The editor gave up, or its connection was lost permanently. The sign-in did not \
                 finish in VVS."
            }
            Self::Expired => "Its time ran out before it had finished in VVS.",
            Self::Burned => {
                "Wrong codes were entered in the editor too often, so the sign-in was ended \
                 before it finished."
            }
            Self::EditorRefused => {
                "It could not store the sign-in, or it does not accept this account."
            }
            Self::EditorCannotBind => {
                "This server requires a safer way to hand over a sign-in than this editor supports."
            }
            Self::UnsafeReturn => {
                "It asks for its code at an address that no browser should open, so the code was \
                 not handed over."
            }
            Self::Claimed => "It was approved before, in another browser or with another account.",
            Self::CrossSite => {
                "Only our own pages may approve or deny a sign-in. Nothing was done."
            }
            Self::StaleForm => {
                "It was open for too long, was made for another account, or your browser blocks \
                 our cookie. Nothing was done."
            }
            Self::OtherBrowser => {
                "Only the browser in which a sign-in was approved can see how it went."
            }
            Self::NotSignedIn => {
                "Your browser came back without a sign-in. It may be blocking our cookies."
            }
            Self::NotBelieved => {
                "The data that your browser brought back from the sign-in service did not pass \
                 our checks."
            }
            Self::NotAllowed => {
                "You did sign in, but the account is locked, or this server does not allow it."
            }
            Self::SignInOver => {
                "You have signed out meanwhile, or your sign-in was ended. Your editor was not \
                 signed in with it."
            }
            Self::Unchecked => {
                "The part of VVS that knows whether you are still signed in does not answer, so \
                 this page shows nothing of yours, and nothing was done."
            }
            Self::NotEnded => {
                "This browser has forgotten who you are, but a part of VVS does not answer. If \
                 somebody has copied its cookies, the copy works until that sign-in expires."
            }
            Self::SessionsFull => {
                "Your account has the maximum number that this server allows, and all were used \
                 within the last week. Nothing was approved."
            }
            Self::PendingFull => {
                "Several editors were approved with your account and have not confirmed it yet. \
                 Nothing was approved."
            }
            Self::TooOften => {
                "Within a minute your account sent more requests than this server allows for one \
                 person."
            }
            Self::DevelopmentOnly => {
                "This server runs with its development sign-in, which signs in anyone as anyone. \
                 It answers only its own machine."
            }
            Self::DevelopmentThrough => DEVELOPMENT_THROUGH,
            Self::TooManyGuesses => "This server checks only a few keys each minute.",
            Self::NotFound => "The address may be misspelled, or the page no longer exists.",
            Self::WrongMethod => "It cannot be opened like a page.",
            Self::Unavailable => "Nothing was lost. It usually takes a few seconds.",
            Self::ProviderUnavailable => {
                "VVS could not ask it whether you are signed in. Editors that are signed in stay \
                 signed in."
            }
            Self::Broken => "The details are in our log.",
        }
    }

    /// What the person can do.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            Self::MalformedLink => {
                "Go back to VVS and open the link from there, or copy all of it."
            }
            Self::LoginOver | Self::Denied | Self::Cancelled | Self::Expired => {
                "Start again in VVS. You get a new link and a new code."
            }
            Self::Burned => {
                "Start again in VVS. If you did not type the codes, somebody tried to guess \
                 yours, without success."
            }
            Self::EditorRefused => "VVS says why. Start again there when that is solved.",
            Self::EditorCannotBind | Self::UnsafeReturn => "Update VVS, then start again there.",
            Self::Claimed => {
                "If that was you, there is nothing to do. If not, do not use that editor, and \
                 start again in yours."
            }
            Self::MalformedForm | Self::CrossSite => {
                "Go back to VVS and open the link again. Do not approve a sign-in that you did \
                 not start yourself."
            }
            Self::StaleForm => {
                "Open the page again, and check which account it shows before you continue."
            }
            Self::OtherBrowser => {
                "Look there, or in VVS itself: it shows whether you are signed in."
            }
            Self::NotSignedIn => "Allow cookies for this site, then try again.",
            Self::NotBelieved => {
                "Sign in again. If it happens again, tell the operator of this server."
            }
            Self::NotAllowed => {
                "Use another account, or ask the operator of this server to allow yours."
            }
            Self::SignInOver => "Sign in again, then approve.",
            Self::NotEnded => {
                "To be sure, sign in again in a moment and choose “Sign out everywhere”: that \
                 ends every copy."
            }
            Self::DevelopmentOnly => "Open the link in a browser on the machine that VVS runs on.",
            Self::DevelopmentThrough => {
                "Open the server's own address in a browser on the machine that VVS runs on. To \
                 let other people sign in, choose an identity provider: VVS_WEB_IDENTITY. A proxy \
                 that only you use can be named in VVS_GATEWAY_TRUSTED_PROXIES; it must name its \
                 caller in X-Forwarded-For."
            }
            Self::TooManyGuesses => {
                "Wait a minute, then enter the key that was printed when the server started."
            }
            Self::NotFound | Self::WrongMethod => {
                "To sign in, start in VVS and open the link from there."
            }
            Self::SessionsFull => "Sign one of them out, then try again. VVS waits meanwhile.",
            Self::PendingFull => "Finish those in VVS or sign them out, then try again.",
            Self::Unavailable | Self::ProviderUnavailable | Self::Unchecked | Self::TooOften => {
                "Try again in a moment."
            }
            Self::Broken => "Try again. If the problem remains, tell us the request number below.",
        }
    }
}
