//! Who may call what: one row for each method. A method without a row is refused, and a test walks
//! the contracts to check that every method has one.

use crate::Error;
use crate::peer::{Peer, Peers, Role};
use crate::quota::{Kind, Place, Quota};

const ANYONE: &[Role] = &Role::ALL;

/// Full method path to the roles that may call it.
pub const TABLE: &[(&str, &[Role])] = &[
    ("/vvs.relay.v1.Relay/GetLogin", &[Role::Web]),
    ("/vvs.relay.v1.Relay/DeliverAuth", &[Role::Web]),
    ("/vvs.relay.v1.Relay/DenyLogin", &[Role::Web]),
    ("/vvs.session.v1.Sessions/CreateSession", &[Role::Web]),
    ("/vvs.session.v1.Sessions/GetSession", &[Role::Web]),
    ("/vvs.session.v1.Sessions/ListSessions", &[Role::Web]),
    ("/vvs.session.v1.Sessions/RevokeSession", &[Role::Web]),
    ("/vvs.session.v1.Sessions/RevokeUserSessions", &[Role::Web]),
    ("/vvs.session.v1.Sessions/TakeStaleUsers", &[Role::Web]),
    ("/vvs.session.v1.Sessions/RecordAudit", &[Role::Web]),
    (
        "/vvs.token.v1.Tokens/GetSigningKeys",
        &[Role::Web, Role::Relay, Role::Backend],
    ),
    (
        "/vvs.token.v1.Tokens/WatchRevocations",
        &[Role::Relay, Role::Backend],
    ),
    ("/vvs.internal.v1.Editors/ActivateSessions", &[Role::Relay]),
    ("/vvs.internal.v1.Editors/RefreshToken", &[Role::Relay]),
    ("/vvs.internal.v1.Editors/EndSession", &[Role::Relay]),
    (
        "/vvs.internal.v1.Editors/RecordRefusedProof",
        &[Role::Relay],
    ),
    ("/vvs.internal.v1.Browsers/BeginBrowserSignIn", &[Role::Web]),
    ("/vvs.internal.v1.Browsers/CheckBrowserSignIn", &[Role::Web]),
    ("/vvs.internal.v1.Browsers/EndBrowserSignIns", &[Role::Web]),
    ("/grpc.health.v1.Health/Check", ANYONE),
    ("/grpc.health.v1.Health/List", ANYONE),
    ("/grpc.health.v1.Health/Watch", ANYONE),
    (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        ANYONE,
    ),
];

/// The methods of the table that stream until one side ends them.
pub const STREAMS: &[&str] = &[
    "/vvs.token.v1.Tokens/WatchRevocations",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
];

/// The role that may speak HTTP to web and relay. They believe what the gateway says about a
/// client's address, so no other role may say it.
pub const HTTP_HOP: Role = Role::Gateway;

/// Refuses a peer that may not call this method.
pub fn check(peer: &Peer, path: &str) -> Result<(), Error> {
    let allowed = TABLE
        .iter()
        .find(|(method, _)| *method == path)
        .is_some_and(|(_, roles)| roles.contains(&peer.role));
    if allowed {
        return Ok(());
    }

    let action = format!("call {}", path.chars().take(100).collect::<String>());

    Err(Error::NotAllowed {
        peer: peer.id.to_string(),
        action,
    })
}

/// Identifies the caller: the holder of this leaf certificate (DER), if it may call the method at
/// this path.
pub fn authorize(peers: &Peers, certificate: Option<&[u8]>, path: &str) -> Result<Peer, Error> {
    let peer = peers.identify(certificate.ok_or(Error::Certificate)?)?;
    check(&peer, path)?;
    Ok(peer)
}

/// Admits the holder of this leaf certificate (DER), if it may call the method at this path and
/// does not hold too many places. The call holds the returned place.
pub fn admit(
    peers: &Peers,
    quota: &Quota,
    certificate: Option<&[u8]>,
    path: &str,
) -> Result<Place, Error> {
    let peer = authorize(peers, certificate, path)?;
    let kind = if STREAMS.contains(&path) {
        Kind::Stream
    } else {
        Kind::Call
    };

    quota
        .take(Some(&peer.id), kind)
        .map_err(|setting| Error::PeerBusy {
            peer: peer.id.to_string(),
            setting,
        })
}

/// Admits a connection over which the holder of this leaf certificate (DER) may call. The error is
/// the setting that limits it. Each call over the connection is checked separately.
pub fn admit_connection(
    peers: &Peers,
    quota: &Quota,
    certificate: &[u8],
) -> Result<Place, &'static str> {
    let peer = peers.identify(certificate).ok();
    quota.take(peer.as_ref().map(|peer| &peer.id), Kind::Connection)
}

/// Checks that the holder of this leaf certificate (DER) may say where a client is.
pub fn authorize_hop(peers: &Peers, certificate: Option<&[u8]>) -> Result<Peer, Error> {
    peers.expect(certificate.ok_or(Error::Certificate)?, HTTP_HOP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::SpiffeId;

    fn peer(role: Role) -> Peer {
        Peer {
            id: SpiffeId::of("vvs.internal", role).unwrap(),
            role,
        }
    }

    #[test]
    fn a_method_without_a_row_is_refused() {
        assert!(check(&peer(Role::Web), "/vvs.relay.v1.Relay/Drop").is_err());
        assert!(check(&peer(Role::Web), "/vvs.relay.v1.Relay/DeliverAuth/").is_err());
    }

    /// The rights that docs/security.md says each stolen certificate gives.
    #[test]
    fn a_role_may_call_what_the_documentation_says() {
        let callable = |role| -> Vec<&str> {
            let rows = TABLE
                .iter()
                .filter(|(method, _)| check(&peer(role), method).is_ok());
            rows.filter_map(|(method, _)| method.strip_prefix("/vvs.")?.rsplit('/').next())
                .collect()
        };
        assert_eq!(callable(Role::Gateway), [""; 0]);
        assert_eq!(callable(Role::Sessions), [""; 0]);
        assert_eq!(
            callable(Role::Backend),
            ["GetSigningKeys", "WatchRevocations"]
        );

        let of_relays = callable(Role::Relay);

        for method in [
            "CreateSession",
            "GetSession",
            "ListSessions",
            "RevokeSession",
            "RevokeUserSessions",
            "RecordAudit",
            "TakeStaleUsers",
        ] {
            assert!(!of_relays.contains(&method), "{method}");
        }
    }

    #[test]
    fn only_web_delivers() {
        for role in Role::ALL {
            assert_eq!(
                check(&peer(role), "/vvs.relay.v1.Relay/DeliverAuth").is_ok(),
                role == Role::Web
            );
        }
    }
}
