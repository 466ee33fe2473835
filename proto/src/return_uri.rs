//! Where a browser may take a completion code: the `returnUri` of an editor's `hello`. The relay
//! accepts by this rule. Web checks the relay's value again, because it hands the text to a
//! browser.

use std::fmt;
use std::str::FromStr;

/// Schemes that a browser handles itself: as code, as a file, or as a network request.
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
/// Schemes that a website or an extension may register for itself (HTML, section 8.10.5.2).
const WEBSITES: [&str; 2] = ["web+", "ext+"];
/// The first port that is not the system's.
const MIN_PORT: u16 = 1024;
/// The longest address, in bytes.
const MAX: usize = 512;

/// Where an editor waits for its code: a listener on the browser's own machine, or a program that
/// has registered a scheme. A browser cannot interpret it differently.
///
/// A listener's path is `/` or one plain name. With a longer path, an encoded one or a query, the
/// program behind the port might redirect the browser to a host of an attacker's choice, and
/// browsers keep the fragment, with the code, across a redirect (RFC 9110, section 10.2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReturnUri {
    text: String,
    port: Option<u16>,
}

/// Why a text is not a safe return address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsafe {
    /// Longer than 512 bytes.
    TooLong,
    /// A character that browsers drop, change or treat as a delimiter.
    Character,
    /// No scheme, a scheme that is not in lower case, or nothing behind it.
    NotWhole,
    /// A scheme that a browser, a website or an extension handles.
    Scheme,
    /// An `http` address that is not a complete address of a listener.
    Listener,
}

impl fmt::Display for Unsafe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "is longer than 512 bytes",
            Self::Character => {
                "holds a space, quote, backslash, # or another character that does \
                not belong into a URL"
            }
            Self::NotWhole => {
                "is not a whole address with a scheme in lower case, such as \
                vvs://auth/complete"
            }
            Self::Scheme => {
                "has a scheme that browsers or websites handle instead of a program on \
                the person's computer"
            }
            Self::Listener => {
                "is an http address, and of those only http://127.0.0.1:PORT/NAME and \
                 http://[::1]:PORT/NAME may be used, with a port from 1024 and with nothing or one \
                 NAME of letters, digits, - and _ behind it"
            }
        })
    }
}

impl std::error::Error for Unsafe {}

impl FromStr for ReturnUri {
    type Err = Unsafe;

    fn from_str(text: &str) -> Result<Self, Unsafe> {
        if text.len() > MAX {
            return Err(Unsafe::TooLong);
        }

        // Browsers drop some characters before they look for the scheme, and turn a backslash into
        // a slash.
        if !text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"\"'<>\\^`{|}#".contains(&byte))
        {
            return Err(Unsafe::Character);
        }

        let (scheme, rest) = text.split_once(':').ok_or(Unsafe::NotWhole)?;
        if !is_scheme(scheme) || rest.is_empty() {
            return Err(Unsafe::NotWhole);
        }

        let is_foreign = BROWSERS_OWN.contains(&scheme)
            || WEBSITES.iter().any(|prefix| scheme.starts_with(prefix));
        let port = match scheme {
            _ if is_foreign => return Err(Unsafe::Scheme),
            "http" => Some(listener(rest).ok_or(Unsafe::Listener)?),
            _ => None,
        };

        Ok(Self {
            text: text.to_owned(),
            port,
        })
    }
}

/// Returns whether this is a scheme (RFC 3986, section 3.1) in lower case.
fn is_scheme(scheme: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase();
    scheme.bytes().next().is_some_and(is_letter)
        && scheme
            .bytes()
            .all(|byte| is_letter(byte) || byte.is_ascii_digit() || b"+-.".contains(&byte))
}

/// Returns the port of a listener's address behind `http:`.
fn listener(rest: &str) -> Option<u16> {
    let rest = ["//127.0.0.1:", "//[::1]:"]
        .into_iter()
        .find_map(|host| rest.strip_prefix(host))?;
    let (digits, name) = rest.split_once('/').unwrap_or((rest, ""));
    let port = digits
        .parse()
        .ok()
        .filter(|port: &u16| *port >= MIN_PORT && digits == port.to_string())?;
    let is_plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));

    is_plain.then_some(port)
}

impl ReturnUri {
    /// Returns the text as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the listener's port on the browser's own machine; `None` when a scheme's program
    /// receives the code.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Returns whether it is a listener on this port, by any address.
    #[must_use]
    pub fn is_listener_on(&self, port: Option<u16>) -> bool {
        self.port.is_some() && self.port == port
    }

    /// Returns the part before the colon.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.text.split(':').next().unwrap_or_default()
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
            "http://[::1]:50000/auth-complete_1",
            "vvs://auth/complete",
            "com.example.vvs:/done",
            "vscode://vvs.editor/auth?window=1",
        ] {
            assert_eq!(
                good.parse::<ReturnUri>().map(|uri| uri.as_str().to_owned()),
                Ok(good.to_owned())
            );
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
            assert!(bad.parse::<ReturnUri>().is_err(), "{bad}");
        }
    }

    /// For each of these, some program exists that answers with a redirect to a host that the path
    /// names.
    #[test]
    fn a_listeners_path_names_no_other_place() {
        for port in ["http://127.0.0.1:50000", "http://[::1]:50000"] {
            for path in [
                "//evil.example/x",
                "//evil.example",
                "//",
                "/x/",
                "/x//evil.example",
                "/x/y",
                "/.",
                "/..",
                "/./",
                "/.//evil.example",
                "/..//evil.example",
                "/evil.example",
                "/https:evil",
                "/https://evil.example/",
                "/@evil.example",
                "/%2f",
                "/%2Fevil.example",
                "/%2f%2fevil.example",
                "/%5cevil.example",
                "/%",
                "/%00",
                "/;x",
                "/x;y",
                "/x=y",
                "/x&y",
                "/x+y",
                "/x~",
                "/$x",
                "/*",
                "/,",
                "/!",
                "/(x)",
                "/[x]",
                "?",
                "/?",
                "?next=evil",
                "/?next=https:evil",
                "/x?next=evil",
                "/\u{ff0f}evil",
                "/\u{e4}",
                "@evil.example/",
                ":80/",
            ] {
                let uri = format!("{port}{path}");
                assert!(uri.parse::<ReturnUri>().is_err(), "{uri}");
            }

            for path in [
                "/\\evil.example",
                "\\evil.example",
                "/\t/evil.example",
                "/\n",
                "/x#",
                "/ ",
            ] {
                let uri = format!("{port}{path}");
                assert_eq!(uri.parse::<ReturnUri>(), Err(Unsafe::Character), "{uri}");
            }
        }
    }

    #[test]
    fn a_place_says_which_program_it_is() {
        let of = |text: &str| {
            text.parse::<ReturnUri>()
                .map(|uri| (uri.scheme().to_owned(), uri.port()))
                .unwrap()
        };
        assert_eq!(
            of("http://127.0.0.1:41873/done"),
            ("http".to_owned(), Some(41873))
        );
        assert_eq!(of("http://[::1]:41873"), ("http".to_owned(), Some(41873)));
        assert_eq!(of("vvs://auth:41873/complete"), ("vvs".to_owned(), None));
    }

    #[test]
    fn what_a_website_can_register_is_no_program_of_the_persons() {
        for bad in [
            "web+vvs://auth/complete",
            "ext+vvs:auth",
            "https://127.0.0.1:50000/",
            "javascript:alert(1)",
        ] {
            assert_eq!(bad.parse::<ReturnUri>(), Err(Unsafe::Scheme), "{bad}");
        }

        assert_eq!(
            format!("vvs://{}", "x".repeat(507)).parse::<ReturnUri>(),
            Err(Unsafe::TooLong)
        );
        assert!(
            format!("vvs://{}", "x".repeat(506))
                .parse::<ReturnUri>()
                .is_ok()
        );
    }
}
