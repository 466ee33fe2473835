//! The peer at the other end of a TLS connection: SPIFFE ids and the roles that they map to. TLS
//! has already checked chains and validity.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::Error;

/// How many certificates are cached. A peer has one at a time, and all of them are from our own CA.
const REMEMBERED: usize = 256;

/// The function of a process in the mesh. `Backend` is a third-party service that verifies our
/// tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Gateway,
    Web,
    Relay,
    Sessions,
    Backend,
}

impl Role {
    pub const ALL: [Self; 5] = [
        Self::Gateway,
        Self::Web,
        Self::Relay,
        Self::Sessions,
        Self::Backend,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Web => "web",
            Self::Relay => "relay",
            Self::Sessions => "sessions",
            Self::Backend => "backend",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A workload's name: `spiffe://<trust domain>/<path>` (SPIFFE-ID, section 2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId(String);

impl SpiffeId {
    /// Returns the id of a role in a trust domain.
    pub fn of(trust_domain: &str, role: Role) -> Result<Self, Error> {
        format!("spiffe://{trust_domain}/{role}").parse()
    }

    /// Returns the only URI name of a leaf certificate in DER (X.509-SVID, section 2). With two
    /// names a peer could choose who it is.
    pub fn from_certificate(der: &[u8]) -> Result<Self, Error> {
        let (_rest, certificate) =
            X509Certificate::from_der(der).map_err(|_cause| Error::Certificate)?;
        refuse_authority(&certificate)?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|_cause| Error::Certificate)?;
        let uris: Vec<&str> = names
            .iter()
            .flat_map(|extension| &extension.value.general_names)
            .filter_map(|name| {
                if let GeneralName::URI(uri) = name {
                    Some(*uri)
                } else {
                    None
                }
            })
            .collect();

        match uris.as_slice() {
            [uri] => uri.parse(),
            others => Err(Error::UriNames(others.len())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Refuses a certificate that could sign others (X.509-SVID, sections 4.1 and 4.3). Accepts one
/// without a stated use, because many tools omit it.
fn refuse_authority(certificate: &X509Certificate<'_>) -> Result<(), Error> {
    // An extension that is there twice, or cannot be read, says nothing that can be relied on.
    let constraints = certificate
        .basic_constraints()
        .map_err(|_cause| Error::Certificate)?;
    let usage = certificate
        .key_usage()
        .map_err(|_cause| Error::Certificate)?;

    if constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(Error::CertificateAuthority);
    }

    match usage.map(|usage| usage.value) {
        Some(usage) if usage.key_cert_sign() => Err(Error::KeyUsage("keyCertSign")),
        Some(usage) if usage.crl_sign() => Err(Error::KeyUsage("cRLSign")),
        Some(_) | None => Ok(()),
    }
}

impl FromStr for SpiffeId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::SpiffeId(text.chars().take(80).collect());
        let (domain, path) = text
            .strip_prefix("spiffe://")
            .and_then(|rest| rest.split_once('/'))
            .ok_or_else(bad)?;
        let domain_ok = !domain.is_empty()
            && domain
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b));
        let path_ok = path.split('/').all(|segment| {
            !segment.is_empty()
                && !matches!(segment, "." | "..")
                && segment
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        });

        if text.len() <= 2048 && domain_ok && path_ok {
            Ok(Self(text.to_owned()))
        } else {
            Err(bad())
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One line of the peer list: this exact id has that role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: SpiffeId,
    pub role: Role,
}

impl FromStr for Entry {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::PeerEntry(text.chars().take(80).collect());
        let (id, role) = text.split_once('=').ok_or_else(bad)?;
        let role = Role::ALL
            .into_iter()
            .find(|known| known.as_str() == role)
            .ok_or_else(bad)?;
        Ok(Self {
            id: id.parse()?,
            role,
        })
    }
}

/// Maps exact ids to roles. An id that is not in it has no role.
#[derive(Debug)]
pub struct Peers {
    roles: BTreeMap<SpiffeId, Role>,
    /// The owner of each certificate, by its DER. A peer presents one with every call, and parsing
    /// it takes longer than many of the calls.
    identified: Mutex<HashMap<Box<[u8]>, Peer>>,
}

impl Peers {
    /// Uses the configured list; if it is empty, one id for each role in the trust domain.
    pub fn new(entries: Vec<Entry>, trust_domain: &str) -> Result<Self, Error> {
        if entries.is_empty() {
            let ids = Role::ALL
                .into_iter()
                .map(|role| Ok((SpiffeId::of(trust_domain, role)?, role)));
            return Ok(Self::of(ids.collect::<Result<_, Error>>()?));
        }

        Ok(Self::of(
            entries
                .into_iter()
                .map(|entry| (entry.id, entry.role))
                .collect(),
        ))
    }

    fn of(roles: BTreeMap<SpiffeId, Role>) -> Self {
        Self {
            roles,
            identified: Mutex::default(),
        }
    }

    /// Identifies the holder of this leaf certificate (DER).
    pub fn identify(&self, der: &[u8]) -> Result<Peer, Error> {
        let mut identified = self
            .identified
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = identified.get(der) {
            return Ok(peer.clone());
        }

        let id = SpiffeId::from_certificate(der)?;
        let role = *self
            .roles
            .get(&id)
            .ok_or_else(|| Error::UnknownPeer(id.to_string()))?;
        let peer = Peer { id, role };
        if identified.len() >= REMEMBERED {
            identified.clear();
        }

        identified.insert(der.into(), peer.clone());

        Ok(peer)
    }

    /// Accepts the holder of this leaf certificate (DER) in that role only.
    pub fn expect(&self, der: &[u8], role: Role) -> Result<Peer, Error> {
        let peer = self.identify(der)?;
        if peer.role == role {
            return Ok(peer);
        }
        Err(Error::NotAllowed {
            peer: peer.id.to_string(),
            action: format!("be the {role}"),
        })
    }
}

/// Checks whether the holder of a leaf certificate (DER) with a valid chain is the intended peer.
pub type Check = Arc<dyn Fn(&[u8]) -> Result<(), String> + Send + Sync>;

/// Accepts only one role. A client uses it to check the server that it has dialled.
pub fn check(peers: &Arc<Peers>, role: Role) -> Check {
    let peers = peers.clone();
    Arc::new(move |der| {
        peers
            .expect(der, role)
            .map(drop)
            .map_err(|refusal| refusal.to_string())
    })
}

/// A caller whose certificate was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub id: SpiffeId,
    pub role: Role,
}

#[cfg(test)]
mod tests {
    use rcgen::KeyUsagePurpose::{
        CrlSign, DataEncipherment, DigitalSignature, KeyAgreement, KeyCertSign, KeyEncipherment,
    };
    use rcgen::{
        BasicConstraints, CertificateParams, CustomExtension, IsCa, KeyPair, KeyUsagePurpose,
        SanType,
    };

    use super::*;

    const WEB: &str = "spiffe://vvs.internal/web";

    fn certificate(
        usages: &[KeyUsagePurpose],
        is_ca: IsCa,
        extensions: Vec<CustomExtension>,
    ) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(WEB.try_into().unwrap())];
        params.key_usages = usages.to_vec();
        params.is_ca = is_ca;
        params.custom_extensions = extensions;
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .der()
            .to_vec()
    }

    #[test]
    fn a_certificate_whose_key_may_sign_others_is_no_peers() {
        let leaf = |usages: &[KeyUsagePurpose]| {
            let read =
                SpiffeId::from_certificate(&certificate(usages, IsCa::ExplicitNoCa, Vec::new()));
            read.map(|id| id.to_string())
                .map_err(|refusal| refusal.to_string())
        };
        let for_authorities = |usage| {
            Err(format!(
                "the key usage of the peer's certificate has {usage}, which is for certificate \
                 authorities"
            ))
        };

        // None at all, ours, and what SPIRE makes.
        for good in [
            &[][..],
            &[DigitalSignature],
            &[DigitalSignature, KeyEncipherment, KeyAgreement],
            &[DataEncipherment],
        ] {
            assert_eq!(leaf(good), Ok(WEB.to_owned()), "{good:?}");
        }

        for signs in [
            &[KeyCertSign][..],
            &[DigitalSignature, KeyCertSign],
            &[KeyCertSign, CrlSign],
        ] {
            assert_eq!(leaf(signs), for_authorities("keyCertSign"), "{signs:?}");
        }

        for signs in [&[CrlSign][..], &[DigitalSignature, CrlSign]] {
            assert_eq!(leaf(signs), for_authorities("cRLSign"), "{signs:?}");
        }
    }

    #[test]
    fn what_a_certificate_says_twice_or_unreadably_of_its_use_is_not_believed() {
        let (constraints, usage): (&[u64], &[u64]) = (&[2, 5, 29, 19], &[2, 5, 29, 15]);
        let extension = |oid, der: &[u8]| CustomExtension::from_oid_content(oid, der.to_vec());
        let read = |usages: &[KeyUsagePurpose], is_ca, extension| {
            SpiffeId::from_certificate(&certificate(usages, is_ca, vec![extension]))
        };
        let no = || IsCa::ExplicitNoCa;

        let authority = IsCa::Ca(BasicConstraints::Unconstrained);
        assert!(matches!(
            read(&[], authority, extension(&[1, 2, 3], &[5, 0])),
            Err(Error::CertificateAuthority)
        ));

        // A second `CA:TRUE`, a second digitalSignature, and an octet string where bits should be.
        assert!(matches!(
            read(&[], no(), extension(constraints, &[0x30, 3, 1, 1, 0xff])),
            Err(Error::Certificate)
        ));
        assert!(matches!(
            read(
                &[DigitalSignature],
                no(),
                extension(usage, &[3, 2, 7, 0x80])
            ),
            Err(Error::Certificate)
        ));
        assert!(matches!(
            read(&[], no(), extension(usage, &[4, 1, 4])),
            Err(Error::Certificate)
        ));
        assert!(read(&[], no(), extension(usage, &[3, 2, 7, 0x80])).is_ok());
    }

    #[test]
    fn an_id_has_one_spelling() {
        for good in [
            "spiffe://vvs.internal/web",
            "spiffe://prod.example/ns/auth/sa/web-1",
        ] {
            assert_eq!(good.parse::<SpiffeId>().unwrap().as_str(), good);
        }

        for bad in [
            "",
            "https://vvs.internal/web",
            "spiffe://vvs.internal",
            "spiffe://vvs.internal/",
            "spiffe:///web",
            "spiffe://VVS.internal/web",
            "spiffe://vvs.internal/web/",
            "spiffe://vvs.internal/a/../web",
            "spiffe://vvs.internal/web?x",
            "spiffe://vvs.internal/we%62",
            "spiffe://user@vvs.internal/web",
            "spiffe://vvs.internal:80/web",
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn a_peer_list_replaces_the_default_one() {
        let peers = Peers::new(
            vec!["spiffe://a.test/x=web".parse().unwrap()],
            "vvs.internal",
        )
        .unwrap();
        assert_eq!(peers.roles.len(), 1);
        assert_eq!(
            Peers::new(Vec::new(), "vvs.internal").unwrap().roles.len(),
            Role::ALL.len()
        );
        assert!("spiffe://a.test/x=admin".parse::<Entry>().is_err());
    }
}
