//! What an editor says about itself, made safe to show and to keep. Nothing of it is believed but the key, and that only
//! with its proof.

use serde::{Deserialize, Serialize};
use url::{Host, Url};
use vvs_auth::device::DeviceKey;
use vvs_proto::frame::{App, AuthErrorCode, Binding, Device};

/// Characters of a name that are kept.
const NAME: usize = 64;
/// Schemes that a browser takes for itself, or for another one's document.
const BROWSER_SCHEMES: [&str; 15] = [
    "about",
    "blob",
    "chrome",
    "data",
    "file",
    "filesystem",
    "ftp",
    "http",
    "https",
    "intent",
    "javascript",
    "vbscript",
    "view-source",
    "ws",
    "wss",
];
/// Longest `returnUri`, in bytes.
const RETURN_URI: usize = 512;
/// Ports below belong to the system.
const FIRST_USER_PORT: u16 = 1024;

/// An editor that has introduced itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) app: App,
    pub(crate) device: Device,
    /// The public key as a JWK with its required members only.
    pub(crate) jwk: String,
    pub(crate) return_uri: Option<String>,
}

impl Hello {
    /// Reads and cleans what the editor sent.
    pub(crate) fn new(
        app: &App,
        device: &Device,
        key: &DeviceKey,
        return_uri: Option<&str>,
        known_uris: &[String],
    ) -> Result<Self, AuthErrorCode> {
        let return_uri = match return_uri {
            Some(uri) => Some(accepted(uri, known_uris).ok_or(AuthErrorCode::BadReturnUri)?),
            None => None,
        };
        Ok(Self {
            app: App { name: clean(&app.name), version: clean(&app.version) },
            device: Device { name: clean(&device.name), os: clean(&device.os) },
            jwk: key.to_json(),
            return_uri,
        })
    }

    /// The fastest tie that this editor can have with its browser.
    pub(crate) fn binding(&self) -> Binding {
        if self.return_uri.is_some() { Binding::Link } else { Binding::Typed }
    }
}

/// A text that shows as what it is: without control characters and without those that reorder others (UAX #9).
fn clean(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}')
            || matches!(c, '\u{2066}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().filter(|c| !hidden(*c)).take(NAME).collect::<String>().trim().to_owned()
}

/// Where a browser may take the code: a known address, or a listener on the browser's own machine.
fn accepted(uri: &str, known: &[String]) -> Option<String> {
    if known.iter().any(|known| known == uri) {
        return Some(uri.to_owned());
    }
    listener(uri).filter(|uri| is_plain(uri))
}

/// Whether this may be a known address: one that a browser can only hand to another program on its machine. The page that
/// does so refuses everything else, so an editor that had it accepted could never be signed in.
pub(crate) fn is_return_uri(uri: &str) -> bool {
    // RFC 3986, section 3.1, in lower case.
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|first: char| first.is_ascii_lowercase())
            && scheme.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.'))
            && !BROWSER_SCHEMES.contains(&scheme)
    };
    let is_program = uri.split_once(':').is_some_and(|(scheme, rest)| is_scheme(scheme) && !rest.is_empty());
    // As it is, or but for the slash that ends an address without a path.
    let is_listener = listener(uri).is_some_and(|url| url == uri || url.strip_suffix('/') == Some(uri));
    is_plain(uri) && (is_program || is_listener)
}

/// Whether a page and a browser take it for the same text: nothing is dropped, quoted or turned into something else.
fn is_plain(uri: &str) -> bool {
    uri.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"#'<>\\^`{|}".contains(&byte))
}

/// An address on the browser's own machine, in its parsed form, so that what is checked is what is used.
fn listener(uri: &str) -> Option<String> {
    if uri.len() > RETURN_URI {
        return None;
    }
    let url = Url::parse(uri).ok()?;
    let is_loopback = match url.host()? {
        Host::Ipv4(address) => address.octets() == [127, 0, 0, 1],
        Host::Ipv6(address) => address == std::net::Ipv6Addr::LOCALHOST,
        Host::Domain(_) => false,
    };
    let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    let is_ours = url.scheme() == "http" && is_loopback && is_plain && url.fragment().is_none();
    (is_ours && url.port()? >= FIRST_USER_PORT).then(|| url.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_loses_what_does_not_show_or_reorders_what_does() {
        assert_eq!(clean("Ada\u{202e}s\u{0} \u{200b}Mac\n"), "Adas Mac");
        assert_eq!(clean(&"x".repeat(100)).len(), 64);
        assert_eq!(clean("Größe 東京"), "Größe 東京");
    }

    #[test]
    fn a_code_goes_to_a_known_address_or_to_the_browsers_own_machine() {
        let known = ["vvs://auth/complete".to_owned()];
        let accepted = |uri| accepted(uri, &known);
        for good in ["vvs://auth/complete", "http://127.0.0.1:1024/", "http://[::1]:49152/done"] {
            assert_eq!(accepted(good).as_deref(), Some(good));
        }
        assert_eq!(accepted("http://127.0.0.1:5000").as_deref(), Some("http://127.0.0.1:5000/"));
        for bad in [
            "",
            "vvs://auth/complete/",
            "vvs://auth/other",
            "javascript:alert(1)",
            "https://127.0.0.1:5000/",
            "http://localhost:5000/",
            "http://127.0.0.1/",
            "http://127.0.0.1:80/",
            "http://127.0.0.1:1023/",
            "http://127.0.0.2:5000/",
            "http://127.0.0.1.evil.example:5000/",
            "http://evil.example:5000/",
            "http://user@127.0.0.1:5000/",
            "http://127.0.0.1:5000/?a=b",
            "http://127.0.0.1:5000/#a",
            "http://127.0.0.1:5000@evil.example:5000/",
            "//127.0.0.1:5000/",
            "http://127.0.0.1:5000/it's",
            "http://127.0.0.1:5000/a|b",
        ] {
            assert_eq!(accepted(bad), None, "{bad}");
        }
        assert_eq!(accepted("http://127.0.0.1:5000/<a>").as_deref(), Some("http://127.0.0.1:5000/%3Ca%3E"));
    }

    #[test]
    fn a_known_address_is_one_that_a_browser_hands_to_another_program() {
        for good in [
            "vvs://auth/complete",
            "com.example.vvs:/done",
            "vscode://vvs.editor/auth?window=1",
            "http://127.0.0.1:1024",
            "http://[::1]:50000/auth/complete",
        ] {
            assert!(is_return_uri(good), "{good}");
        }
        for bad in [
            "",
            "vvs",
            "vvs:",
            ":x",
            "1vvs://x",
            "VVS://auth/complete",
            "vvs://it's",
            "vvs://a|b",
            "vvs://auth complete",
            "vvs://auth/complete#x",
            "vvs://auth\\complete",
            "javascript:alert(1)",
            "java\nscript:alert(1)",
            "data:text/html,x",
            "view-source:http://127.0.0.1:50000/",
            "intent://x",
            "https://127.0.0.1:50000/",
            "http://evil.example:50000/",
            "http://localhost:50000/",
            "http://127.1:50000/",
            "http://127.0.0.1/",
            "http://127.0.0.1:80/",
            "http://127.0.0.1:050000/",
            "http://127.0.0.1:50000/../x",
            "http://127.0.0.1:50000/?x",
            "HTTP://127.0.0.1:50000/",
        ] {
            assert!(!is_return_uri(bad), "{bad}");
        }
    }
}
