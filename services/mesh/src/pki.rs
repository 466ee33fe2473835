//! The data directory of one machine: where its files are, and its development CA with the roles'
//! certificates, made at first start and renewed before they expire. In production another CA
//! writes files of the same kind.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};
use vvs_auth::peer::{Role, SpiffeId};
use vvs_runtime::tls::Files;

use crate::Error;

const CA_LIFE: Duration = Duration::days(3650);
const LEAF_LIFE: Duration = Duration::days(90);
/// Leaves that expire sooner are renewed at the next start.
const RENEW_BEFORE: Duration = Duration::days(30);
/// For clocks that are a little slow.
const BACKDATE: Duration = Duration::hours(1);

/// Returns the paths of a role's certificates below a data directory.
pub fn files(data_dir: &Path, role: Role) -> Files {
    let pki = data_dir.join("pki");
    Files {
        cert: pki.join(role.as_str()).join("tls.crt"),
        key: pki.join(role.as_str()).join("tls.key"),
        ca: Some(pki.join("ca.crt")),
    }
}

/// Returns the path of the CA's key below a data directory.
pub fn ca_key(data_dir: &Path) -> PathBuf {
    data_dir.join("pki/ca.key")
}

/// Returns the default database.
pub fn own_database(data_dir: &Path) -> String {
    format!("sqlite:{}", data_dir.join("sessions.db").display())
}

/// Returns the default key file.
pub fn own_key_file(data_dir: &Path, name: &str) -> PathBuf {
    data_dir.join("keys").join(format!("{name}.key"))
}

/// Creates missing files and renews certificates that expire soon; returns the files that were
/// written.
pub fn ensure(
    data_dir: &Path,
    trust_domain: &str,
    now: OffsetDateTime,
) -> Result<Vec<PathBuf>, Error> {
    let pki = data_dir.join("pki");
    let (ca_cert, ca_key) = (pki.join("ca.crt"), ca_key(data_dir));
    let mut written = Vec::new();
    make_dir(&pki)?;

    if !(ca_cert.exists() && ca_key.exists()) {
        let key = KeyPair::generate()?;
        let certificate = ca_params(now).self_signed(&key)?;
        write_secret(&ca_key, key.serialize_pem().as_bytes())?;
        write(&ca_cert, certificate.pem().as_bytes(), 0o644)?;
        written.extend([ca_cert.clone(), ca_key.clone()]);
    }

    let key = KeyPair::from_pem(&read(&ca_key)?)?;
    let issuer = Issuer::from_ca_cert_pem(&read(&ca_cert)?, key)?;
    for role in Role::ALL {
        let files = files(data_dir, role);
        // A new CA signs new leaves, whatever the old ones were.
        if written.is_empty() && !ends_soon(&files, now) {
            continue;
        }

        let leaf = leaf_params(trust_domain, role, now)?;
        let key = KeyPair::generate()?;
        let certificate = leaf.signed_by(&key, &issuer)?;
        make_dir(&pki.join(role.as_str()))?;
        write_secret(&files.key, key.serialize_pem().as_bytes())?;
        write(&files.cert, certificate.pem().as_bytes(), 0o644)?;
        written.extend([files.cert, files.key]);
    }

    Ok(written)
}

fn ends_soon(files: &Files, now: OffsetDateTime) -> bool {
    let identity = vvs_runtime::tls::Identity::load(files.clone());
    identity.map_or(true, |identity| {
        identity.not_after() < (now + RENEW_BEFORE).unix_timestamp()
    })
}

fn ca_params(now: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("VVS Auth development CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = now - BACKDATE;
    params.not_after = now + CA_LIFE;
    params
}

/// An X.509-SVID: one URI name. The DNS names are for clients that cannot check URI names.
fn leaf_params(
    trust_domain: &str,
    role: Role,
    now: OffsetDateTime,
) -> Result<CertificateParams, Error> {
    let id = SpiffeId::of(trust_domain, role).map_err(|cause| {
        Error::Settings(vec![format!("VVS_TRUST_DOMAIN (--trust-domain): {cause}")])
    })?;
    let mut params = CertificateParams::new(vec![role.to_string(), "localhost".to_owned()])?;
    params
        .subject_alt_names
        .push(SanType::URI(id.as_str().try_into()?));
    params.distinguished_name = named(role.as_str());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    params.not_before = now - BACKDATE;
    params.not_after = now + LEAF_LIFE;

    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Creates a directory for its owner alone.
pub fn make_dir(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    made.map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

/// Writes a file that only its owner can read.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write(path, bytes, 0o600)
}

/// Writes a temporary file and renames it, so that no reader sees half a file.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let failed = |source| Error::File {
        path: path.to_owned(),
        source,
    };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    std::fs::remove_file(&beside).ok();
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)
        .map_err(failed)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(failed)?;

    std::fs::rename(&beside, path).map_err(failed)
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_for_their_owner_alone_and_a_second_start_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        let written = ensure(dir.path(), "vvs.internal", now).unwrap();
        assert_eq!(written.len(), 2 + 2 * Role::ALL.len());

        for path in written
            .iter()
            .filter(|path| path.extension().is_some_and(|end| end == "key"))
        {
            assert_eq!(
                std::fs::metadata(path).unwrap().permissions().mode() & 0o777,
                0o600,
                "{}",
                path.display()
            );
        }

        assert_eq!(
            ensure(dir.path(), "vvs.internal", now).unwrap(),
            Vec::<PathBuf>::new()
        );
    }

    #[test]
    fn leaves_are_renewed_before_they_end() {
        let dir = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        ensure(dir.path(), "vvs.internal", now).unwrap();
        let written = ensure(
            dir.path(),
            "vvs.internal",
            now + LEAF_LIFE - RENEW_BEFORE + Duration::days(1),
        )
        .unwrap();
        assert_eq!(written.len(), 2 * Role::ALL.len(), "leaves, and not the CA");
    }

    #[test]
    fn each_role_has_its_own_name() {
        let dir = tempfile::tempdir().unwrap();
        ensure(dir.path(), "a.test", OffsetDateTime::now_utc()).unwrap();
        for role in Role::ALL {
            let pem = std::fs::read(files(dir.path(), role).cert).unwrap();
            let der = rustls_der(&pem);
            assert_eq!(
                SpiffeId::from_certificate(&der).unwrap().as_str(),
                format!("spiffe://a.test/{role}")
            );
        }
    }

    fn rustls_der(pem: &[u8]) -> Vec<u8> {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject as _;
        CertificateDer::from_pem_slice(pem).unwrap().to_vec()
    }
}
