use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn networks(shared: &[&str]) -> Networks {
    let shared = shared.iter().map(|text| text.parse().unwrap()).collect();
    Networks {
        ipv4_24: 8,
        ipv6_56: 8,
        ipv6_48: 16,
        shared,
    }
}

fn places(total: usize, per_address: usize, networks: Networks) -> Places {
    Places::new(Bounds { total, per_address }, Arc::new(networks))
}

/// Takes all places that this address gets. Returns them, and why it gets no more.
fn hoard(places: &Places, address: IpAddr) -> (Vec<Place>, Full) {
    let mut held = Vec::new();
    loop {
        match places.take(address) {
            Ok(place) => held.push(place),
            Err(full) => return (held, full),
        }
    }
}

fn is_empty(places: &Places) -> bool {
    let held = places.held();
    held.total == 0 && held.by.is_empty()
}

#[test]
fn an_address_gets_its_places_back_and_leaves_nothing_behind() {
    let places = places(10, 2, networks(&[]));
    let (held, full) = hoard(&places, ip("192.0.2.1"));
    assert_eq!((held.len(), full), (2, Full::Address));
    let other = places.take(ip("192.0.2.2")).unwrap();
    drop(held);
    drop(places.take(ip("192.0.2.1")).unwrap());
    drop(other);
    assert!(is_empty(&places));
}

#[test]
fn a_subscriber_is_one_address_whatever_he_calls_himself() {
    let places = places(10, 1, Networks::default());
    let _held = [
        places.take(ip("2001:db8::1")).unwrap(),
        places.take(ip("192.0.2.1")).unwrap(),
    ];
    assert!(places.take(ip("2001:db8::2")).is_err());
    assert!(places.take(ip("::ffff:192.0.2.1")).is_err());
    places.take(ip("2001:db8:0:1::1")).unwrap();
}

#[test]
fn everyone_together_has_so_many_and_some_may_count_for_no_address() {
    let places = places(2, 1, networks(&[]));
    let held = [
        places.take_for_nobody().unwrap(),
        places.take_for_nobody().unwrap(),
    ];
    assert_eq!(places.take(ip("192.0.2.1")).unwrap_err(), Full::Everyone);
    assert_eq!(places.take_for_nobody().unwrap_err(), Full::Everyone);
    drop(held);
    assert!(is_empty(&places));
}

/// Fills all places from one wider network. Returns how many its addresses have, and which group is
/// full then.
fn fill(places: &Places, addresses: impl Iterator<Item = IpAddr>) -> (Vec<Place>, Full) {
    let mut all = Vec::new();
    let mut why = Full::Address;
    for address in addresses {
        let (held, full) = hoard(places, address);
        all.extend(held);
        why = full;
    }
    (all, why)
}

#[test]
fn a_wider_network_holds_no_more_than_its_share_once_half_of_the_places_are_taken() {
    let places = places(1000, 10, networks(&[]));
    let of = |net: u8| (0..=255).map(move |host| ip(&format!("192.0.{net}.{host}")));
    let (first, full) = fill(&places, of(0));
    assert_eq!(
        (first.len(), full),
        (501, Full::Ipv4Net24),
        "alone, it may have half"
    );

    let (second, full) = fill(&places, of(1));
    assert_eq!(
        (second.len(), full),
        (80, Full::Ipv4Net24),
        "eight times an address's"
    );

    let (third, full) = fill(
        &places,
        (0..8_u8).map(|host| ip(&format!("2001:db8::{host:x}:0:0:0:0"))),
    );
    assert_eq!(
        (third.len(), full),
        (80, Full::Address),
        "the eight /64 of one /56, and none was refused by its network"
    );

    let (fourth, full) = fill(
        &places,
        (8..=255_u8).map(|host| ip(&format!("2001:db8:0:{host:x}::1"))),
    );
    assert_eq!((fourth.len(), full), (0, Full::Ipv6Net56));

    let (fifth, full) = fill(
        &places,
        (1..=255_u8).map(|net| ip(&format!("2001:db8:0:{net:x}00::1"))),
    );
    assert_eq!(
        (fifth.len(), full),
        (80, Full::Ipv6Net48),
        "sixteen times, of which it has eight"
    );

    // Clients from elsewhere are still admitted.
    let _other = places.take(ip("198.51.100.1")).unwrap();
    drop(first);
    let (again, _) = fill(&places, of(0));
    assert!(again.len() > 80, "with fewer taken networks do not count");
}

#[test]
fn networks_that_are_switched_off_do_not_count() {
    let places = places(100, 10, Networks::default());
    let (held, full) = fill(
        &places,
        (0..=255).map(|host| ip(&format!("192.0.2.{host}"))),
    );
    assert_eq!((held.len(), full), (100, Full::Everyone));
}

#[test]
fn a_shared_network_has_bounds_of_its_own_and_the_narrowest_decides() {
    let networks = networks(&["203.0.113.0/24=5", "203.0.113.7/32=20", "2001:db8::/32=3"]);
    let places = places(100_000, 10, networks);

    for (address, count) in [
        ("203.0.113.1", 50),
        ("::ffff:203.0.113.2", 50),
        ("203.0.113.7", 200),
        ("203.0.114.1", 10),
        ("2001:db8:1::1", 30),
        ("2001:db9::1", 10),
    ] {
        let (held, full) = hoard(&places, ip(address));
        assert_eq!((held.len(), full), (count, Full::Address), "{address}");
    }
}

#[test]
fn a_shared_address_takes_nothing_from_its_neighbours() {
    let places = places(1000, 10, networks(&["203.0.113.7/32=50"]));
    let (office, _) = hoard(&places, ip("203.0.113.7"));
    let half = std::iter::repeat_with(|| places.take_for_nobody().unwrap())
        .take(10)
        .collect::<Vec<_>>();
    assert_eq!((office.len(), half.len()), (500, 10));
    assert_eq!(hoard(&places, ip("203.0.113.8")).0.len(), 10);
}

#[test]
fn what_is_no_shared_network_is_refused_with_an_example() {
    let parsed: SharedNetwork = " 203.0.113.9/24=20".parse().unwrap();
    assert_eq!(
        parsed,
        SharedNetwork {
            network: "203.0.113.0/24".parse().unwrap(),
            times: 20
        }
    );

    for bad in [
        "",
        "203.0.113.0/24",
        "203.0.113.0/24=0",
        "203.0.113.0/24=10001",
        "203.0.113.0/33=2",
        "x=2",
        "2001:db8::/65=2",
    ] {
        let refused = bad.parse::<SharedNetwork>().unwrap_err().to_string();
        assert!(refused.contains("203.0.113.0/24=20"), "{refused}");
    }
}

/// Takes a place, or gives back one of those that are held.
#[derive(Debug, Clone)]
enum Step {
    Take(IpAddr),
    TakeForNobody,
    Drop(usize),
}

fn addresses() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0..4_u8, 0..6_u8).prop_map(|(net, host)| ip(&format!("192.0.{net}.{host}"))),
        (0..2_u8, 0..2_u8, 0..4_u8).prop_map(|(site, net, host)| ip(&format!(
            "2001:db8:{site:x}:{net:x}0{host:x}::{host:x}"
        ))),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => addresses().prop_map(Step::Take),
        1 => Just(Step::TakeForNobody),
        2 => any::<usize>().prop_map(Step::Drop),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    /// The model counts, each time, all places that are held.
    #[test]
    fn places_are_given_and_refused_as_a_plain_count_says(steps in steps()) {
        let (total, per_address, mut wider) = (40, 3, networks(&["192.0.3.0/24=2"]));
        (wider.ipv4_24, wider.ipv6_56, wider.ipv6_48) = (2, 2, 3);
        let places = places(total, per_address, wider);
        let mut held: Vec<(Option<IpAddr>, Place)> = Vec::new();
        for step in steps {
            let address = match step {
                Step::Drop(which) if !held.is_empty() => {
                    held.swap_remove(which % held.len());
                    continue;
                }
                Step::Drop(_) => continue,
                Step::Take(address) => Some(address),
                Step::TakeForNobody => None,
            };
            let times = if address.is_some_and(|address| ip("192.0.3.0") <= address && address.is_ipv4()) { 2 } else { 1 };
            let within = |bits: u8| {
                let network = IpNet::new(address.unwrap(), bits).unwrap();
                held.iter().filter(|(other, _)| other.is_some_and(|other| network.contains(&other))).count()
            };
            let own = address.map_or(0, |address| within(if address.is_ipv4() { 32 } else { 64 }));
            let network = address.is_some_and(|address| match address {
                IpAddr::V4(_) => within(24) >= 2 * per_address * times,
                IpAddr::V6(_) => within(56) >= 2 * per_address || within(48) >= 3 * per_address,
            });
            let is_full = address.is_some() && own >= per_address * times
                || held.len() * 2 > total && network
                || held.len() == total;
            let taken = address.map_or_else(|| places.take_for_nobody(), |address| places.take(address));
            prop_assert_eq!(taken.is_err(), is_full, "{:?} of {}", address, held.len());
            held.extend(taken.ok().map(|place| (address, place)));
        }
        drop(held);
        prop_assert!(is_empty(&places), "all are back");
    }
}
