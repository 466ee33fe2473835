//! Headers in which the public edge describes a client to the processes behind it. They are
//! believed only from a peer that is the edge, which strips the client's own headers of these
//! names.

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;

/// The client's address, exactly one.
pub const CLIENT_ADDRESS: &str = "x-forwarded-for";
/// The scheme that the client used.
pub const SCHEME: &str = "x-forwarded-proto";
/// The id that the edge gave this request; it is in every log line about the request, and on error
/// pages.
pub const REQUEST_ID: &str = "x-request-id";
/// The sign that a request passed through an intermediary, such as `x-real-ip`; absent for a direct
/// request. A trusted proxy that speaks for the edge's own machine does not count.
pub const THROUGH: &str = "x-forwarded-through";

/// Returns the client's address as the edge saw it.
pub fn client_address(headers: &HeaderMap) -> Option<IpAddr> {
    headers
        .get(CLIENT_ADDRESS)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Returns the unit in which limits count an address: an IPv4 address, or the /64 that one IPv6
/// subscriber has.
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
