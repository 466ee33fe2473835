//! Exit codes, and the messages on standard error before them.

use std::io::Write as _;
use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::Error;

/// Bad settings (`EX_CONFIG` of sysexits).
const CONFIG: u8 = 78;

/// Returns the exit code for a refused command line. Help and version are successes; a bad value is
/// a bad setting; everything else is wrong usage.
pub fn usage(refused: &clap::Error) -> ExitCode {
    let kind = refused.kind();
    let code = if matches!(kind, ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        0
    } else if matches!(kind, ErrorKind::InvalidValue | ErrorKind::ValueValidation) {
        CONFIG
    } else {
        2
    };
    // Nowhere left to say that standard error is closed.
    refused.print().ok();
    ExitCode::from(code)
}

/// Prints warnings that do not stop the process.
pub(crate) fn warn(lines: &[String]) {
    for line in lines {
        say(&format!("warning: {line}"));
    }
}

/// Bad settings end with 78, anything else with 1.
pub fn report(error: &Error) -> ExitCode {
    say(&format!("error: {error}"));

    match error {
        Error::Settings(_) => {
            say(
                "`vvs-mesh check` reads the same settings and says what is wrong; `--help` \
                 documents each.",
            );
            ExitCode::from(CONFIG)
        }
        Error::File { .. }
        | Error::Bind { .. }
        | Error::Tls(_)
        | Error::Key { .. }
        | Error::Random(_)
        | Error::Certificate(_)
        | Error::Io(_)
        | Error::Editor(_)
        | Error::Sessions(_)
        | Error::Time(_)
        | Error::Role { .. } => ExitCode::FAILURE,
    }
}

fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").ok();
}
