//! The settings of the `vvs` command; `--help` is their reference.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{CommandFactory as _, Parser, Subcommand};
use vvs_client::{Options, Server};

/// Signs this machine in to a VVS server.
#[derive(Debug, Parser)]
#[command(name = "vvs", version)]
pub(crate) struct Settings {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Login(Login),
}

/// Sign in through the browser.
///
/// Prints a link and a code, opens the link in the browser, and waits until you have signed in there and approved. The
/// browser may be on another machine. Before you approve, compare the code on the page with the one printed here: a
/// link that somebody sent you signs in the editor of whoever sent it.
///
/// The credential goes into the file credential.json in the state directory, in place of an earlier one, and only you
/// can read it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Login {
    /// The server to sign in to. Plain http is refused for any machine but this one.
    #[arg(long, env = "VVS_SERVER", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    server: Server,
    /// Only print the link, do not open it.
    #[arg(long, env = "VVS_NO_BROWSER", value_parser = FalseyValueParser::new())]
    pub(crate) no_browser: bool,
    /// PEM file with the certificates to trust, instead of the public authorities.
    #[arg(long, env = "VVS_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Where the credential is kept. Default: `$XDG_STATE_HOME/vvs` or `~/.local/state/vvs`; on macOS
    /// `~/Library/Application Support/vvs`; on Windows `%LOCALAPPDATA%\vvs`.
    #[arg(long, env = "VVS_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Exit codes:
  0  signed in
  1  something else went wrong; the message says what
  2  wrong options
  3  denied, or cancelled with Ctrl-C
  4  expired: nobody approved in time
  5  no server: it cannot be reached, or is not a VVS server

Examples:
  vvs login
  vvs login --server https://vvs.example.org
  vvs login --server https://vvs.internal --ca-file ca.crt --no-browser";

impl Login {
    pub(crate) fn options(&self) -> Result<Options, clap::Error> {
        let state_dir = self.state_dir.clone().or_else(|| state_dir(|name| std::env::var_os(name)));
        let state_dir = state_dir.ok_or_else(|| {
            let message = "there is no home directory to keep the credential in: give one with --state-dir";
            Settings::command().error(clap::error::ErrorKind::MissingRequiredArgument, message)
        })?;
        Ok(Options { server: self.server.clone(), ca_file: self.ca_file.clone(), state_dir })
    }
}

/// The user's own place for state, by the custom of the operating system.
fn state_dir(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    // The XDG specification says to ignore relative paths, and empty variables count as unset everywhere.
    let folder = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
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
        let error = Settings::try_parse_from(["vvs", "login", "--server", "http://vvs.example.org"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("Use https"), "{error}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_state_directory_follows_xdg() {
        let with = |xdg: Option<&str>, home: Option<&str>| {
            state_dir(|name| if name == "HOME" { home } else { xdg }.map(OsString::from))
        };
        assert_eq!(with(Some("/x"), Some("/home/ada")), Some("/x/vvs".into()));
        assert_eq!(with(None, Some("/home/ada")), Some("/home/ada/.local/state/vvs".into()));
        assert_eq!(with(Some("relative"), Some("/home/ada")), Some("/home/ada/.local/state/vvs".into()));
        assert_eq!(with(Some(""), Some("")), None);
    }
}
