//! The authorities that an editor trusts for its server: the public certificate authorities, or one
//! file instead of them.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::error::Error;

/// Creates a configuration with TLS 1.2 and 1.3 that checks server names. `ca_file`, in PEM,
/// replaces the public authorities.
pub(crate) fn client(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, Error> {
    let roots = match ca_file {
        Some(file) => private(file).map_err(|cause| Error::CaFile {
            file: file.to_owned(),
            cause,
        })?,
        None => RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        },
    };

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();

    // A server that prefers HTTP/2 would take it, and a WebSocket cannot be opened on that.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];

    Ok(Arc::new(config))
}

fn private(file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|cause| cause.to_string())? {
        let certificate = certificate.map_err(|cause| cause.to_string())?;
        roots.add(certificate).map_err(|cause| cause.to_string())?;
    }
    if roots.is_empty() {
        Err("it holds no certificate".to_owned())
    } else {
        Ok(roots)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_without_certificates_trusts_nobody_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.crt");
        assert!(matches!(client(Some(&file)), Err(Error::CaFile { .. })));

        for text in [
            "",
            "nothing",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            fs::write(&file, text).unwrap();
            assert!(
                matches!(client(Some(&file)), Err(Error::CaFile { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn the_public_authorities_are_the_default() {
        assert!(client(None).is_ok());
    }
}
