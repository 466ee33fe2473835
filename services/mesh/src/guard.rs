//! Files that nobody else may change, and the reports on those that others may change.

use std::path::{Path, PathBuf};

use clap::Args;
use vvs_auth::peer::Role;
use vvs_runtime::secret_file::{Exposure, Policy};
use vvs_runtime::tls::Files;

use crate::pki;

/// How strict a process is with its files.
#[derive(Args, Debug, Clone, Copy, Default)]
#[command(next_help_heading = "Every role")]
pub struct Strictness {
    /// How to treat a key, certificate or database file that every user of the machine may change:
    /// `refuse` it with exit code 78, or `warn` and use it, for volumes where modes cannot be set
    #[arg(long, env = "VVS_FILE_MODES", value_enum, default_value = "refuse")]
    pub file_modes: Policy,
}

/// A file that a role trusts.
#[derive(Debug, Clone)]
pub struct Trusted {
    /// Its name in messages: its setting, or a description.
    pub(crate) what: &'static str,
    pub(crate) path: PathBuf,
    /// Whether others may not read it either.
    pub(crate) is_secret: bool,
}

/// Lists the files that a role trusts.
pub trait Trusts {
    fn trusted(&self) -> Vec<Trusted>;
}

pub(crate) const SECRET: bool = true;
pub(crate) const PUBLIC: bool = false;

/// Lists the files that `up` and `pki` create below the data directory, as far as they exist.
pub(crate) fn made(data_dir: &Path) -> Vec<Trusted> {
    let at = |what, path: PathBuf, is_secret| Trusted {
        what,
        path,
        is_secret,
    };
    let mut files = vec![at("the CA's key", pki::ca_key(data_dir), SECRET)];
    for role in Role::ALL {
        let Files { cert, key, ca } = pki::files(data_dir, role);
        files.extend([
            at("a certificate", cert, PUBLIC),
            at("a certificate's key", key, SECRET),
        ]);
        files.extend(ca.map(|ca| at("the CA", ca, PUBLIC)));
    }

    files
}

/// The problems with the modes of files, by severity. Missing files are reported elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    pub(crate) refused: Vec<String>,
    pub(crate) warned: Vec<String>,
}

impl Judgement {
    pub(crate) fn of(files: Vec<Trusted>, strictness: Strictness) -> Self {
        let mut judgement = Self::default();
        for Trusted {
            what,
            path,
            is_secret,
        } in files
        {
            let Ok(Some(exposure)) = Exposure::of(&path, is_secret) else {
                continue;
            };
            let line = format!("{what}: {exposure}");
            if exposure.is_grave() && strictness.file_modes == Policy::Refuse {
                judgement.refused.push(format!(
                    "{line}, or set VVS_FILE_MODES=warn on a volume without modes"
                ));
            } else if !judgement.warned.contains(&line) {
                judgement.warned.push(line);
            }
        }

        judgement
    }
}
