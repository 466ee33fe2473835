//! Certificates from files, reloaded when the files change, and the acceptors and connectors made
//! from them. Existing connections keep the certificates that they were made with.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::metrics::Metrics;
use crate::secret_file::{self, Exposure, Policy};

pub mod stream;

/// How often the files are checked.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// Why TLS files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}: {source}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} holds no usable {what} in PEM")]
    Pem { path: PathBuf, what: &'static str },
    #[error("{cert} and {key} do not belong together: {source}")]
    Pair {
        cert: PathBuf,
        key: PathBuf,
        source: rustls::Error,
    },
    #[error("{0}")]
    Exposed(Exposure),
    #[error("cannot set up TLS: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("cannot verify clients: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// The paths of a process's certificate, key and CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// The CA that signs our peers. `None` for a public server, which asks nobody for a
    /// certificate.
    pub ca: Option<PathBuf>,
}

/// Decides whether the holder of a leaf certificate (DER) with a valid chain is the intended peer.
pub type PeerCheck = Arc<dyn Fn(&[u8]) -> Result<(), String> + Send + Sync>;

struct Material {
    /// The files' bytes, to see whether they changed.
    raw: Vec<Vec<u8>>,
    key: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    server: Arc<ServerConfig>,
    not_after: i64,
}

/// The certificate, key and CA that a process uses now.
pub struct Identity {
    files: Files,
    current: ArcSwap<Material>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads the files. The settings check who else may change them.
    pub fn load(files: Files) -> Result<Arc<Self>, Error> {
        let (raw, _exposures) = raw(&files)?;
        let material = read(&files, &raw)?;
        Ok(Arc::new(Self {
            files,
            current: ArcSwap::from_pointee(material),
        }))
    }

    /// Reads the files again. When something changed, returns which of the new files others may
    /// read or change. After an error the old ones stay in use.
    fn reload(&self, policy: Policy) -> Result<Option<Vec<Exposure>>, Error> {
        let (raw, mut exposures) = raw(&self.files)?;
        if raw == self.current.load().raw {
            return Ok(None);
        }

        let grave = exposures
            .iter()
            .position(Exposure::is_grave)
            .filter(|_| policy == Policy::Refuse);
        if let Some(grave) = grave {
            return Err(Error::Exposed(exposures.swap_remove(grave)));
        }

        self.current.store(Arc::new(read(&self.files, &raw)?));

        Ok(Some(exposures))
    }

    /// Returns when the certificate in use expires, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.current.load().not_after
    }

    /// Returns the configuration for new incoming connections.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.current.load().server.clone()
    }

    /// Returns the configuration for new outgoing connections. `alpn` is the protocol that we offer
    /// (RFC 7301).
    pub fn client(&self, check: PeerCheck, alpn: &[u8]) -> Result<Arc<ClientConfig>, Error> {
        let material = self.current.load();
        let verifier = NamedPeer {
            roots: material.roots.clone(),
            check,
            provider: provider(),
        };
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(Always(material.key.clone())));
        config.alpn_protocols = vec![alpn.to_vec()];

        // A resumed session would outlive a change of the CA.
        config.resumption = rustls::client::Resumption::disabled();

        Ok(Arc::new(config))
    }

    /// Reloads whenever the files change, until `stop`.
    pub async fn watch(
        self: Arc<Self>,
        name: &'static str,
        policy: Policy,
        metrics: Metrics,
        stop: CancellationToken,
    ) {
        let expiry = metrics.certificate_expiry(name);
        expiry.set(self.not_after());
        let (mut broken, mut refused) = (false, false);

        while stop
            .run_until_cancelled(tokio::time::sleep(RELOAD_INTERVAL))
            .await
            .is_some()
        {
            let reloaded = self.reload(policy);
            let was_refused =
                std::mem::replace(&mut refused, matches!(reloaded, Err(Error::Exposed(_))));

            match reloaded {
                Ok(Some(exposures)) => {
                    expiry.set(self.not_after());
                    tracing::info!(certificate = name, "certificate files reloaded");
                    for exposure in exposures {
                        tracing::warn!(certificate = name, %exposure, "a new file is open to \
                            others");
                    }
                    broken = false;
                }
                Ok(None) => broken = false,
                // Somebody may have put it there, and a person must see to that; once is enough to
                // say so.
                Err(Error::Exposed(_)) if was_refused => {}
                Err(cause @ Error::Exposed(_)) => {
                    tracing::error!(certificate = name, %cause, "certificate files not reloaded; \
                        the old ones stay in use");
                }
                // Files are often replaced one after the other, so a mismatch that goes away is no
                // news.
                Err(_) if !broken => broken = true,
                Err(cause) => {
                    tracing::warn!(certificate = name, %cause, "certificate files not reloaded");
                }
            }
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Returns the bytes of all files, and which of them others may read or change.
fn raw(files: &Files) -> Result<(Vec<Vec<u8>>, Vec<Exposure>), Error> {
    let paths = [
        Some((&files.cert, false)),
        Some((&files.key, true)),
        files.ca.as_ref().map(|ca| (ca, false)),
    ];
    let (mut raw, mut exposures) = (Vec::new(), Vec::new());
    for (path, is_secret) in paths.into_iter().flatten() {
        let read = secret_file::read(path, is_secret);
        let (bytes, exposure) = read.map_err(|source| Error::Read {
            path: path.clone(),
            source,
        })?;
        raw.push(bytes);
        exposures.extend(exposure);
    }

    Ok((raw, exposures))
}

fn read(files: &Files, raw: &[Vec<u8>]) -> Result<Material, Error> {
    let bad = |path: &PathBuf, what| Error::Pem {
        path: path.clone(),
        what,
    };
    let chain = certificates(&raw[0]).ok_or_else(|| bad(&files.cert, "certificate"))?;
    let key =
        PrivateKeyDer::from_pem_slice(&raw[1]).map_err(|_cause| bad(&files.key, "private key"))?;
    let (_, leaf) =
        X509Certificate::from_der(&chain[0]).map_err(|_cause| bad(&files.cert, "certificate"))?;
    let not_after = leaf.validity().not_after.timestamp();
    let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|source| Error::Pair {
        cert: files.cert.clone(),
        key: files.key.clone(),
        source,
    })?;
    let key = Arc::new(key);
    let mut roots = RootCertStore::empty();
    if let (Some(path), Some(bytes)) = (&files.ca, raw.get(2)) {
        for certificate in certificates(bytes).ok_or_else(|| bad(path, "CA certificate"))? {
            roots
                .add(certificate)
                .map_err(|_cause| bad(path, "CA certificate"))?;
        }
    }

    let roots = Arc::new(roots);
    let server = Arc::new(server(
        key.clone(),
        files.ca.as_ref().map(|_| roots.clone()),
    )?);

    Ok(Material {
        raw: raw.to_vec(),
        key,
        roots,
        server,
        not_after,
    })
}

fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let list: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .ok()?;
    (!list.is_empty()).then_some(list)
}

fn server(
    key: Arc<CertifiedKey>,
    roots: Option<Arc<RootCertStore>>,
) -> Result<ServerConfig, Error> {
    let is_mutual = roots.is_some();
    let resolver: Arc<dyn ResolvesServerCert> = Arc::new(Always(key));
    let builder = ServerConfig::builder_with_provider(provider());
    let mut config = match roots {
        Some(roots) => builder
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?,
            )
            .with_cert_resolver(resolver),
        None => builder
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(resolver),
    };

    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if is_mutual {
        // No peer of ours resumes a session.
        config.send_tls13_tickets = 0;
    }

    Ok(config)
}

/// One certificate for every client.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _hello: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

impl ResolvesClientCert for Always {
    fn resolve(
        &self,
        _issuers: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Checks the chain as usual, and then the peer's own name instead of a host name: the address that
/// we dialled does not say which peer must answer.
struct NamedPeer {
    roots: Arc<RootCertStore>,
    check: PeerCheck,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for NamedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NamedPeer")
    }
}

impl ServerCertVerifier for NamedPeer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        (self.check)(end_entity).map_err(rustls::Error::General)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests;
