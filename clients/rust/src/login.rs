//! One sign-in, from connecting to a stored credential, over as many connections as it takes.
//! Prints nothing and opens nothing: it tells a user interface what to show.

mod attempt;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use vvs_proto::frame::{App, Device, Secret};

use crate::connection::Connection;
use crate::credential::Credential;
use crate::error::Error;
use crate::profile::{Profile, StoredIn};
use crate::server::{Link, Server};
use crate::text::plain;
use crate::tls;

/// The options of a login. [`Options::new`] fills in the values that the `vvs` command uses.
#[derive(Debug, Clone)]
pub struct Options {
    pub server: Server,
    /// PEM file with the certificates to trust instead of the public ones.
    pub ca_file: Option<PathBuf>,
    /// Where to store the credential.
    pub profile: Profile,
    /// Offer no link back from the browser: the person types the code, because the browser is on
    /// another machine.
    pub typed: bool,
    /// The program that the approval page shows.
    pub app: App,
    /// The machine that the approval page shows.
    pub device: Device,
}

impl Options {
    pub fn new(server: Server, profile: Profile) -> Self {
        let name = plain(&gethostname::gethostname().to_string_lossy(), 64);
        Self {
            server,
            ca_file: None,
            profile,
            typed: false,
            app: App {
                name: "vvs".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
            device: Device {
                name,
                os: std::env::consts::OS.to_owned(),
            },
        }
    }
}

/// The person's input. When the sender is dropped, the login continues without input.
#[derive(Debug, Clone)]
pub enum Input {
    /// The code that the browser showed. Case, spaces and dashes do not matter.
    Code(Secret),
    /// Ends the login on both sides.
    Cancel,
}

/// An event for a user interface to show. All texts are safe to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Always show `login_url`; open `link` if it is set. It is not set when the server's URL leads
    /// elsewhere: tell the person. With `changed` it replaces an earlier one, which is dead.
    Link {
        login_url: String,
        link: Option<Link>,
        user_code: String,
        left: Duration,
        changed: bool,
    },
    /// Every second: the whole seconds left.
    Left(Duration),
    /// The person approved. The code arrives by itself when `link` is true and the browser runs on
    /// this machine. A typed code always works, so ask for it.
    Pending { link: bool, attempts_left: u8 },
    /// The code was wrong.
    WrongCode { attempts_left: u8 },
    /// A browser brought a code for a login that is not this one. Somebody may be tricking the
    /// person: warn.
    Stranger,
    /// The connection is lost, and will be retried after this time.
    Lost { retry_after: Duration },
    /// The same login continues on a new connection: the link and the code are still valid.
    Resumed,
    /// A notice about this login.
    Notice(String),
}

/// How a login ended. `Display` describes it in a sentence or two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    SignedIn {
        credential: Box<Credential>,
        place: StoredIn,
    },
    Denied,
    /// By [`Input::Cancel`].
    Cancelled,
    Expired,
    /// Too many wrong codes.
    Burned,
    /// The server ended it without a reason.
    Ended,
}

impl Outcome {
    /// 0 signed in, 3 denied or cancelled, 4 expired, 6 too many wrong codes.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::SignedIn { .. } => 0,
            Self::Denied | Self::Cancelled | Self::Ended => 3,
            Self::Expired => 4,
            Self::Burned => 6,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SignedIn { credential, place } => {
                write!(f, "Signed in as {}.\n{place}", credential.who())
            }
            Self::Denied => f.write_str(
                "The sign-in was denied in the browser. If that was a slip, sign in again.",
            ),
            Self::Cancelled => f.write_str("Cancelled. The link is dead; nothing was stored."),
            Self::Expired => f.write_str(
                "Nobody approved in time, and the link is dead. Sign in again for a new one.",
            ),
            Self::Burned => f.write_str(
                "Too many wrong codes, so this sign-in is over. Sign in again for a new link.",
            ),
            Self::Ended => {
                f.write_str("The server ended this sign-in. Sign in again for a new link.")
            }
        }
    }
}

/// Signs in, with a new device key. Dropping the future ends the login, though the server then
/// keeps it until its time is over.
pub async fn login(
    options: &Options,
    inputs: mpsc::Receiver<Input>,
    show: impl FnMut(Event) + Send,
) -> Result<Outcome, Error> {
    let tls = tls::client(options.ca_file.as_deref())?;
    let dial = |purpose| -> futures_util::future::BoxFuture<'_, _> {
        Box::pin(Connection::open(&options.server, purpose, tls.clone()))
    };
    attempt::run(options, &dial, inputs, show).await
}
