//! What a browser takes back to the editor that asked: a one-time code, and where to. Knows no page and no call.

use std::str::FromStr;

use secrecy::{ExposeSecret as _, SecretString};

/// Schemes that a browser handles itself: as code, as a file, or as a request to somebody.
const BROWSERS_OWN: [&str; 14] = [
    "about",
    "blob",
    "chrome",
    "data",
    "file",
    "filesystem",
    "ftp",
    "https",
    "intent",
    "javascript",
    "vbscript",
    "view-source",
    "ws",
    "wss",
];
/// The first port that is not the system's.
const MIN_PORT: u16 = 1024;

/// Where the editor waits for its code: a listener on this machine, or a program that has registered a scheme. The relay
/// has checked it against its list; here it is only made sure that a browser cannot take it for anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReturnUri(String);

/// The text is no such place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unsafe;

impl FromStr for ReturnUri {
    type Err = Unsafe;

    fn from_str(text: &str) -> Result<Self, Unsafe> {
        let (scheme, rest) = text.split_once(':').ok_or(Unsafe)?;
        // Browsers drop some characters before they look for the scheme, and turn a backslash into a slash.
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"'<>\\^`{|}#".contains(&byte));
        let is_place = if scheme == "http" { is_listener(rest) } else { is_scheme(scheme) && !rest.is_empty() };
        if is_plain && is_place { Ok(Self(text.to_owned())) } else { Err(Unsafe) }
    }
}

/// A scheme (RFC 3986, section 3.1, in lower case) that a browser hands to another program.
fn is_scheme(scheme: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase();
    scheme.bytes().next().is_some_and(is_letter)
        && scheme.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit() || b"+-.".contains(&byte))
        && !BROWSERS_OWN.contains(&scheme)
}

fn is_listener(rest: &str) -> bool {
    let Some(rest) = ["//127.0.0.1:", "//[::1]:"].into_iter().find_map(|host| rest.strip_prefix(host)) else {
        return false;
    };
    let (port, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    port.parse::<u16>().is_ok_and(|number| number >= MIN_PORT && port == number.to_string()) && !path.contains('?')
}

impl ReturnUri {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The one-time code of an approved login, and the ways it may go.
pub(crate) struct Handback {
    code: SecretString,
    return_uri: Option<ReturnUri>,
    may_show: bool,
}

impl Handback {
    /// Nothing, when there is no way at all.
    pub(crate) fn new(code: SecretString, return_uri: Option<ReturnUri>, may_show: bool) -> Option<Self> {
        (may_show || return_uri.is_some()).then_some(Self { code, return_uri, may_show })
    }

    /// Where the link leads.
    pub(crate) fn return_uri(&self) -> Option<&ReturnUri> {
        self.return_uri.as_ref()
    }

    /// As the link carries it.
    pub(crate) fn code(&self) -> &str {
        self.code.expose_secret()
    }

    /// As a person types it, in groups of four; nothing when this server lets it travel in the link alone.
    pub(crate) fn shown_code(&self) -> Option<String> {
        let letters: Vec<_> = self.code().chars().filter(|c| c.is_alphanumeric()).collect();
        let groups = letters.chunks(4).map(|group| group.iter().collect::<String>());
        self.may_show.then(|| groups.collect::<Vec<_>>().join("-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_back_is_a_listener_on_this_machine_or_another_program() {
        for good in [
            "http://127.0.0.1:1024",
            "http://127.0.0.1:50000/",
            "http://[::1]:50000/auth/complete",
            "vvs://auth/complete",
            "com.example.vvs:/done",
            "vscode://vvs.editor/auth?window=1",
        ] {
            assert_eq!(good.parse::<ReturnUri>().map(|uri| uri.as_str().to_owned()), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "vvs",
            "vvs:",
            ":x",
            "javascript:alert(1)",
            "JavaScript:alert(1)",
            "java\nscript:alert(1)",
            " javascript:alert(1)",
            "data:text/html,x",
            "vbscript:x",
            "view-source:http://127.0.0.1:50000/",
            "file:///etc/passwd",
            "blob:http://127.0.0.1:50000/x",
            "https://127.0.0.1:50000/",
            "https://evil.example/",
            "http://evil.example:50000/",
            "http://127.0.0.1/",
            "http://127.0.0.1:80/",
            "http://127.0.0.1:050000/",
            "http://127.0.0.1:50000@evil.example/",
            "http://user@127.0.0.1:50000/",
            "http://127.0.0.1:50000.evil.example/",
            "http://127.0.0.1:50000/?x",
            "http://127.0.0.1:50000/#x",
            "http:\\\\127.0.0.1:50000/",
            "HTTP://127.0.0.1:50000/",
            "vvs://auth/complete#x",
            "vvs://auth/\"onclick=x",
            "http://127.0.0.1:50000/it's",
            "vvs://auth/a|b",
        ] {
            assert_eq!(bad.parse::<ReturnUri>(), Err(Unsafe), "{bad}");
        }
    }

    #[test]
    fn a_code_is_typed_in_groups_and_travels_as_it_is() {
        let of = |code: &str| Handback::new(code.into(), None, true).unwrap();
        assert_eq!(of("BCDFGHJK").shown_code().unwrap(), "BCDF-GHJK");
        assert_eq!(of("BCDF-GHJK").shown_code().unwrap(), "BCDF-GHJK");
        assert_eq!(of("BCDF-GHJK").code(), "BCDF-GHJK");
        assert!(Handback::new("BCDFGHJK".into(), None, false).is_none());
    }
}
