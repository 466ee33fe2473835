//! The server that an editor is configured with, and which links are its own. Opens nothing.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;

/// The text is not a server that an editor would use. The messages end with what to do next.
#[derive(Debug, thiserror::Error)]
pub enum BadServer {
    #[error(
        "`{0}` is not the address of a server. Give scheme and host, such as \
         https://vvs.example.org"
    )]
    Address(String),
    #[error(
        "`{0}` is not this machine, and over http anyone on the way could read the token. Use \
         https (http is for localhost, 127.0.0.1 and [::1] only)"
    )]
    Cleartext(String),
}

/// The purpose of a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A new login.
    Login,
    /// A session, or a login that began on another connection.
    Session,
}

/// Scheme, host and port of a VVS server. Over plain http it must be this machine: anything else
/// does not parse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    https: bool,
    /// Lower case; an IPv6 address is in brackets.
    host: String,
    port: u16,
}

/// A link to a page of the server, fit to be given to other programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link(String);

impl Link {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Server {
    fn of(uri: &Uri) -> Option<Self> {
        let https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _other => return None,
        };

        let authority = uri.authority()?;
        let port = authority.port();
        let exact = port.as_ref().map_or_else(
            || authority.host().to_owned(),
            |p| format!("{}:{p}", authority.host()),
        );

        // What is left over is user info, or a port that is no number and that `port` is silent
        // about.
        if authority.host().is_empty() || authority.as_str() != exact {
            return None;
        }

        let port = port.map_or(if https { 443 } else { 80 }, |port| port.as_u16());

        Some(Self {
            https,
            host: authority.host().to_ascii_lowercase(),
            port,
        })
    }

    /// Returns the link, if it leads to this server. `None` for other origins and schemes, and for
    /// characters that some shell, launcher or browser interprets: the server chose the text, and
    /// it may be dishonest.
    pub fn link(&self, url: &str) -> Option<Link> {
        let harmless = |c: char| c.is_ascii_alphanumeric() || "-._~:/?#[]@=&%+,".contains(c);
        let own = url.chars().all(harmless) && Self::of(&url.parse().ok()?).as_ref() == Some(self);
        own.then(|| Link(url.to_owned()))
    }

    /// Returns whether the connection is encrypted.
    pub(crate) fn is_https(&self) -> bool {
        self.https
    }

    /// Returns host, without the brackets of an IPv6 address, and port.
    pub(crate) fn address(&self) -> (&str, u16) {
        (
            self.host.trim_start_matches('[').trim_end_matches(']'),
            self.port,
        )
    }

    /// Returns the URL where editors connect.
    pub(crate) fn websocket(&self, purpose: Purpose) -> String {
        let path = match purpose {
            Purpose::Login => "/ws",
            Purpose::Session => "/ws?for=session",
        };
        self.to_string().replacen("http", "ws", 1) + path
    }

    fn is_this_machine(&self) -> bool {
        let (host, _port) = self.address();
        host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }
}

/// The origin, as a browser writes it.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, default) = if self.https {
            ("https", 443)
        } else {
            ("http", 80)
        };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port == default {
            Ok(())
        } else {
            write!(f, ":{}", self.port)
        }
    }
}

impl FromStr for Server {
    type Err = BadServer;

    fn from_str(text: &str) -> Result<Self, BadServer> {
        let uri: Uri = text
            .parse()
            .map_err(|_cause| BadServer::Address(text.to_owned()))?;
        let server = Self::of(&uri).filter(|_| uri.path() == "/" && uri.query().is_none());
        let server = server.ok_or_else(|| BadServer::Address(text.to_owned()))?;
        if server.https || server.is_this_machine() {
            Ok(server)
        } else {
            Err(BadServer::Cleartext(server.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BadServer, Purpose, Server};

    fn server(text: &str) -> Server {
        text.parse().unwrap()
    }

    #[test]
    fn a_server_is_shown_as_its_origin_and_reached_at_its_websocket() {
        for (text, origin, websocket) in [
            (
                "http://127.0.0.1:8080",
                "http://127.0.0.1:8080",
                "ws://127.0.0.1:8080/ws",
            ),
            (
                "HTTP://LocalHost:80/",
                "http://localhost",
                "ws://localhost/ws",
            ),
            (
                "https://VVS.example.org:443",
                "https://vvs.example.org",
                "wss://vvs.example.org/ws",
            ),
            (
                "https://http.example.org:8443",
                "https://http.example.org:8443",
                "wss://http.example.org:8443/ws",
            ),
            (
                "http://[::1]:8080",
                "http://[::1]:8080",
                "ws://[::1]:8080/ws",
            ),
        ] {
            assert_eq!(server(text).to_string(), origin);
            assert_eq!(server(text).websocket(Purpose::Login), websocket);
            assert_eq!(
                server(text).websocket(Purpose::Session),
                format!("{websocket}?for=session")
            );
        }

        assert_eq!(server("http://[::1]:8080").address(), ("::1", 8080));
    }

    #[test]
    fn plain_http_to_another_machine_is_refused() {
        for text in [
            "http://vvs.example.org",
            "http://10.0.0.1",
            "http://localhost.example.org",
            "http://0x7f.1",
        ] {
            assert!(
                matches!(text.parse::<Server>(), Err(BadServer::Cleartext(_))),
                "{text}"
            );
        }

        for text in ["http://localhost", "http://127.8.9.1:1", "http://[::1]"] {
            assert!(text.parse::<Server>().is_ok(), "{text}");
        }
    }

    #[test]
    fn what_is_not_just_an_origin_is_refused() {
        for text in [
            "",
            "127.0.0.1:8080",
            "localhost",
            "/ws",
            "ws://127.0.0.1",
            "ftp://127.0.0.1",
            "https://",
            "https://a:b@c.d",
            "https://c.d:99999",
            "https://c.d:",
            "https://c.d/path",
            "https://c.d?q",
            "https://c.d /",
        ] {
            assert!(
                matches!(text.parse::<Server>(), Err(BadServer::Address(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn a_link_is_opened_only_when_it_is_the_servers_own() {
        let own = server("https://vvs.example.org");
        for url in [
            "https://vvs.example.org/login?connection_id=1",
            "https://VVS.example.org:443/login#state=a-b",
        ] {
            assert_eq!(own.link(url).unwrap().as_str(), url);
        }

        for url in [
            "",
            "/login",
            "javascript:alert(1)",
            "file:///etc/passwd",
            "http://vvs.example.org/login",
            "https://vvs.example.org:8443/login",
            "https://vvs.example.org.evil.example/login",
            "https://vvs.example.org@evil.example/login",
            "https://a@vvs.example.org/login",
            "https://vvs.example.org:99999/login",
            "https://evil.example\\@vvs.example.org/login",
        ] {
            assert_eq!(own.link(url), None, "{url}");
        }
    }

    #[test]
    fn a_link_with_characters_of_a_shell_or_a_terminal_is_not_opened() {
        let own = server("https://vvs.example.org");
        for tail in [
            "\"",
            "'",
            "`",
            "$(x)",
            ";x",
            "|x",
            "<x",
            "^",
            "!",
            " x",
            "\t",
            "\n",
            "\u{1b}[2J",
            "\u{202e}",
            "ä",
            "\\",
        ] {
            assert_eq!(
                own.link(&format!("https://vvs.example.org/login?x={tail}")),
                None,
                "{tail:?}"
            );
        }
    }
}
