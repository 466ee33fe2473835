//! What the public edge tells the processes behind it about a client. Believed only from a peer
//! that is the edge, which strips whatever the client itself sent by these names.

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;

/// The client's address, exactly one.
pub const CLIENT_ADDRESS: &str = "x-forwarded-for";
/// The scheme that the client used.
pub const SCHEME: &str = "x-forwarded-proto";
/// The id that the edge gave this request; in every log line about it, and on error pages.
pub const REQUEST_ID: &str = "x-request-id";
/// What shows that a request came through other hands than its sender's, such as `x-real-ip`;
/// absent when nothing does. A trusted proxy that speaks for the edge's own machine is not such
/// hands.
pub const THROUGH: &str = "x-forwarded-through";

/// The client's address as the edge saw it.
pub fn client_address(headers: &HeaderMap) -> Option<IpAddr> {
    headers
        .get(CLIENT_ADDRESS)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// What an address counts as in limits: an IPv4 address, or the /64 that one IPv6 subscriber has.
pub fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_subscriber_counts_once() {
        let key = |text: &str| subscriber(text.parse().unwrap());
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:0:0:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }
}
