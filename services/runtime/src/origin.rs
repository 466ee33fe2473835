//! The public address of an installation: scheme and authority, as browsers spell an origin (RFC
//! 6454, section 6.1).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;

/// `https://auth.example.com`: the form that is configured, shown, compared and signed; never with
/// a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    secure: bool,
    /// Host, and port unless it is the scheme's default; lower case.
    authority: String,
    port: u16,
    loopback: bool,
}

/// Why a text is not an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an origin such as https://auth.example.com: scheme, host and perhaps a port, \
     nothing behind"
)]
pub struct NotAnOrigin(String);

impl Origin {
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Returns whether the host is this machine itself: `localhost` or a loopback address.
    pub fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// Returns the port that browsers reach on their own machine; `None` when the host is another
    /// one.
    pub fn loopback_port(&self) -> Option<u16> {
        self.loopback.then_some(self.port)
    }

    /// Returns the value that a browser sends as `Host` (RFC 9110, section 7.2).
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Returns a URL on this origin; `path` begins with a slash.
    pub fn join(&self, path: &str) -> String {
        format!("{self}{path}")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}://{}",
            if self.secure { "https" } else { "http" },
            self.authority
        )
    }
}

impl FromStr for Origin {
    type Err = NotAnOrigin;

    fn from_str(text: &str) -> Result<Self, NotAnOrigin> {
        let bad = || NotAnOrigin(text.chars().take(200).collect());
        let uri: Uri = text.parse().map_err(|_cause| bad())?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad()),
        };

        let authority = uri.authority().ok_or_else(bad)?;
        if authority.as_str().contains('@')
            || uri
                .path_and_query()
                .is_some_and(|rest| rest.as_str() != "/")
        {
            return Err(bad());
        }

        let host = authority.host().to_ascii_lowercase();
        let default_port = if secure { 443 } else { 80 };
        let port = authority.port_u16().unwrap_or(default_port);
        let authority = if port == default_port {
            host.clone()
        } else {
            format!("{host}:{port}")
        };

        let address = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>();
        let loopback = host == "localhost" || address.is_ok_and(|address| address.is_loopback());

        Ok(Self {
            secure,
            authority,
            port,
            loopback,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_spelled_as_browsers_do() {
        for (text, spelled) in [
            ("https://Auth.Example.com/", "https://auth.example.com"),
            ("https://a.test:443", "https://a.test"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), spelled);
        }

        for bad in [
            "",
            "a.test",
            "ftp://a.test",
            "https://a.test/x",
            "https://a.test?x",
            "https://u@a.test",
            "https://",
        ] {
            assert!(bad.parse::<Origin>().is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (text, port) in [
            ("http://127.0.0.1:8080", Some(8080)),
            ("http://localhost:8080", Some(8080)),
            ("http://[::1]:8080", Some(8080)),
            ("http://localhost", Some(80)),
            ("https://[::1]", Some(443)),
            ("http://127.0.0.1.example.com", None),
            ("http://10.0.0.1:8080", None),
        ] {
            let origin = text.parse::<Origin>().unwrap();
            assert_eq!(
                (origin.is_loopback(), origin.loopback_port()),
                (port.is_some(), port),
                "{text}"
            );
        }
    }
}
