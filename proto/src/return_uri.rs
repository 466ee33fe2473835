//! Where a browser may take a completion code: the `returnUri` of an editor's `hello`. The relay accepts by this rule, and
//! web checks again what a relay told it, for it hands the text to a browser.

use std::str::FromStr;

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

/// Where an editor waits for its code: a listener on the browser's own machine, or a program that has registered a scheme.
/// A browser cannot take it for anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnUri(String);

/// The text is no such place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsafe;

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
    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
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
            "http://localhost:50000/",
            "http://127.1:50000/",
            "1vvs://x",
            "VVS://auth/complete",
            "intent://x",
            "vvs://auth complete",
            "vvs://auth\\complete",
            "vvs://auth/complete#x",
            "vvs://auth/\"onclick=x",
            "http://127.0.0.1:50000/it's",
            "vvs://auth/a|b",
        ] {
            assert_eq!(bad.parse::<ReturnUri>(), Err(Unsafe), "{bad}");
        }
    }
}
