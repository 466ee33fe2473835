//! Checks accepted return addresses against the parser that browsers follow: an accepted address
//! means to a browser what it says to a reader.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use url::{Host, Url};
use vvs_proto::ReturnUri;

const GOOD: [&str; 6] = [
    "http://127.0.0.1:41873/",
    "http://127.0.0.1:41873",
    "http://[::1]:41873/done",
    "http://127.0.0.1:65535/auth-complete_1",
    "vvs://auth/complete",
    "com.example.vvs:/done?window=1",
];

const PIECES: [&str; 30] = [
    "",
    "/",
    "//",
    "\\",
    ":",
    "@",
    "?",
    "#",
    "%",
    "%2f",
    "%5c",
    "%00",
    ".",
    "..",
    ";",
    "=",
    "&",
    " ",
    "\t",
    "\n",
    "\0",
    "x",
    "Z",
    "9",
    "80",
    "://",
    "evil.example",
    "[",
    "\u{ff0f}",
    "\u{202e}",
];

/// A good address with some characters changed, cut out or put in.
fn bent() -> impl Strategy<Value = String> {
    let change = (any::<Index>(), 0_usize..6, select(PIECES.to_vec()));
    (select(GOOD.to_vec()), prop::collection::vec(change, 0..4)).prop_map(|(text, changes)| {
        let mut text: Vec<char> = text.chars().collect();
        for (at, cut, piece) in changes {
            let at = at.index(text.len() + 1);
            let end = (at + cut).min(text.len());
            text.splice(at..end, piece.chars());
        }
        text.into_iter().collect()
    })
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(_)) | None => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_browser_takes_an_accepted_address_for_nothing_else(text in bent()) {
        let Ok(uri) = text.parse::<ReturnUri>() else { return Ok(()) };
        // A program's own address need not be one that this parser knows; its scheme is all that a
        // browser looks at.
        let Ok(url) = Url::parse(&text) else {
            prop_assert!(uri.port().is_none(), "{}", text);
            return Ok(());
        };
        prop_assert_eq!((url.scheme(), url.fragment()), (uri.scheme(), None));

        if let Some(port) = uri.port() {
            prop_assert!(is_loopback(&url), "{}", text);
            prop_assert_eq!((url.port(), url.username(), url.password(), url.query()), (Some(port), "", None, None));
            let name = url.path().strip_prefix('/').unwrap();
            prop_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{}", text);
            prop_assert_eq!(url.as_str().trim_end_matches('/'), text.trim_end_matches('/'));
        } else {
            prop_assert!(!["http", "https", "ws", "wss", "file", "ftp"].contains(&url.scheme()), "{}", text);
        }
    }
}
