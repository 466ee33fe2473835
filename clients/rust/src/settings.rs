//! The settings of the `vvs` command; `--help` is their reference.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use vvs_client::{DEFAULT, Error, Keep, Options, Profile, Server};

/// Signs this machine in to a VVS server, and keeps it signed in.
#[derive(Debug, Parser)]
#[command(name = "vvs", version, after_long_help = EXIT_CODES)]
pub(crate) struct Settings {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Login(Login),
    /// Hold a connection with the stored sign-in and print events, until Ctrl-C or until the
    /// session is over.
    Connect {
        /// A line of JSON for each event.
        #[arg(long)]
        json: bool,
    },
    /// Say who is signed in, where, and until when.
    Status {
        /// Do not ask the server.
        #[arg(long)]
        offline: bool,
    },
    /// Sign out: always forget the sign-in here, and end the session on the server if it can be
    /// reached.
    Logout,
    /// List the profiles: name, server, and who is signed in.
    Profiles,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    /// Which sign-in to use. Each account on each server has a separate profile, under a name of
    /// your choice.
    #[arg(long, global = true, env = "VVS_PROFILE", value_name = "NAME", default_value = DEFAULT)]
    profile: String,
    /// PEM file with the certificates to trust, instead of the public authorities. Remembered from
    /// `login` on.
    #[arg(long, global = true, env = "VVS_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Where the profiles are kept. Default: `$XDG_STATE_HOME/vvs` or `~/.local/state/vvs`; on
    /// macOS `~/Library/Application Support/vvs`; on Windows `%LOCALAPPDATA%\vvs`.
    #[arg(long, global = true, env = "VVS_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// Sign in through the browser.
///
/// Prints a link and a code, opens the link in the browser, and waits until you have signed in
/// there and approved. Before you approve, compare the code on the page with the one printed here:
/// a link from somebody else signs in that person's editor. After you have approved, the browser
/// hands a second code back to this program, if it runs on this machine; otherwise the page shows
/// that code, and you type it here.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Login {
    /// The server to sign in to. Plain http is refused for any machine but this one. Default: the
    /// server that the profile was last signed in to, or else `http://127.0.0.1:8080`.
    #[arg(long, env = "VVS_SERVER", value_name = "URL")]
    server: Option<Server>,
    /// Only print the link, do not open it.
    #[arg(long, env = "VVS_NO_BROWSER", value_parser = FalseyValueParser::new())]
    pub(crate) no_browser: bool,
    /// The browser is on another machine: the page shows the code to type immediately.
    #[arg(long, env = "VVS_TYPED", value_parser = FalseyValueParser::new())]
    typed: bool,
    /// Where to keep the credential. Default: the system's keyring, or a file without one.
    #[arg(long, env = "VVS_STORE", value_name = "PLACE")]
    store: Option<Store>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Store {
    Keyring,
    File,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done; signed in
  1  something else went wrong; the message says what
  2  wrong options
  3  denied, or cancelled with Ctrl-C
  4  expired: nobody approved in time
  5  no server: it cannot be reached or asked, or is no VVS server that this program can use
  6  too many wrong codes
  7  not signed in, or no longer: the server has ended the session";

const EXAMPLES: &str = "\
Examples:
  vvs login
  vvs login --server https://vvs.example.org --profile work
  vvs login --server https://vvs.internal --ca-file ca.crt --no-browser --typed";

impl Login {
    pub(crate) fn options(&self, common: &Common) -> Result<Options, Error> {
        let keep = match self.store {
            None => Keep::Anywhere,
            Some(Store::Keyring) => Keep::Keyring,
            Some(Store::File) => Keep::File,
        };

        let profile = Profile::new(common.state_dir(), &common.profile, keep)?;
        let record = profile.record().unwrap_or_default();
        let server = match (&self.server, &record.server) {
            (Some(server), _) => server.clone(),
            (None, Some(server)) => server.parse()?,
            (None, None) => "http://127.0.0.1:8080".parse()?,
        };

        // The certificates belong to the server.
        let known = record
            .ca_file
            .filter(|_| record.server == Some(server.to_string()));
        let options = Options::new(server, profile);

        Ok(Options {
            ca_file: common.ca_file().or(known),
            typed: self.typed,
            ..options
        })
    }
}

impl Common {
    pub(crate) fn profile(&self) -> Result<Profile, Error> {
        Profile::new(self.state_dir(), &self.profile, Keep::Anywhere)
    }

    pub(crate) fn profiles(&self) -> Result<Vec<Profile>, Error> {
        let dir = self.state_dir();
        Profile::names(&dir)
            .iter()
            .map(|name| Profile::new(&dir, name, Keep::Anywhere))
            .collect()
    }

    /// Absolute, because the next command may run in another folder.
    pub(crate) fn ca_file(&self) -> Option<PathBuf> {
        self.ca_file
            .as_ref()
            .map(|file| std::path::absolute(file).unwrap_or_else(|_| file.clone()))
    }

    fn state_dir(&self) -> PathBuf {
        let state_dir = self
            .state_dir
            .clone()
            .or_else(|| state_dir(|name| std::env::var_os(name)));
        state_dir.unwrap_or_else(|| {
            let message =
                "there is no home directory to keep the sign-in in: give one with --state-dir";
            Settings::command()
                .error(clap::error::ErrorKind::MissingRequiredArgument, message)
                .exit()
        })
    }
}

/// Returns the user's directory for state, by the convention of the operating system.
fn state_dir(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    // The XDG specification says to ignore relative paths, and empty variables count as unset
    // everywhere.
    let folder = |name: &str| {
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = if cfg!(windows) {
        folder("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        folder("HOME").map(|home| home.join("Library/Application Support"))
    } else {
        folder("XDG_STATE_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/state")))
    };

    base.map(|base| base.join("vvs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Settings::command().debug_assert();
    }

    #[test]
    fn a_server_over_plain_http_is_a_usage_error() {
        let error =
            Settings::try_parse_from(["vvs", "login", "--server", "http://vvs.example.org"])
                .unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("Use https"), "{error}");
    }

    #[test]
    fn the_server_and_its_certificates_are_remembered_by_the_profile_unless_another_is_named() {
        let home = tempfile::tempdir().unwrap();
        let record = r#"{"server": "https://vvs.internal", "caFile": "/etc/internal.crt"}"#;
        std::fs::write(home.path().join("credential.work.json"), record).unwrap();
        let options = |more: &[&str]| {
            let dir = home.path().to_str().unwrap();
            let arguments = [&["vvs", "login", "--state-dir", dir], more].concat();
            let Settings {
                common,
                command: Command::Login(login),
            } = Settings::parse_from(arguments)
            else {
                panic!()
            };
            let options = login.options(&common).unwrap();
            (options.server.to_string(), options.ca_file)
        };
        assert_eq!(options(&[]), ("http://127.0.0.1:8080".to_owned(), None));

        let work = ["--profile", "work"];
        assert_eq!(
            options(&work),
            (
                "https://vvs.internal".to_owned(),
                Some("/etc/internal.crt".into())
            )
        );

        let other = options(&["--profile", "work", "--server", "https://vvs.example.org"]);
        assert_eq!(
            other,
            ("https://vvs.example.org".to_owned(), None),
            "another server, other certificates"
        );
        assert_eq!(
            options(&["--profile", "work", "--ca-file", "/x.crt"]).1,
            Some("/x.crt".into())
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_state_directory_follows_xdg() {
        let with = |xdg: Option<&str>, home: Option<&str>| {
            state_dir(|name| if name == "HOME" { home } else { xdg }.map(OsString::from))
        };
        assert_eq!(with(Some("/x"), Some("/home/ada")), Some("/x/vvs".into()));
        assert_eq!(
            with(None, Some("/home/ada")),
            Some("/home/ada/.local/state/vvs".into())
        );
        assert_eq!(
            with(Some("relative"), Some("/home/ada")),
            Some("/home/ada/.local/state/vvs".into())
        );
        assert_eq!(with(Some(""), Some("")), None);
    }
}
