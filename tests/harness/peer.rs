//! Callers of the gRPC ports: with a role's certificate, or with one that should not work.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use vvs_proto::internal::editors_client::EditorsClient;
use vvs_proto::relay::relay_client::RelayClient;
use vvs_proto::session::sessions_client::SessionsClient;
use vvs_proto::token::tokens_client::TokensClient;
use vvs_runtime::http::Connector;
use vvs_runtime::rpc;
use vvs_runtime::tls::{Files, Identity};
use vvs_runtime::trace::TracedChannel;

/// Someone with a certificate, who calls whom he likes and does not check who answers.
#[derive(Debug, Clone)]
pub struct Caller(Arc<Identity>);

impl Caller {
    pub fn new(files: Files) -> Self {
        Self(Identity::load(files).unwrap())
    }

    pub fn channel(&self, address: SocketAddr) -> TracedChannel {
        let connector = Connector {
            identity: self.0.clone(),
            check: Arc::new(|_certificate| Ok(())),
            alpn: b"h2",
            timeout: Duration::from_secs(5),
        };
        rpc::channel(&address.to_string(), connector).unwrap()
    }

    pub fn relay(&self, address: SocketAddr) -> RelayClient<TracedChannel> {
        RelayClient::new(self.channel(address))
    }

    pub fn sessions(&self, address: SocketAddr) -> SessionsClient<TracedChannel> {
        SessionsClient::new(self.channel(address))
    }

    pub fn tokens(&self, address: SocketAddr) -> TokensClient<TracedChannel> {
        TokensClient::new(self.channel(address))
    }

    pub fn editors(&self, address: SocketAddr) -> EditorsClient<TracedChannel> {
        EditorsClient::new(self.channel(address))
    }
}

/// A CA that signs what it is asked to.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// One that nobody trusts.
    pub fn foreign() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::from_ca_cert_pem(&pem, key).unwrap(),
            pem,
        }
    }

    /// The CA of a stack, as someone has it who stole its key.
    pub fn of(data_dir: &Path) -> Self {
        let read = |name: &str| std::fs::read_to_string(data_dir.join("pki").join(name)).unwrap();
        let pem = read("ca.crt");
        let key = KeyPair::from_pem(&read("ca.key")).unwrap();
        Self {
            issuer: Issuer::from_ca_cert_pem(&pem, key).unwrap(),
            pem,
        }
    }

    /// The certificate of the CA itself, in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for a server that is none of ours, and its key, both in PEM.
    pub fn certify_server(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Writes a certificate with these URI names into `folder`, trusting `trusted`'s CA (its own
    /// when `None`).
    pub fn certify(&self, folder: &Path, uris: &[&str], trusted: Option<&Path>) -> Files {
        self.certify_for(folder, uris, &[], trusted)
    }

    /// One whose key is for these uses.
    pub fn certify_for(
        &self,
        folder: &Path,
        uris: &[&str],
        usages: &[KeyUsagePurpose],
        trusted: Option<&Path>,
    ) -> Files {
        let mut params =
            CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.subject_alt_names.extend(
            uris.iter()
                .map(|uri| SanType::URI((*uri).try_into().unwrap())),
        );
        params.key_usages = usages.to_vec();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::create_dir_all(folder).unwrap();
        let (cert, key_path, ca) = (
            folder.join("tls.crt"),
            folder.join("tls.key"),
            folder.join("ca.crt"),
        );
        std::fs::write(&cert, certificate.pem()).unwrap();
        std::fs::write(&key_path, key.serialize_pem()).unwrap();
        std::fs::write(&ca, &self.pem).unwrap();

        Files {
            cert,
            key: key_path,
            ca: Some(trusted.map_or(ca, Path::to_owned)),
        }
    }
}
