//! Detects whether a request came straight from its sender or through an intermediary: a proxy, a
//! tunnel, a content network. It only reports this to the processes behind the edge, and decides
//! nothing.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, Version};

/// Headers that a proxy adds and no client sends by itself.
const SIGNS: [&str; 12] = [
    "via",
    "cdn-loop",
    "client-ip",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-proxyuser-ip",
    "proxy-client-ip",
    "wl-proxy-client-ip",
    "x-amzn-trace-id",
];
/// The same for whole families of headers: the standard ones, and one for each large content
/// network.
const FAMILIES: [&str; 18] = [
    "forwarded",
    "x-forwarded",
    "x-real-",
    "x-original-",
    "x-originating-",
    "x-envoy-",
    "x-amz-cf-",
    "x-azure-",
    "x-appengine-",
    "x-akamai-",
    "akamai-",
    "ali-cdn-",
    "cf-",
    "cloudfront-",
    "fastly-",
    "fly-",
    "x-vercel-",
    "x-nf-",
];
/// Those of them that say how a request was made and not by which client.
const SILENT: [&str; 14] = [
    "cdn-loop",
    "x-forwarded-host",
    "x-forwarded-method",
    "x-forwarded-path",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-forwarded-uri",
    "x-original-host",
    "x-original-uri",
    "x-original-url",
];

/// Returns the sign that a request passed through an intermediary, as web writes it into its log;
/// `None` for a direct request. A trusted proxy may pass on requests from this same machine. It has
/// to name at least one address, and only loopback ones.
pub(crate) fn through(version: Version, headers: &HeaderMap, is_trusted: bool) -> Option<&str> {
    // Nginx before 1.29.7, as it comes, speaks HTTP/1.0 to those behind it and adds no header.
    let old = (version < Version::HTTP_11).then_some("http/1.0");
    let mut signs = headers
        .keys()
        .map(HeaderName::as_str)
        .filter(|name| is_sign(name))
        .chain(old)
        .peekable();
    let first = *signs.peek()?;
    if !is_trusted {
        return Some(first);
    }

    let mut names_one = false;
    for name in signs.filter(|name| !SILENT.contains(name)) {
        for address in headers
            .get_all(name)
            .iter()
            .flat_map(|line| addresses(name, line.to_str().unwrap_or("?")))
        {
            match address {
                Named::Loopback => names_one = true,
                Named::Nobody => {}
                Named::Other => return Some(name),
            }
        }
    }

    (!names_one).then_some(first)
}

fn is_sign(name: &str) -> bool {
    SIGNS.contains(&name) || FAMILIES.iter().any(|family| name.starts_with(family))
}

/// The party that one element of a header names.
enum Named {
    Loopback,
    Nobody,
    /// Another address, or an element that may name one.
    Other,
}

/// Returns the elements of one line, each parsed according to its header.
fn addresses<'a>(name: &'a str, line: &'a str) -> impl Iterator<Item = Named> + 'a {
    // In quotes there may be commas: the pieces are then no addresses, which is as good as a
    // foreign one.
    line.split([',', ';']).map(move |element| match name {
        "via" => received_by(element),
        "forwarded" => node(element),
        _ => address(element),
    })
}

/// Parses a pair of `Forwarded` (RFC 7239, section 4): `for` and `by` name a party.
fn node(pair: &str) -> Named {
    match pair.trim().split_once('=') {
        Some((name, value))
            if ["for", "by"]
                .iter()
                .any(|known| name.eq_ignore_ascii_case(known)) =>
        {
            address(
                value
                    .strip_prefix('"')
                    .and_then(|value| value.strip_suffix('"'))
                    .unwrap_or(value),
            )
        }
        Some((name, _))
            if ["host", "proto"]
                .iter()
                .any(|known| name.eq_ignore_ascii_case(known)) =>
        {
            Named::Nobody
        }
        Some(_) | None => Named::Other,
    }
}

/// Parses an element of `Via` (RFC 9110, section 7.6.3). Most proxies use a pseudonym, which says
/// nothing.
fn received_by(element: &str) -> Named {
    let by = element.split_whitespace().nth(1).unwrap_or_default();
    match parse(by) {
        Some(by) if by.is_loopback() => Named::Nobody,
        Some(_) => Named::Other,
        None => Named::Nobody,
    }
}

fn address(text: &str) -> Named {
    match parse(text.trim()) {
        Some(address) if address.is_loopback() => Named::Loopback,
        Some(_) | None => Named::Other,
    }
}

/// Parses an address as proxies write it: with or without a port, with or without brackets.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let address = bare
        .parse()
        .or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    fn seen(pairs: &[(&'static str, &'static str)], is_trusted: bool) -> Option<String> {
        through(Version::HTTP_11, &headers(pairs), is_trusted).map(str::to_owned)
    }

    #[test]
    fn a_browser_and_an_editor_show_no_other_hands() {
        let plain = headers(&[
            ("host", "127.0.0.1:8080"),
            ("user-agent", "Mozilla/5.0"),
            ("accept", "*/*"),
            ("cookie", "a=1"),
            ("origin", "http://127.0.0.1:8080"),
            ("sec-fetch-site", "same-origin"),
            ("upgrade-insecure-requests", "1"),
            ("dnt", "1"),
            ("cache-control", "no-cache"),
            ("connection", "keep-alive"),
            ("traceparent", "x"),
            ("x-request-id", "x"),
        ]);
        for version in [Version::HTTP_11, Version::HTTP_2] {
            for is_trusted in [false, true] {
                assert_eq!(through(version, &plain, is_trusted), None);
            }
        }
    }

    #[test]
    fn whatever_a_proxy_adds_shows_it_even_if_it_names_this_machine() {
        for name in [
            "forwarded",
            "forwarded-for",
            "x-forwarded",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-forwarded-port",
            "x-forwarded-anything",
            "x-real-ip",
            "via",
            "cf-ray",
            "cf-connecting-ip",
            "cf-connecting-ipv6",
            "cf-visitor",
            "cdn-loop",
            "true-client-ip",
            "x-client-ip",
            "x-cluster-client-ip",
            "x-original-forwarded-for",
            "x-original-host",
            "fastly-client-ip",
            "fly-client-ip",
            "x-envoy-external-address",
            "x-azure-clientip",
            "x-appengine-user-ip",
            "cloudfront-viewer-address",
        ] {
            assert_eq!(seen(&[(name, "127.0.0.1")], false).as_deref(), Some(name));
            assert_eq!(seen(&[(name, "")], false).as_deref(), Some(name));
        }

        assert_eq!(
            through(Version::HTTP_10, &HeaderMap::new(), false),
            Some("http/1.0")
        );
    }

    #[test]
    fn a_trusted_proxy_may_speak_for_this_machine_and_has_to_say_so() {
        for good in [
            &[("x-forwarded-for", "127.0.0.1")][..],
            &[("x-forwarded-for", "::1")],
            &[("x-forwarded-for", "[::1]")],
            &[("x-forwarded-for", "[::1]:4711")],
            &[("x-forwarded-for", "127.0.0.1:4711")],
            &[("x-forwarded-for", "::ffff:127.0.0.1")],
            &[("x-forwarded-for", "0:0:0:0:0:0:0:1, 127.8.9.10")],
            &[("x-forwarded-for", "127.0.0.1"), ("x-forwarded-for", "::1")],
            &[
                ("x-real-ip", "127.0.0.1"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "evil.example"),
            ],
            &[
                ("forwarded", "for=127.0.0.1;proto=http;host=x"),
                ("via", "1.1 squid.example (squid/6)"),
            ],
            &[(
                "forwarded",
                "For=\"[::1]:4711\"; by=127.0.0.1, for=127.0.0.1",
            )],
            &[
                ("x-forwarded-for", "127.0.0.1"),
                ("via", "1.0 127.0.0.1:3128"),
            ],
        ] {
            assert_eq!(seen(good, true), None, "{good:?}");
            assert_ne!(seen(good, false), None, "{good:?}");
        }

        let http_10 = headers(&[("x-forwarded-for", "127.0.0.1")]);
        assert_eq!(through(Version::HTTP_10, &http_10, true), None);
    }

    #[test]
    fn a_trusted_proxy_that_names_another_address_or_none_is_somebody_elses_hands() {
        for bad in [
            &[("x-forwarded-for", "203.0.113.7")][..],
            &[("x-forwarded-for", "203.0.113.7, 127.0.0.1")],
            &[("x-forwarded-for", "127.0.0.1, 203.0.113.7")],
            &[
                ("x-forwarded-for", "203.0.113.7"),
                ("x-forwarded-for", "127.0.0.1"),
            ],
            &[
                ("x-forwarded-for", "127.0.0.1"),
                ("x-real-ip", "203.0.113.7"),
            ],
            &[
                ("x-forwarded-for", "127.0.0.1"),
                ("cf-connecting-ip", "203.0.113.7"),
            ],
            &[
                ("x-forwarded-for", "127.0.0.1"),
                ("cf-ray", "8a1b2c3d4e5f-FRA"),
            ],
            &[
                ("x-forwarded-for", "127.0.0.1"),
                ("forwarded", "for=203.0.113.7"),
            ],
            &[
                ("x-forwarded-for", "127.0.0.1"),
                ("forwarded", "for=unknown"),
            ],
            &[
                ("x-forwarded-for", "127.0.0.1"),
                ("forwarded", "for=\"_x,for=127.0.0.1\""),
            ],
            &[("x-forwarded-for", "127.0.0.1"), ("via", "1.1 203.0.113.7")],
            &[("x-forwarded-for", "unknown")],
            &[("x-forwarded-for", "localhost")],
            &[("x-forwarded-for", "0.0.0.0")],
            &[("x-forwarded-for", "::")],
            &[("x-forwarded-for", "::ffff:203.0.113.7")],
            &[("x-forwarded-for", "::1%lo")],
            &[("x-forwarded-for", "127.1")],
            &[("x-forwarded-for", "127.0.0.1,")],
            &[("x-forwarded-for", "")],
            &[("x-forwarded-proto", "https")],
            &[("via", "1.1 squid.example")],
        ] {
            assert_ne!(seen(bad, true), None, "{bad:?}");
        }

        assert_eq!(
            through(Version::HTTP_10, &HeaderMap::new(), true),
            Some("http/1.0")
        );

        let mut unreadable = HeaderMap::new();
        unreadable.insert(
            "x-forwarded-for",
            http::HeaderValue::from_bytes(b"127.0.0.1\xe4").unwrap(),
        );
        assert_eq!(
            through(Version::HTTP_11, &unreadable, true),
            Some("x-forwarded-for")
        );
    }
}
