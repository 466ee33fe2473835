//! Identifies a client by its address, and checks the host that it asked for. Believes only
//! configured proxies.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::HOST;
use http::uri::Uri;
use ipnet::IpNet;
use vvs_runtime::forwarded::CLIENT_ADDRESS;
use vvs_runtime::origin::Origin;

use crate::error::Refusal;

pub(crate) fn is_trusted(address: IpAddr, proxies: &[IpNet]) -> bool {
    proxies
        .iter()
        .any(|network| network.contains(&address.to_canonical()))
}

/// Returns the nearest address that is not a trusted proxy. Each proxy appends its caller at the
/// right end of the list. The rest of the list behind an untrusted address was written by that
/// address.
pub(crate) fn client(remote: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> IpAddr {
    let lines = headers.get_all(CLIENT_ADDRESS).iter().rev();
    let mut callers = lines
        .flat_map(|line| line.to_str().unwrap_or_default().rsplit(','))
        .map(parse);
    let mut client = remote.to_canonical();
    while is_trusted(client, proxies) {
        let Some(Some(caller)) = callers.next() else {
            break;
        };
        client = caller;
    }

    client
}

/// Parses an address, with or without a port, as some proxies write it.
fn parse(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let address = text
        .parse()
        .or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// Refuses a request for another host, wherever the request names it: in `Host`, in `:authority`,
/// or in an absolute target (RFC 9110, section 7.4).
pub(crate) fn check_host(uri: &Uri, headers: &HeaderMap, public: &Origin) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts
        .next()
        .map(|host| host.to_str().map_err(|_cause| Refusal::Malformed))
        .transpose()?;
    if hosts.next().is_some() {
        return Err(Refusal::Malformed);
    }

    let mut named = [uri.authority().map(http::uri::Authority::as_str), host]
        .into_iter()
        .flatten()
        .peekable();
    if named.peek().is_none() {
        return Err(Refusal::NoHost);
    }

    let default_port = if public.is_secure() { ":443" } else { ":80" };
    let is_ours = |name: &str| {
        let name = name.strip_suffix(default_port).unwrap_or(name);
        name.eq_ignore_ascii_case(public.authority())
    };

    if named.all(is_ours) {
        Ok(())
    } else {
        Err(Refusal::ForeignHost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, line.parse().unwrap());
        }
        headers
    }

    fn found(remote: &str, lines: &[&str]) -> String {
        let proxies = [
            "10.0.0.0/8".parse().unwrap(),
            "2001:db8::/32".parse().unwrap(),
        ];
        client(
            remote.parse().unwrap(),
            &headers(CLIENT_ADDRESS, lines),
            &proxies,
        )
        .to_string()
    }

    #[test]
    fn a_stranger_is_not_believed() {
        assert_eq!(found("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(found("::ffff:192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        let proxies = ["10.0.0.0/8".parse().unwrap()];
        assert!(is_trusted("::ffff:10.0.0.1".parse().unwrap(), &proxies));
        assert!(!is_trusted("192.0.2.1".parse().unwrap(), &proxies));
    }

    #[test]
    fn the_right_most_address_that_is_no_proxy_is_the_client() {
        assert_eq!(found("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(found("::ffff:10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(
            found("10.0.0.1", &["203.0.113.9, 198.51.100.7 , 10.0.0.2"]),
            "198.51.100.7"
        );
        assert_eq!(
            found(
                "10.0.0.1",
                &["203.0.113.9", "198.51.100.7, 10.0.0.2", "2001:db8::5"]
            ),
            "198.51.100.7"
        );
        assert_eq!(found("10.0.0.1", &["198.51.100.7:4711"]), "198.51.100.7");
        assert_eq!(found("10.0.0.1", &["[2001:db9::1]:4711"]), "2001:db9::1");
    }

    #[test]
    fn what_cannot_be_read_ends_the_walk() {
        assert_eq!(found("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(found("10.0.0.1", &["10.0.0.2, 10.0.0.3"]), "10.0.0.2");
        assert_eq!(found("10.0.0.1", &["198.51.100.7, unknown"]), "10.0.0.1");
        assert_eq!(found("10.0.0.1", &["198.51.100.7,, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(found("10.0.0.1", &["198.51.100.7", "\u{e4}"]), "10.0.0.1");
    }

    fn status(target: &str, hosts: &[&str], public: &str) -> u16 {
        let checked = check_host(
            &target.parse().unwrap(),
            &headers("host", hosts),
            &public.parse().unwrap(),
        );
        checked.map_or_else(|refusal| refusal.answer().status().as_u16(), |()| 200)
    }

    #[test]
    fn the_public_host_is_known_in_every_spelling() {
        for (target, hosts, public) in [
            ("/", &["auth.test"][..], "https://auth.test"),
            ("/", &["AUTH.test:443"], "https://auth.test"),
            ("/", &["auth.test:80"], "http://auth.test"),
            ("/", &["127.0.0.1:8080"], "http://127.0.0.1:8080"),
            ("/", &["[::1]:8080"], "http://[::1]:8080"),
            ("https://auth.test/ws", &[], "https://auth.test"),
            ("https://auth.test/ws", &["auth.test"], "https://auth.test"),
        ] {
            assert_eq!(
                status(target, hosts, public),
                200,
                "{target} {hosts:?} {public}"
            );
        }
    }

    #[test]
    fn a_foreign_host_is_refused_wherever_it_stands() {
        for (target, hosts, expected) in [
            ("/", &["evil.test"][..], 421),
            ("/", &["auth.test:80"], 421),
            ("/", &["auth.test.evil.test"], 421),
            ("/", &["auth.test", "evil.test"], 400),
            ("/", &["auth.test", "auth.test"], 400),
            ("/", &[], 400),
            ("/", &[""], 421),
            ("https://evil.test/", &[], 421),
            ("https://evil.test/", &["auth.test"], 421),
            ("https://auth.test/", &["evil.test"], 421),
            ("https://user@auth.test/", &["auth.test"], 421),
        ] {
            assert_eq!(
                status(target, hosts, "https://auth.test"),
                expected,
                "{target} {hosts:?}"
            );
        }
    }
}
