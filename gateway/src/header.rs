//! Which headers pass the edge, and which ones the edge sets. No header that a client could use to
//! speak for the edge passes.

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
    SERVER, STRICT_TRANSPORT_SECURITY, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use vvs_runtime::forwarded::{CLIENT_ADDRESS, REQUEST_ID, SCHEME, THROUGH};
use vvs_runtime::origin::Origin;

/// Headers that are meant for one connection only (RFC 9110, section 7.6.1). `Expect` is already
/// met when the body has arrived.
const HOP_BY_HOP: [HeaderName; 11] = [
    CONNECTION,
    UPGRADE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    EXPECT,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Headers that only the edge may send to the processes behind it, along with `x-forwarded-…`.
const EDGE: [&str; 6] = [
    "forwarded",
    "x-real-ip",
    REQUEST_ID,
    "traceparent",
    "tracestate",
    "baggage",
];

/// The facts about a request that the edge tells the processes behind it.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) address: IpAddr,
    pub(crate) request_id: String,
    /// The sign that the request passed through an intermediary.
    pub(crate) through: Option<String>,
}

/// Returns whether a client asks for a WebSocket (RFC 6455, section 4.1).
pub(crate) fn asks_for_websocket(version: Version, headers: &HeaderMap) -> bool {
    let has = |name: HeaderName, token: &str| {
        list(headers, &name).any(|one| one.eq_ignore_ascii_case(token))
    };
    version == Version::HTTP_11 && has(CONNECTION, "upgrade") && has(UPGRADE, "websocket")
}

/// Restores the two headers that the change of protocols needs (RFC 9110, section 7.8).
pub(crate) fn upgrade(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// Rewrites a client's headers for web or the relay.
pub(crate) fn inbound(headers: &mut HeaderMap, caller: &Caller, public: &Origin) {
    strip(headers);
    // The whole body was read; its length is set again.
    headers.remove(CONTENT_LENGTH);
    join_cookies(headers);
    let scheme = if public.is_secure() { "https" } else { "http" };
    for (name, value) in [
        (HOST.as_str(), public.authority()),
        ("x-forwarded-host", public.authority()),
        (SCHEME, scheme),
        (CLIENT_ADDRESS, &caller.address.to_string()),
        (REQUEST_ID, &caller.request_id),
    ] {
        set(headers, name, value);
    }

    if let Some(through) = &caller.through {
        set(headers, THROUGH, through);
    }
}

/// Rewrites an answer's headers for the client.
pub(crate) fn outbound(headers: &mut HeaderMap) {
    strip(headers);
    for name in [SERVER, VIA, HeaderName::from_static("x-powered-by")] {
        headers.remove(name);
    }
}

/// Sets the headers that every answer carries, ours and theirs. Other sites may embed an answer
/// only if the role that made it says so.
pub(crate) fn sign(headers: &mut HeaderMap, request_id: &str, public: &Origin) {
    set(headers, REQUEST_ID, request_id);

    for name in ["cross-origin-opener-policy", "cross-origin-resource-policy"] {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static("same-origin"));
    }

    if public.is_secure() {
        headers.insert(
            STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static("max-age=31536000"),
        );
    }
}

/// Removes the headers that are for one connection, by their names alone; ignores the others that
/// `Connection` lists. A client may not list a header that is for the end, because it could then
/// remove the `Origin` that a browser has set.
fn strip(headers: &mut HeaderMap) {
    let forwarded = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-forwarded-"))
        .cloned();
    let gone: Vec<HeaderName> = forwarded.chain(HOP_BY_HOP).collect();
    for name in gone {
        headers.remove(name);
    }
    for name in EDGE {
        headers.remove(name);
    }
}

/// HTTP/2 may send one cookie on each line; HTTP/1.1 has one line for all (RFC 9113, section
/// 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if crumbs.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

/// Returns the elements of a list header (RFC 9110, section 5.6.1), over any number of lines.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(',').map(str::trim))
}

fn set(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    /// Returns every line as `name: value`, in order of names.
    fn lines(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        lines
    }

    fn passed(pairs: &[(&'static str, &str)]) -> Vec<String> {
        let caller = Caller {
            address: [192, 0, 2, 1].into(),
            request_id: "id".to_owned(),
            through: None,
        };
        let mut headers = headers(pairs);
        inbound(&mut headers, &caller, &"https://auth.test".parse().unwrap());
        lines(&headers)
    }

    const OURS: [&str; 5] = [
        "host: auth.test",
        "x-forwarded-for: 192.0.2.1",
        "x-forwarded-host: auth.test",
        "x-forwarded-proto: https",
        "x-request-id: id",
    ];

    #[test]
    fn a_client_cannot_speak_for_the_edge() {
        let forged = passed(&[
            ("host", "AUTH.test:443"),
            ("x-forwarded-for", "198.51.100.7"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-client-cert", "URI=spiffe://vvs.internal/web"),
            ("x-forwarded-anything", "x"),
            ("x-forwarded-through", "nobody"),
            ("forwarded", "for=127.0.0.1"),
            ("x-real-ip", "127.0.0.1"),
            ("x-request-id", "theirs"),
            (
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ),
            ("tracestate", "a=b"),
            ("baggage", "a=b"),
        ]);
        assert_eq!(forged, OURS);
    }

    #[test]
    fn those_behind_the_edge_hear_that_a_request_came_through_other_hands() {
        let through = Some("x-real-ip".to_owned());
        let caller = Caller {
            address: [127, 0, 0, 1].into(),
            request_id: "id".to_owned(),
            through,
        };
        let mut headers = headers(&[
            ("x-real-ip", "127.0.0.1"),
            ("x-forwarded-through", "nobody"),
        ]);

        inbound(
            &mut headers,
            &caller,
            &"http://127.0.0.1:8080".parse().unwrap(),
        );
        assert_eq!(
            headers.get_all(THROUGH).iter().collect::<Vec<_>>(),
            ["x-real-ip"]
        );
    }

    #[test]
    fn what_is_for_one_connection_goes_no_further() {
        let hops = passed(&[
            ("connection", "keep-alive, HTTP2-Settings, close"),
            ("http2-settings", "AAMAAABk"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("upgrade", "websocket"),
            ("proxy-authorization", "x"),
            ("expect", "100-continue"),
        ]);
        assert_eq!(hops, OURS);
    }

    #[test]
    fn a_client_has_nothing_taken_out_that_is_for_the_end() {
        let others = [
            "authorization",
            "content-type",
            "cookie",
            "origin",
            "referer",
            "sec-fetch-site",
        ];
        let more = [
            "sec-websocket-key",
            "sec-websocket-protocol",
            "svix-signature",
            "user-agent",
            "via",
            "x-anything",
        ];

        for options in [
            "close",
            "origin",
            "Upgrade, ORIGIN",
            ", ,\torigin\t,",
            "host, content-length, content-type, authorization, cookie, referer, user-agent, via",
            "sec-fetch-site, sec-websocket-key, sec-websocket-protocol, svix-signature, x-anything",
            "x-forwarded-for, x-forwarded-host, x-forwarded-proto, x-request-id",
            "\"origin\", origin;q=1, ori gin",
        ] {
            let fields = others.into_iter().chain(more).map(|name| (name, "1"));
            let kept = passed(
                &fields
                    .chain([("connection", options), ("connection", "cookie")])
                    .collect::<Vec<_>>(),
            );

            let whole = |name| kept.contains(&format!("{name}: 1"));
            assert!(
                others.into_iter().chain(more).all(whole),
                "{options}: {kept:?}"
            );
            assert!(
                OURS.iter().all(|line| kept.iter().any(|kept| kept == line)),
                "{options}: {kept:?}"
            );
            assert_eq!(
                kept.len(),
                others.len() + more.len() + OURS.len(),
                "{options}: {kept:?}"
            );
        }
    }

    #[test]
    fn what_is_for_the_end_passes() {
        let kept = passed(&[
            ("authorization", "Bearer x"),
            ("origin", "null"),
            ("sec-websocket-key", "k"),
        ]);
        assert!(
            [
                "authorization: Bearer x",
                "origin: null",
                "sec-websocket-key: k"
            ]
            .iter()
            .all(|line| { kept.iter().any(|kept| kept == line) })
        );
        assert_eq!(kept.len(), OURS.len() + 3);
    }

    #[test]
    fn cookies_in_pieces_arrive_as_one() {
        let kept = passed(&[("cookie", "a=1"), ("cookie", "b=2; c=3")]);
        assert_eq!(kept[0], "cookie: a=1; b=2; c=3");
        assert_eq!(kept.len(), OURS.len() + 1);
    }

    #[test]
    fn an_answer_says_nothing_of_what_is_behind() {
        let mut answer = headers(&[
            ("server", "web/1"),
            ("x-powered-by", "x"),
            ("x-forwarded-for", "10.0.0.1"),
            ("traceparent", "x"),
            ("connection", "close, set-cookie"),
            ("keep-alive", "timeout=5"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("cross-origin-resource-policy", "cross-origin"),
            ("content-length", "5"),
        ]);
        outbound(&mut answer);
        sign(&mut answer, "id", &"http://auth.test".parse().unwrap());
        let kept = [
            "content-length: 5",
            "cross-origin-opener-policy: same-origin",
            "cross-origin-resource-policy: cross-origin",
            "set-cookie: a=1",
            "set-cookie: b=2",
            "x-request-id: id",
        ];
        assert_eq!(lines(&answer), kept);

        sign(&mut answer, "id", &"https://auth.test".parse().unwrap());
        assert!(answer.contains_key(STRICT_TRANSPORT_SECURITY));
    }

    #[test]
    fn only_a_whole_request_for_a_websocket_is_one() {
        let asks = |version, pairs| asks_for_websocket(version, &headers(pairs));
        let pair = &[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
        ];
        assert!(asks(Version::HTTP_11, pair));
        assert!(!asks(Version::HTTP_10, pair));
        assert!(!asks(Version::HTTP_2, pair));
        assert!(!asks(Version::HTTP_11, &pair[..1]));
        assert!(!asks(Version::HTTP_11, &pair[1..]));
        assert!(!asks(
            Version::HTTP_11,
            &[("connection", "upgrade"), ("upgrade", "h2c")]
        ));
    }
}
