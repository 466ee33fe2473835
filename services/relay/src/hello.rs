//! What an editor says about itself, made safe to show and to keep. Nothing of it is believed but the key, and that only
//! with its proof.

use serde::{Deserialize, Serialize};
use url::Url;
use vvs_auth::device::DeviceKey;
use vvs_proto::ReturnUri;
use vvs_proto::frame::{App, AuthErrorCode, Binding, Device};
use vvs_proto::text::plain;

/// Characters of a name that are kept.
const NAME: usize = 64;
/// Longest `returnUri`, in bytes.
const RETURN_URI: usize = 512;

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

/// A text that shows as what it is; empty when the editor did not say.
fn clean(text: &str) -> String {
    plain(text, NAME).unwrap_or_default()
}

/// Where a browser may take the code: a known address, or a listener on the browser's own machine, in its parsed form, so
/// that what is checked is what is used.
fn accepted(uri: &str, known: &[String]) -> Option<String> {
    if known.iter().any(|known| known == uri) {
        return Some(uri.to_owned());
    }
    let url = Url::parse(uri).ok().filter(|url| uri.len() <= RETURN_URI && url.scheme() == "http")?;
    url.as_str().parse::<ReturnUri>().is_ok().then(|| url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_loses_what_does_not_show_or_reorders_what_does() {
        assert_eq!(clean("Ada\u{202e}s\u{0} \u{200b}Mac\n"), "Adas Mac");
        assert_eq!(clean("\u{3164}\u{2800} \u{e0041}"), "", "a blank name says nothing");
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
}
