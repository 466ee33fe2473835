//! The `vvs` command. The library does the work.

mod settings;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use tokio::sync::mpsc;
use vvs_client::{Change, End, Error, Input, Profile, SignedOut, Status, Terminal};

use crate::settings::{Command, Common, Login, Settings};

/// Not signed in, or no longer.
const NOT_SIGNED_IN: u8 = 7;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Settings { common, command } = Settings::parse();
    let done = match command {
        Command::Login(settings) => login(&common, &settings).await,
        Command::Connect { json } => connect(&common, json).await,
        Command::Status { offline } => status(&common, offline).await,
        Command::Logout => logout(&common).await,
        Command::Profiles => profiles(&common),
    };

    match done {
        Ok(code) => code.into(),
        Err(error) => {
            say(&format!("vvs: {error}"));
            error.exit_code().into()
        }
    }
}

async fn login(common: &Common, settings: &Login) -> Result<u8, Error> {
    let options = settings.options(common)?;
    let (person, inputs) = mpsc::channel(1);
    let mut terminal = Terminal::new(
        io::stderr(),
        io::stderr().is_terminal(),
        !settings.no_browser,
    )
    .asking(person.clone());
    let cancelling = async {
        ctrl_c().await;
        person.send(Input::Cancel).await.ok();
        std::future::pending().await
    };

    let outcome = tokio::select! {
        outcome = vvs_client::login(&options, inputs, |event| terminal.show(&event)) => outcome,
        never = cancelling => never,
    };
    terminal.end();
    let outcome = outcome?;
    if outcome.exit_code() == 0 {
        tell(&outcome.to_string());
    } else {
        say(&outcome.to_string());
    }

    Ok(outcome.exit_code())
}

async fn connect(common: &Common, json: bool) -> Result<u8, Error> {
    let profile = common.profile()?;
    let show = |change: Change| {
        tell(&if json {
            serde_json::to_string(&change).unwrap_or_default()
        } else {
            line(&change)
        });
    };

    match vvs_client::connect(&profile, common.ca_file(), ctrl_c(), show).await? {
        End::Stopped => Ok(0),
        End::NotSignedIn => Ok(not_signed_in(&profile)),
        End::Over { why } => Ok(over(&why)),
    }
}

/// Returns one line for a person.
fn line(change: &Change) -> String {
    match change {
        Change::SignedIn {
            user,
            session,
            expires_in,
        } => {
            format!(
                "signed in as {user}, session {session}, for {}",
                span(*expires_in)
            )
        }
        Change::Refreshed { expires_in } => format!("fresh token, good for {}", span(*expires_in)),
        Change::Expiring { expires_in } => format!(
            "the session ends in {}; sign in again before",
            span(*expires_in)
        ),
        Change::Lost {
            retry_after_ms,
            why,
        } => format!("connecting again in {retry_after_ms} ms: {why}"),
        Change::Refused { message, .. } => format!("refused for now, still signed in: {message}"),
        Change::NotStored { why } => format!("the fresh token could not be kept: {why}"),
    }
}

async fn status(common: &Common, offline: bool) -> Result<u8, Error> {
    let profile = common.profile()?;
    let Some(stored) = profile.load()? else {
        return Ok(not_signed_in(&profile));
    };

    tell(&format!(
        "{} at {}, profile {}",
        stored.who(),
        stored.server,
        profile.name()
    ));

    if offline {
        tell(&format!(
            "by what is stored here, until {}",
            stored.session_expires_at
        ));
        return Ok(0);
    }

    match vvs_client::status(&profile, common.ca_file()).await? {
        Status::SignedIn {
            credential,
            expires_in,
        } => {
            tell(&format!(
                "the server agrees, until {} ({})",
                credential.session_expires_at,
                span(expires_in)
            ));
            Ok(0)
        }
        Status::NotSignedIn => Ok(not_signed_in(&profile)),
        Status::Over { why } => Ok(over(&why)),
    }
}

async fn logout(common: &Common) -> Result<u8, Error> {
    let profile = common.profile()?;
    match vvs_client::logout(&profile, common.ca_file()).await? {
        SignedOut::WasNot => say(&format!("Profile {} was not signed in.", profile.name())),
        SignedOut::Everywhere => tell("Signed out, here and on the server."),
        SignedOut::HereOnly { server, why } => say(&format!(
            "Signed out here, but the server could not be told: {why}\n\
             To end the session there, go to {server}/account/sessions in a browser."
        )),
    }
    Ok(0)
}

fn profiles(common: &Common) -> Result<u8, Error> {
    for profile in common.profiles()? {
        let server = profile.record()?.server.unwrap_or_default();
        let who = match profile.load() {
            Ok(Some(credential)) => credential.who(),
            Ok(None) => "not signed in".to_owned(),
            Err(error) => error.to_string(),
        };
        tell(&format!("{}\t{server}\t{who}", profile.name()));
    }
    Ok(0)
}

fn not_signed_in(profile: &Profile) -> u8 {
    say(&format!(
        "Profile {} is not signed in. To sign in: vvs login",
        profile.name()
    ));
    NOT_SIGNED_IN
}

fn over(why: &str) -> u8 {
    say(&format!(
        "The server has ended this session ({why}), and the credential was removed. To sign in: \
         vvs login"
    ));
    NOT_SIGNED_IN
}

/// Returns a span of time, rounded down to a unit that a person would use.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Prints the result. When nobody reads it, the exit code still reports it.
fn tell(text: &str) {
    writeln!(io::stdout(), "{text}").ok();
}

/// Prints everything else.
fn say(text: &str) {
    writeln!(io::stderr(), "{text}").ok();
}

async fn ctrl_c() {
    // Where it cannot be caught, it ends the process, and the server sees the connection go.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
