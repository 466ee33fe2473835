//! An editor's description of itself, made safe to show and to store. Only the key is believed, and
//! that only with its proof.

use serde::{Deserialize, Serialize};
use vvs_auth::device::DeviceKey;
use vvs_proto::ReturnUri;
use vvs_proto::frame::{App, AuthErrorCode, Binding, Device};
use vvs_proto::text::plain;
use vvs_runtime::origin::Origin;

/// Characters of a name that are kept.
const NAME: usize = 64;

/// Where this server allows a browser to take a code.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReturnPlaces<'a> {
    /// Whole addresses, compared byte for byte.
    pub(crate) known: &'a [String],
    /// Whether an editor may use a listener on the browser's own machine.
    pub(crate) listeners: bool,
    /// This server itself, which redirects to other places.
    pub(crate) public_url: &'a Origin,
}

impl ReturnPlaces<'_> {
    pub(crate) fn allow(self, text: &str) -> bool {
        let Ok(uri) = text.parse::<ReturnUri>() else {
            return false;
        };
        let is_known = self.known.iter().any(|known| known == text);
        let is_allowed = is_known || self.listeners && uri.port().is_some();
        is_allowed && !uri.is_listener_on(self.public_url.loopback_port())
    }
}

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
        places: ReturnPlaces<'_>,
    ) -> Result<Self, AuthErrorCode> {
        if return_uri.is_some_and(|uri| !places.allow(uri)) {
            return Err(AuthErrorCode::BadReturnUri);
        }

        Ok(Self {
            app: App {
                name: clean(&app.name),
                version: clean(&app.version),
            },
            device: Device {
                name: clean(&device.name),
                os: clean(&device.os),
            },
            jwk: key.to_json(),
            return_uri: return_uri.map(str::to_owned),
        })
    }

    /// Returns the strongest binding that this editor supports.
    pub(crate) fn binding(&self) -> Binding {
        if self.return_uri.is_some() {
            Binding::Link
        } else {
            Binding::Typed
        }
    }
}

/// Returns a text that shows as it reads; empty when the editor did not send one.
fn clean(text: &str) -> String {
    plain(text, NAME).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_loses_what_does_not_show_or_reorders_what_does() {
        assert_eq!(clean("Ada\u{202e}s\u{0} \u{200b}Mac\n"), "Adas Mac");
        assert_eq!(
            clean("\u{3164}\u{2800} \u{e0041}"),
            "",
            "a blank name says nothing"
        );
        assert_eq!(clean(&"x".repeat(100)).len(), 64);
        assert_eq!(clean("Größe 東京"), "Größe 東京");
    }

    const KNOWN: &str = "vvs://auth/complete";

    fn allow(listeners: bool, public_url: &str, uri: &str) -> bool {
        let known = [KNOWN.to_owned(), "http://127.0.0.1:49151/vvs".to_owned()];
        ReturnPlaces {
            known: &known,
            listeners,
            public_url: &public_url.parse().unwrap(),
        }
        .allow(uri)
    }

    #[test]
    fn a_code_goes_to_a_known_address_or_to_the_browsers_own_machine() {
        let allow = |uri| allow(true, "https://auth.example.com", uri);
        for good in [
            KNOWN,
            "http://127.0.0.1:1024/",
            "http://127.0.0.1:5000",
            "http://[::1]:49152/done",
            "http://127.0.0.1:49151/vvs",
        ] {
            assert!(allow(good), "{good}");
        }

        for bad in [
            "",
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
            "http://127.0.0.1:5000/<a>",
            "http://127.0.0.1:5000//evil.example/x",
            "http://127.0.0.1:5000/%2fevil.example",
        ] {
            assert!(!allow(bad), "{bad}");
        }
    }

    fn is_refused_beside_the_known_one(uri: &str) {
        assert!(allow(true, "https://auth.example.com", KNOWN));
        assert!(!allow(true, "https://auth.example.com", uri), "{uri}");
    }

    #[test]
    fn a_known_address_with_another_authority_is_another_one() {
        is_refused_beside_the_known_one("vvs://evil/complete");
    }

    #[test]
    fn a_known_address_with_a_longer_path_is_another_one() {
        is_refused_beside_the_known_one("vvs://auth/complete/");
        is_refused_beside_the_known_one("vvs://auth/complete/x");
        is_refused_beside_the_known_one("vvs://auth/completed");
        is_refused_beside_the_known_one("vvs://auth//complete");
    }

    #[test]
    fn a_known_address_with_a_query_is_another_one() {
        is_refused_beside_the_known_one("vvs://auth/complete?");
        is_refused_beside_the_known_one("vvs://auth/complete?next=x");
    }

    #[test]
    fn a_known_address_with_an_encoded_slash_is_another_one() {
        is_refused_beside_the_known_one("vvs://auth%2fcomplete");
        is_refused_beside_the_known_one("vvs://auth/complete%2f");
        is_refused_beside_the_known_one("vvs://auth/%63omplete");
    }

    #[test]
    fn a_known_address_in_capitals_is_another_one() {
        is_refused_beside_the_known_one("VVS://auth/complete");
        is_refused_beside_the_known_one("vvs://AUTH/complete");
        is_refused_beside_the_known_one("vvs://auth/Complete");
    }

    #[test]
    fn without_listeners_a_code_goes_to_a_known_address_alone() {
        let allow = |uri| allow(false, "https://auth.example.com", uri);
        assert!(allow(KNOWN) && allow("http://127.0.0.1:49151/vvs"));
        for bad in [
            "http://127.0.0.1:49152/",
            "http://[::1]:49152/",
            "http://127.0.0.1:49151/",
            "http://[::1]:49151/vvs",
        ] {
            assert!(!allow(bad), "{bad}");
        }
    }

    #[test]
    fn a_code_never_comes_back_to_this_server() {
        for own in [
            "http://127.0.0.1:49151",
            "http://localhost:49151",
            "https://[::1]:49151",
        ] {
            for uri in [
                "http://127.0.0.1:49151/",
                "http://[::1]:49151/login",
                "http://127.0.0.1:49151/vvs",
            ] {
                assert!(!allow(true, own, uri), "{uri} is {own}");
            }
            assert!(allow(true, own, "http://127.0.0.1:49152/"));
        }
    }
}
