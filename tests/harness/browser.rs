//! A browser as far as HTTP goes: cookies, forms, and the headers that browsers send. Pages in a
//! real one are tested with Chromium.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, COOKIE, HOST, LOCATION, SET_COOKIE};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use vvs_mesh::up::Addresses;

use crate::Editor;
use crate::Secrets;
use crate::stack::PATIENCE;

/// Cookies, and where they belong.
#[derive(Debug, Clone)]
pub struct Browser {
    address: SocketAddr,
    host: String,
    origin: String,
    pub cookies: BTreeMap<String, String>,
    /// Whom it trusts, for an origin on https.
    tls: Option<Arc<ClientConfig>>,
    secrets: Secrets,
}

/// Trusts this CA and no other.
pub fn tls_client(ca_file: &Path) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(ca_file).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    builder.with_root_certificates(roots).with_no_client_auth()
}

/// What a server answered.
#[derive(Debug, Clone)]
pub struct Page {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Page {
    /// The value of a form's hidden field.
    pub fn field(&self, name: &str) -> String {
        let (_, rest) = self
            .body
            .split_once(&format!("name=\"{name}\""))
            .unwrap_or_else(|| {
                panic!(
                    "no field {name} on this page ({}): {}",
                    self.status, self.body
                );
            });
        let (_, value) = rest.split_once("value=\"").unwrap();
        value.split_once('"').unwrap().0.to_owned()
    }

    /// The one-time code that this page shows or takes back to the editor, as the editor is to send
    /// it.
    pub fn code(&self) -> Option<String> {
        let shown = self
            .body
            .split_once("Your one-time code</h2>")
            .and_then(|(_, rest)| {
                let (_, rest) = rest.split_once("<span aria-hidden=\"true\">")?;
                Some(rest.split_once('<')?.0.to_owned())
            });
        let carried = self
            .body
            .split_once("data-code=\"")
            .and_then(|(_, rest)| Some(rest.split_once('"')?.0.to_owned()));
        shown.or(carried)
    }

    pub fn location(&self) -> String {
        self.headers[LOCATION].to_str().unwrap().to_owned()
    }
}

impl Browser {
    /// For an installation that is not a [`crate::Stack`]; `url` is its origin, with an address and
    /// a port.
    pub fn at(url: &str, secrets: &Secrets) -> Self {
        let host = url.strip_prefix("http://").unwrap().to_owned();
        let (origin, cookies) = (url.to_owned(), BTreeMap::new());
        Self {
            address: host.parse().unwrap(),
            host,
            origin,
            cookies,
            tls: None,
            secrets: secrets.clone(),
        }
    }

    pub(crate) fn new(addresses: &Addresses, secrets: Secrets) -> Self {
        Self {
            address: addresses.public,
            host: addresses.public_url.authority().to_owned(),
            origin: addresses.public_url.to_string(),
            cookies: BTreeMap::new(),
            tls: None,
            secrets,
        }
    }

    /// One that speaks TLS with its site, and trusts this CA and no other.
    #[must_use]
    pub fn trusting(mut self, ca_file: &Path) -> Self {
        self.tls = Some(Arc::new(tls_client(ca_file)));
        self
    }

    /// A copy of it, and of its cookies, that comes to the same site at another address.
    #[must_use]
    pub fn copy_at(&self, address: SocketAddr) -> Self {
        Self {
            address,
            ..self.clone()
        }
    }

    pub async fn get(&mut self, path: &str) -> Page {
        let request = Request::get(path).header(HOST, &self.host);
        self.send(self.address, request.body(Full::default()).unwrap())
            .await
    }

    /// Asks another port, such as the administration's.
    pub async fn get_at(&mut self, address: SocketAddr, path: &str) -> Page {
        let request = Request::get(path).header(HOST, address.to_string());
        self.send(address, request.body(Full::default()).unwrap())
            .await
    }

    /// Submits a form as a page of this site would.
    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        let origin = self.origin.clone();
        self.post_from(
            path,
            fields,
            &[("origin", &origin), ("sec-fetch-site", "same-origin")],
        )
        .await
    }

    /// Submits a form with whatever an attacker's page makes a browser send.
    pub async fn post_from(
        &mut self,
        path: &str,
        fields: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> Page {
        let request = self.form(path, fields, headers);
        self.send(self.address, request).await
    }

    fn form(
        &self,
        path: &str,
        fields: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> Request<Full<Bytes>> {
        let body: Vec<_> = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", encode(value)))
            .collect();
        let mut request = Request::post(path).header(HOST, &self.host);
        request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::from(body.join("&"))).unwrap()
    }

    /// Any request at all, with this browser's cookies.
    pub async fn send(&mut self, address: SocketAddr, request: Request<Full<Bytes>>) -> Page {
        self.try_send(address, request).await.unwrap()
    }

    /// The same where there may be no answer.
    pub async fn try_get(&mut self, path: &str) -> Option<Page> {
        let request = Request::get(path).header(HOST, &self.host);
        self.try_send(self.address, request.body(Full::default()).unwrap())
            .await
    }

    /// The same where there may be no answer.
    pub async fn try_post(&mut self, path: &str, fields: &[(&str, &str)]) -> Option<Page> {
        let origin = self.origin.clone();
        let request = self.form(
            path,
            fields,
            &[("origin", &origin), ("sec-fetch-site", "same-origin")],
        );
        self.try_send(self.address, request).await
    }

    async fn try_send(
        &mut self,
        address: SocketAddr,
        mut request: Request<Full<Bytes>>,
    ) -> Option<Page> {
        self.secrets.assert_not_in_url(&request.uri().to_string());

        if !self.cookies.is_empty() && address == self.address {
            let cookies: Vec<_> = self
                .cookies
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            request
                .headers_mut()
                .insert(COOKIE, cookies.join("; ").parse().unwrap());
        }

        let tls = self.tls.clone().filter(|_| address == self.address);
        let response = timeout(PATIENCE, connect_and_exchange(address, tls, request))
            .await
            .ok()??;
        let (parts, body) = response.into_parts();
        let page = Page {
            status: parts.status,
            headers: parts.headers,
            body,
        };
        self.keep_cookies(&page.headers);
        if let Some(location) = page.headers.get(LOCATION) {
            self.secrets.assert_not_in_url(location.to_str().unwrap());
        }

        if page.body.contains("name=\"csrf\"") {
            self.secrets.add(&page.field("csrf"));
        }

        if let Some(code) = page.code() {
            self.secrets.add_shown(&code);
            self.secrets.add_shown(&code.replace('-', ""));
        }

        Some(page)
    }

    fn keep_cookies(&mut self, headers: &HeaderMap) {
        for cookie in headers.get_all(SET_COOKIE) {
            let text = cookie.to_str().unwrap();
            let (name, value) = text.split(';').next().unwrap().split_once('=').unwrap();
            if value.is_empty() || text.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.secrets.add(value);
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    /// Signs in at the development provider, and returns the approval page.
    pub async fn sign_in(&mut self, editor: &Editor, name: &str) -> Page {
        self.sign_in_at(&editor.login_path(), name).await
    }

    /// The same, for an editor that is only known by its link.
    pub async fn sign_in_at(&mut self, login_path: &str, name: &str) -> Page {
        let login = self.get(login_path).await;
        assert_eq!(login.status, StatusCode::OK, "{}", login.body);

        let fields = [
            ("email", &*format!("{name}@example.com")),
            ("name", name),
            ("connection_id", &login.field("connection_id")),
            ("csrf", &login.field("csrf")),
        ];
        let signed_in = self.post("/dev/sign-in", &fields).await;
        assert_eq!(
            signed_in.status,
            StatusCode::SEE_OTHER,
            "{}",
            signed_in.body
        );

        let approval = self.get(&signed_in.location()).await;
        assert_eq!(approval.status, StatusCode::OK, "{}", approval.body);

        approval
    }

    /// Signs in to look after the person's editors, and returns the page of them.
    pub async fn account(&mut self, name: &str) -> Page {
        let form = self.get("/account/sign-in").await;
        assert_eq!(form.status, StatusCode::OK, "{}", form.body);

        let fields = [
            ("email", &*format!("{name}@example.com")),
            ("name", name),
            ("csrf", &form.field("csrf")),
        ];
        let signed_in = self.post("/dev/sign-in", &fields).await;
        assert_eq!(
            signed_in.status,
            StatusCode::SEE_OTHER,
            "{}",
            signed_in.body
        );

        let list = self.get(&signed_in.location()).await;
        assert_eq!(list.status, StatusCode::OK, "{}", list.body);

        list
    }

    /// Ticks and approves on the approval page.
    pub async fn approve(&mut self, approval: &Page) -> Page {
        let fields = [
            ("connection_id", &*approval.field("connection_id")),
            ("csrf", &approval.field("csrf")),
            ("confirmed", "yes"),
        ];
        self.post("/login/approve", &fields).await
    }

    /// Denies on the approval page.
    pub async fn deny(&mut self, approval: &Page) -> Page {
        let fields = [
            ("connection_id", &*approval.field("connection_id")),
            ("csrf", &approval.field("csrf")),
        ];
        self.post("/login/deny", &fields).await
    }
}

/// `None` when the connection cannot be made, or ends before the answer does.
async fn connect_and_exchange(
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    request: Request<Full<Bytes>>,
) -> Option<http::Response<String>> {
    let stream = TcpStream::connect(address).await.ok()?;
    let Some(config) = tls else {
        return exchange(stream, request).await;
    };

    let name = ServerName::IpAddress(address.ip().into());

    exchange(
        TlsConnector::from(config)
            .connect(name, stream)
            .await
            .ok()?,
        request,
    )
    .await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
) -> Option<http::Response<String>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .ok()?;
    let exchange = async {
        let response = sender.send_request(request).await.ok()?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        Some(http::Response::from_parts(
            parts,
            String::from_utf8_lossy(&body).into_owned(),
        ))
    };

    let exchange = std::pin::pin!(exchange);
    let connection = std::pin::pin!(connection);

    // The connection makes progress only while it is polled.
    match futures_util::future::select(exchange, connection).await {
        futures_util::future::Either::Left((response, _)) => response,
        futures_util::future::Either::Right((_, exchange)) => exchange.await,
    }
}

/// `application/x-www-form-urlencoded` of one value (URL Standard, section 5.2).
fn encode(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let encode = |byte| {
        if plain(byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    value.bytes().map(encode).collect()
}

/// For requests that are not forms.
impl Browser {
    pub async fn request(&mut self, method: Method, path: &str, headers: &[(&str, &str)]) -> Page {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header(HOST, &self.host);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(self.address, request.body(Full::default()).unwrap())
            .await
    }
}
