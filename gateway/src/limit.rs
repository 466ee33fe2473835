//! How much one address, its network, and all clients together may ask of the edge. It
//! distinguishes requests only if they take long or come from machines.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use vvs_runtime::share::{Bounds as Share, Networks, Place, Places};

use crate::class::Class;
use crate::error::Refusal;
use crate::rate::Rate;

/// The size of each limit.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    /// Of one address.
    pub(crate) requests_per_minute: NonZeroU32,
    /// Of one address; requests of identity providers.
    pub(crate) hooks_per_minute: NonZeroU32,
    /// Of one address.
    pub(crate) connections_per_minute: NonZeroU32,
    pub(crate) connections: Share,
    pub(crate) bodies: Share,
    pub(crate) requests: Share,
    pub(crate) polls: Share,
    pub(crate) hooks: Share,
    pub(crate) networks: Networks,
}

/// The counts of all limits.
#[derive(Debug)]
pub(crate) struct Limits {
    networks: Arc<Networks>,
    request_rate: Rate,
    hook_rate: Rate,
    connection_rate: Rate,
    connections: Places,
    /// Requests under way of clients behind trusted proxies, in place of their connections.
    behind_proxies: Places,
    bodies: Places,
    requests: Places,
    polls: Places,
    hooks: Places,
}

impl Limits {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let networks = Arc::new(bounds.networks);
        let places = |share| Places::new(share, networks.clone());

        Self {
            request_rate: Rate::new(bounds.requests_per_minute, &networks),
            hook_rate: Rate::new(bounds.hooks_per_minute, &networks),
            connection_rate: Rate::new(bounds.connections_per_minute, &networks),
            connections: places(bounds.connections),
            behind_proxies: places(bounds.connections),
            bodies: places(bounds.bodies),
            requests: places(bounds.requests),
            polls: places(bounds.polls),
            hooks: places(bounds.hooks),
            networks,
        }
    }

    /// Counts one connection from this address, and takes a place for it. A connection costs more
    /// than a request when it begins with a TLS handshake.
    pub(crate) fn connection(&self, address: IpAddr) -> Result<Place, Refusal> {
        self.connection_rate
            .check(address, &self.networks)
            .map_err(|_wait| Refusal::ConnectionRate)?;
        self.connections
            .take(address)
            .map_err(|full| Refusal::Full(Class::Connections, full))
    }

    /// Takes a place for a connection of a trusted proxy, which belongs to no single client.
    pub(crate) fn proxy(&self) -> Result<Place, Refusal> {
        self.connections
            .take_for_nobody()
            .map_err(|full| Refusal::Full(Class::Connections, full))
    }

    /// Takes a place for a request or socket of a client behind a trusted proxy.
    pub(crate) fn behind_proxy(&self, address: IpAddr) -> Result<Place, Refusal> {
        self.behind_proxies
            .take(address)
            .map_err(|full| Refusal::Full(Class::Connections, full))
    }

    /// Counts one request from this address.
    pub(crate) fn request(&self, class: Class, address: IpAddr) -> Result<(), Refusal> {
        let (rate, setting) = match class {
            Class::Hooks => (&self.hook_rate, "VVS_GATEWAY_HOOKS_PER_MINUTE"),
            Class::Connections | Class::Bodies | Class::Requests | Class::Polls => {
                (&self.request_rate, "VVS_GATEWAY_REQUESTS_PER_MINUTE")
            }
        };
        rate.check(address, &self.networks)
            .map_err(|wait| Refusal::Rate { setting, wait })
    }

    /// Takes a place in one of the pools of requests.
    pub(crate) fn under_way(&self, class: Class, address: IpAddr) -> Result<Place, Refusal> {
        let places = match class {
            Class::Connections => &self.behind_proxies,
            Class::Bodies => &self.bodies,
            Class::Requests => &self.requests,
            Class::Polls => &self.polls,
            Class::Hooks => &self.hooks,
        };
        places
            .take(address)
            .map_err(|full| Refusal::Full(class, full))
    }

    /// Deletes the counts of quiet addresses.
    pub(crate) fn forget_quiet(&self) {
        for rate in [&self.request_rate, &self.hook_rate, &self.connection_rate] {
            rate.forget_quiet();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const ADA: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const BOB: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
    /// An address in a shared network.
    const OFFICE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));
    const REQUESTS: [Class; 4] = [Class::Bodies, Class::Requests, Class::Polls, Class::Hooks];

    fn limits(per_minute: u32, total: usize, per_address: usize) -> Limits {
        let per_minute = NonZeroU32::new(per_minute).unwrap();
        let share = Share { total, per_address };
        let shared = vec!["203.0.113.0/24=3".parse().unwrap()];

        Limits::new(Bounds {
            requests_per_minute: per_minute,
            hooks_per_minute: per_minute,
            connections_per_minute: per_minute,
            connections: share,
            bodies: share,
            requests: share,
            polls: share,
            hooks: share,
            networks: Networks {
                ipv4_24: 8,
                ipv6_56: 8,
                ipv6_48: 16,
                shared,
            },
        })
    }

    #[test]
    fn a_flood_is_told_when_to_come_back_and_keeps_nobody_out() {
        let limits = limits(3, 1, 1);
        for _ in 0..3 {
            limits.request(Class::Requests, ADA).unwrap();
        }

        let refused = limits.request(Class::Requests, ADA).unwrap_err().answer();
        assert_eq!(refused.status(), 429);

        let seconds: u64 = refused.headers()["retry-after"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!((1..=21).contains(&seconds), "{seconds}");

        limits.request(Class::Requests, BOB).unwrap();
    }

    #[test]
    fn what_identity_providers_send_has_a_rate_of_its_own() {
        let limits = limits(1, 1, 1);
        for (pool, setting) in [
            (Class::Requests, "VVS_GATEWAY_REQUESTS_PER_MINUTE"),
            (Class::Hooks, "VVS_GATEWAY_HOOKS_PER_MINUTE"),
        ] {
            limits.request(pool, ADA).unwrap();
            assert_eq!(
                limits.request(pool, ADA).unwrap_err().setting(),
                Some(setting)
            );
        }

        assert!(
            limits.request(Class::Polls, ADA).is_err(),
            "pages that wait count like others"
        );
    }

    #[test]
    fn a_shared_network_may_ask_and_connect_so_many_times_as_often() {
        let limits = limits(2, 100, 100);
        for _ in 0..6 {
            limits.request(Class::Requests, OFFICE).unwrap();
            limits.connection(OFFICE).unwrap();
        }
        assert!(
            limits.request(Class::Requests, OFFICE).is_err() && limits.connection(OFFICE).is_err()
        );
    }

    #[test]
    fn no_pool_takes_from_another_and_one_address_never_has_all() {
        let limits = limits(1, 2, 1);
        let mut held = Vec::new();
        for pool in REQUESTS {
            held.push(limits.under_way(pool, ADA).unwrap());
            let own = limits.under_way(pool, ADA).unwrap_err();
            assert_eq!(
                (
                    own.answer().status().as_u16(),
                    own.reason().ends_with("_per_address")
                ),
                (429, true),
                "{own}"
            );

            held.push(limits.under_way(pool, BOB).unwrap());
            let all = limits.under_way(pool, OFFICE).unwrap_err();
            assert_eq!(
                (
                    all.answer().status(),
                    &all.answer().headers()["retry-after"]
                ),
                (503.try_into().unwrap(), &"5".parse().unwrap())
            );
            assert_ne!(own.setting(), all.setting(), "{pool:?}");
        }

        held.push(limits.connection(ADA).unwrap());
        held.push(limits.behind_proxy(ADA).unwrap());
        assert!(limits.behind_proxy(ADA).is_err());

        held.push(limits.proxy().unwrap());
        assert!(limits.proxy().is_err(), "a proxy's count among all");
    }

    #[test]
    fn a_network_that_has_its_share_is_told_which_setting_says_so() {
        let limits = limits(1, 10, 1);
        let address = |net: u8, host: u8| IpAddr::V4(Ipv4Addr::new(198, 51, net, host));
        let _held: Vec<_> = (0..8)
            .map(|host| {
                limits
                    .under_way(Class::Requests, address(100, host))
                    .unwrap()
            })
            .collect();
        let refused = limits
            .under_way(Class::Requests, address(100, 8))
            .unwrap_err();
        assert_eq!(
            (refused.reason(), refused.answer().status().as_u16()),
            ("network", 429)
        );
        assert_eq!(refused.setting(), Some("VVS_GATEWAY_PLACES_PER_24"));

        limits.under_way(Class::Requests, address(101, 8)).unwrap();
    }

    #[test]
    fn connections_are_counted_apart_from_requests_and_each_address_has_its_own() {
        let limits = limits(1, 10, 10);
        limits.connection(ADA).unwrap();
        limits.request(Class::Requests, ADA).unwrap();
        assert!(matches!(
            limits.connection(ADA),
            Err(Refusal::ConnectionRate)
        ));
        limits.connection(BOB).unwrap();
    }
}
