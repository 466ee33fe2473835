//! Which cookies of a browser are accepted again, and which are not.

use super::*;
use crate::kept::SignInId;
use vvs_identity::dev;

const ID: &str = "6f1f2f4e-2f0c-4a53-9d0e-8f4f3f0a9b11";

fn id(number: u8) -> ConnectionId {
    format!("00000000-0000-4000-8000-0000000000{number:02}")
        .parse()
        .unwrap()
}

fn cookies(origin: &str) -> Cookies {
    let keys = Keyring::parse(&format!("{}\n", "A".repeat(43) + "=")).unwrap();
    Cookies::new(&keys, &origin.parse().unwrap()).unwrap()
}

fn entry(expires_at: i64) -> Seen {
    Seen {
        expires_at,
        approved: None,
        session: None,
        acked: false,
    }
}

/// Returns the browser's next request, after these answers.
fn back(lines: &[HeaderValue]) -> HeaderMap {
    let mut kept = std::collections::BTreeMap::new();
    for line in lines {
        let (pair, attributes) = line.to_str().unwrap().split_once(';').unwrap();
        let (name, value) = pair.split_once('=').unwrap();
        if attributes.contains("Max-Age=0") {
            kept.remove(name);
        } else {
            kept.insert(name.to_owned(), value.to_owned());
        }
    }

    let line = kept
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect::<Vec<_>>()
        .join("; ");

    HeaderMap::from_iter([(COOKIE, line.parse().unwrap())])
}

fn kept() -> Kept {
    let who = dev::sign_in("ada@example.com", "Ada", "s".to_owned(), 7)
        .ok()
        .unwrap();
    Kept {
        who,
        id: SignInId::mint().unwrap(),
        expires_at: 9,
        watermark: 3,
    }
}

fn signed_in(cookies: &Cookies) -> Vec<HeaderValue> {
    let mut jar = Jar::default();
    jar.keep(cookies, kept()).unwrap();
    jar.see(cookies, 8).unwrap();
    jar.remember(cookies, ID.parse().unwrap(), entry(600), 0)
        .unwrap();
    jar.into_set().collect()
}

#[test]
fn what_a_browser_was_given_comes_back() {
    let cookies = cookies("https://auth.test");
    let jar = cookies.read(&back(&signed_in(&cookies)));
    assert_eq!(
        (&*jar.sealed().unwrap().who.subject, jar.seen),
        ("ada@example.com", Some(8))
    );
    assert_eq!(jar.login(ID.parse().unwrap()), Some(&entry(600)));
    assert!(jar.known_browser().is_some());
    assert_eq!(jar.into_set().count(), 0);
}

#[test]
fn a_cookie_is_nothing_to_another_browser_or_under_another_name() {
    let cookies = cookies("https://auth.test");
    let hers = back(&signed_in(&cookies));
    let hers = hers[COOKIE].to_str().unwrap();
    let his = BrowserId::mint().unwrap();
    let stolen = hers
        .split("; ")
        .map(|pair| match pair.split_once('=').unwrap() {
            ("__Host-vvs-browser", _) => format!("__Host-vvs-browser={}", his.as_str()),
            _ => pair.to_owned(),
        });
    let stolen = stolen.collect::<Vec<_>>().join("; ");
    let jar = cookies.read(&HeaderMap::from_iter([(COOKIE, stolen.parse().unwrap())]));
    assert!(jar.known_browser().is_some_and(|browser| *browser == his));
    assert!(jar.sealed().is_none() && jar.login(ID.parse().unwrap()).is_none());

    let moved = hers.replace(&format!("login-{ID}"), &format!("login-{}", id(1)));
    let jar = cookies.read(&HeaderMap::from_iter([(COOKIE, moved.parse().unwrap())]));
    assert!(jar.sealed().is_some() && jar.login(id(1)).is_none());
}

#[test]
fn a_browser_without_a_whole_id_has_nothing() {
    let cookies = cookies("https://auth.test");
    for line in [
        "",
        "x",
        "__Host-vvs-browser=",
        "__Host-vvs-browser=c2hvcnQ",
        "__Host-vvs-browser=AAAAAAAAAAAAAAAAAAAAAAAA",
        "vvs-443-browser=AAAAAAAAAAAAAAAAAAAAAA",
    ] {
        let jar = cookies.read(&HeaderMap::from_iter([(COOKIE, line.parse().unwrap())]));
        assert!(jar.known_browser().is_none(), "{line}");
    }
}

#[test]
fn a_cookie_is_locked_to_the_host_and_out_of_reach_of_scripts() {
    for line in signed_in(&cookies("https://auth.test")) {
        let line = line.to_str().unwrap();
        assert!(line.starts_with("__Host-vvs-"), "{line}");
        for attribute in ["; Path=/", "; HttpOnly", "; SameSite=Lax", "; Secure"] {
            assert!(line.contains(attribute), "{line}");
        }
        assert!(!line.contains("Domain"), "{line}");
    }

    for line in signed_in(&cookies("http://127.0.0.1:8080")) {
        let line = line.to_str().unwrap();
        assert!(
            line.starts_with("vvs-8080-")
                && line.contains("; HttpOnly")
                && !line.contains("Secure"),
            "{line}"
        );
    }

    assert!(
        signed_in(&cookies("http://[::1]"))[0]
            .to_str()
            .unwrap()
            .starts_with("vvs-80-browser=")
    );
}

#[test]
fn two_tabs_that_answer_at_once_lose_nothing_of_each_other() {
    let cookies = cookies("https://auth.test");
    let before = signed_in(&cookies);
    let (mut one, mut other) = (cookies.read(&back(&before)), cookies.read(&back(&before)));
    one.remember(&cookies, id(1), entry(600), 0).unwrap();
    other.remember(&cookies, id(2), entry(600), 0).unwrap();
    let lines: Vec<_> = before
        .into_iter()
        .chain(one.into_set())
        .chain(other.into_set())
        .collect();
    let jar = cookies.read(&back(&lines));
    assert!(jar.sealed().is_some() && jar.login(id(1)).is_some() && jar.login(id(2)).is_some());
}

#[test]
fn the_oldest_login_makes_room() {
    let cookies = cookies("https://auth.test");
    let mut lines = signed_in(&cookies);
    for number in 1..20 {
        let mut jar = cookies.read(&back(&lines));
        let entry = Seen {
            approved: Some("00000000-0000-4000-8000-000000000000".to_owned()),
            session: Some("ses_00000000-0000-4000-8000-000000000000".to_owned()),
            ..entry(600 + i64::from(number))
        };
        jar.remember(&cookies, id(number), entry, 0).unwrap();
        lines.extend(jar.into_set());
    }

    let request = back(&lines);
    let jar = cookies.read(&request);
    assert_eq!(jar.logins.len(), MAX_LOGINS);
    assert!(
        jar.login(id(11)).is_none() && jar.login(id(12)).is_some() && jar.login(id(19)).is_some()
    );
    assert!(request[COOKIE].len() < 4096);
}

#[test]
fn a_login_is_kept_until_an_hour_behind_its_end() {
    let cookies = cookies("https://auth.test");
    for (expires_at, max_age) in [(600, 4200), (-600, 3600)] {
        let mut jar = Jar::default();
        jar.remember(&cookies, id(1), entry(expires_at), 0).unwrap();
        let line = jar.into_set().last().unwrap();
        assert!(
            line.to_str()
                .unwrap()
                .ends_with(&format!("; Max-Age={max_age}")),
            "{line:?}"
        );
    }
}

#[test]
fn the_login_that_ended_here_last_is_the_last_one() {
    let cookies = cookies("https://auth.test");
    let mut jar = Jar::default();
    for (number, expires_at, acked) in [
        (1, 600, true),
        (2, 700, true),
        (3, 650, true),
        (4, 800, false),
    ] {
        jar.remember(
            &cookies,
            id(number),
            Seen {
                acked,
                ..entry(expires_at)
            },
            0,
        )
        .unwrap();
    }

    assert_eq!(jar.last_acked(), Some(id(2)));
}

#[test]
fn the_last_word_about_a_cookie_is_the_only_one() {
    let cookies = cookies("https://auth.test");
    let mut jar = Jar::default();
    for acked in [false, true] {
        jar.remember(
            &cookies,
            id(1),
            Seen {
                acked,
                ..entry(600)
            },
            0,
        )
        .unwrap();
    }

    assert_eq!(jar.last_acked(), Some(id(1)));

    let lines: Vec<_> = jar.into_set().collect();
    assert_eq!(lines.len(), 2);
    assert!(cookies.read(&back(&lines)).login(id(1)).unwrap().acked);
}

#[test]
fn signing_out_leaves_the_browser_and_its_logins() {
    let cookies = cookies("https://auth.test");
    let before = signed_in(&cookies);
    let mut jar = cookies.read(&back(&before));
    jar.sign_out(&cookies);
    let lines: Vec<_> = before.into_iter().chain(jar.into_set()).collect();
    let jar = cookies.read(&back(&lines));
    assert!(jar.sealed().is_none() && jar.seen.is_none());
    assert!(jar.known_browser().is_some() && jar.login(ID.parse().unwrap()).is_some());
}

fn flow(nonce: &str, expires_at: i64) -> Flow {
    Flow {
        login: Some(ID.to_owned()),
        nonce: nonce.to_owned(),
        verifier: "v".repeat(43),
        watermark: 0,
        expires_at,
    }
}

/// Returns the cookies of a browser that has begun trips with these names, one after the other.
fn on_trips(cookies: &Cookies, names: &[&str]) -> Vec<HeaderValue> {
    let mut lines = signed_in(cookies);
    for (number, name) in (1..).zip(names) {
        let mut jar = cookies.read(&back(&lines));
        jar.begin(cookies, name, flow(name, 900 + number), 0)
            .unwrap();
        lines.extend(jar.into_set());
    }
    lines
}

#[test]
fn a_trip_is_over_when_the_browser_is_back() {
    let cookies = cookies("https://auth.test");
    let mut lines = on_trips(&cookies, &["one", "two"]);
    let mut jar = cookies.read(&back(&lines));
    assert!(jar.end(&cookies, "three", 10).is_none() && jar.end(&cookies, "", 10).is_none());

    let flow = jar.end(&cookies, "one", 10).unwrap();
    assert_eq!((&*flow.nonce, flow.login.as_deref()), ("one", Some(ID)));
    assert!(
        jar.end(&cookies, "one", 10).is_none(),
        "twice in one request"
    );

    lines.extend(jar.into_set());
    let mut jar = cookies.read(&back(&lines));
    assert!(jar.end(&cookies, "one", 10).is_none(), "twice");
    assert_eq!(
        jar.end(&cookies, "two", 10).unwrap().nonce,
        "two",
        "another tab's trip"
    );
}

#[test]
fn a_trip_that_took_too_long_is_none() {
    let cookies = cookies("https://auth.test");
    let lines = on_trips(&cookies, &["one"]);
    assert!(
        lines
            .last()
            .unwrap()
            .to_str()
            .unwrap()
            .ends_with("; Max-Age=901")
    );
    assert!(
        cookies
            .read(&back(&lines))
            .end(&cookies, "one", 900)
            .is_some()
    );

    let mut jar = cookies.read(&back(&lines));
    assert!(jar.end(&cookies, "one", 901).is_none());
    assert_eq!(jar.into_set().count(), 1, "what is left of it goes");
}

#[test]
fn a_trip_is_its_browsers_own_and_has_one_name() {
    let cookies = cookies("https://auth.test");
    let hers = back(&on_trips(&cookies, &["one"]));
    let hers = hers[COOKIE].to_str().unwrap();
    let end = |line: String, name: &str| {
        let headers = HeaderMap::from_iter([(COOKIE, line.parse().unwrap())]);
        cookies.read(&headers).end(&cookies, name, 10)
    };
    assert!(end(hers.to_owned(), "one").is_some());
    assert!(end(hers.replace("flow-one", "flow-two"), "two").is_none());

    let sealed = hers
        .split("; ")
        .find(|pair| pair.contains("flow-one"))
        .unwrap();
    let his = format!(
        "__Host-vvs-browser={}; {sealed}",
        BrowserId::mint().unwrap().as_str()
    );
    assert!(end(his, "one").is_none());
}

#[test]
fn the_oldest_trip_makes_room_and_two_tabs_lose_nothing() {
    let cookies = cookies("https://auth.test");
    let request = back(&on_trips(&cookies, &["a", "b", "c", "d", "e"]));
    let mut jar = cookies.read(&request);
    assert_eq!(jar.flows.len(), MAX_FLOWS);
    assert!(jar.end(&cookies, "a", 10).is_none() && jar.end(&cookies, "b", 10).is_some());

    let mut lines = signed_in(&cookies);
    let (mut one, mut other) = (cookies.read(&back(&lines)), cookies.read(&back(&lines)));
    one.begin(&cookies, "a", flow("a", 900), 0).unwrap();
    other.begin(&cookies, "b", flow("b", 900), 0).unwrap();
    lines.extend(one.into_set().chain(other.into_set()));
    let mut jar = cookies.read(&back(&lines));
    assert!(jar.end(&cookies, "a", 10).is_some() && jar.end(&cookies, "b", 10).is_some());
}
