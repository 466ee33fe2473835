//! A real browser: headless Chromium, driven through chromedriver. On every page that it is told to
//! expect it keeps screenshots, and fails on whatever axe finds, on a console message, and on a
//! secret in the address.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use fantoccini::actions::{InputSource as _, KeyAction, KeyActions};
use fantoccini::elements::Element;
use fantoccini::error::CmdError;
use fantoccini::key::Key;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder, Locator};
use http::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use url::{ParseError, Url};

use crate::stack::PATIENCE;
use crate::{Secrets, Stack, tool};

/// No sandbox, because it cannot be had as root; and nothing that would look anything up or report
/// anywhere.
const ARGUMENTS: [&str; 9] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
];

/// How a page is looked at: the screenshot's suffix, the width in CSS pixels and the colour scheme.
const VIEWS: [(&str, u32, &str); 3] = [
    ("", 1000, "light"),
    ("-dark", 1000, "dark"),
    ("-narrow", 320, "light"),
];

const AXE: &str = r"
const done = arguments[arguments.length - 1];
const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
const line = (rule, node) => `${rule.id} (${rule.help}): ${node.html}\n${node.failureSummary}`;
axe.run(document, { runOnly: tags }).then(
  ({ passes, violations }) => done([passes.length, violations.flatMap((rule) => rule.nodes.map((node) => line(rule, node)))]),
  (broken) => done([0, [String(broken)]]),
);
";

/// One window with a profile of its own.
#[derive(Debug)]
pub struct Chromium {
    client: Client,
    secrets: Secrets,
    scenario: &'static str,
    axe: String,
    _driver: Driver,
}

/// chromedriver, and the folder for all that it and its browser write.
#[derive(Debug)]
struct Driver {
    port: u16,
    _process: Child,
    folder: tempfile::TempDir,
}

impl Driver {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // It takes a free port of IPv6 and then wants the same one of IPv4, which another test may
        // have.
        loop {
            let mut process = Command::new("chromedriver")
                .arg("--port=0")
                .env("TMPDIR", folder.path())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .unwrap_or_else(|error| {
                    panic!("chromedriver: {error}; run tests/run once: it installs it, or says how")
                });
            let stdout = BufReader::new(process.stdout.take().unwrap());

            match timeout(PATIENCE, port(stdout)).await.unwrap() {
                Ok(port) => {
                    return Self {
                        port,
                        _process: process,
                        folder,
                    };
                }
                Err(said) => assert!(
                    said.contains("port not available"),
                    "chromedriver does not start: {said}"
                ),
            }
        }
    }

    fn capabilities(&self) -> Capabilities {
        let mut arguments = ARGUMENTS.map(str::to_owned).to_vec();
        arguments.push(format!(
            "--user-data-dir={}",
            self.folder.path().join("profile").display()
        ));
        Capabilities::from_iter([
            ("goog:chromeOptions".to_owned(), json!({"args": arguments})),
            ("goog:loggingPrefs".to_owned(), json!({"browser": "ALL"})),
        ])
    }
}

/// Where chromedriver listens; all it has said, when it ends instead.
async fn port(stdout: BufReader<ChildStdout>) -> Result<u16, String> {
    let (mut lines, mut said) = (stdout.lines(), String::new());
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            return Ok(port.trim_end_matches('.').parse().unwrap());
        }
        said.push_str(&line);
    }
    Err(said)
}

impl Drop for Driver {
    /// Chromium outlives a chromedriver that is killed: it has to be told to close it. The answer
    /// comes when it has.
    fn drop(&mut self) {
        if let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", self.port)) {
            stream.set_read_timeout(Some(PATIENCE)).ok();
            stream
                .write_all(
                    b"GET /shutdown HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                )
                .ok();
            stream.read_to_end(&mut Vec::new()).ok();
        }
    }
}

/// A command that chromedriver adds to the standard.
#[derive(Debug)]
struct Extension {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Extension {
    fn endpoint(&self, base_url: &Url, session_id: Option<&str>) -> Result<Url, ParseError> {
        base_url.join(&format!("session/{}/{}", session_id.unwrap(), self.path))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}

impl Chromium {
    /// A browser that has never been here. The scenario's name stands in the names of its
    /// screenshots.
    pub async fn start(stack: &Stack, scenario: &'static str) -> Self {
        let axe = tool::path("node_modules/axe-core/axe.min.js");
        let axe = std::fs::read_to_string(axe).unwrap();
        std::fs::create_dir_all(target().join("screenshots")).unwrap();
        let driver = Driver::start().await;
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(driver.capabilities());
        let client = timeout(
            PATIENCE,
            builder.connect(&format!("http://127.0.0.1:{}", driver.port)),
        )
        .await;
        let client = client.unwrap().unwrap();

        Self {
            client,
            secrets: stack.secrets().clone(),
            scenario,
            axe,
            _driver: driver,
        }
    }

    pub async fn open(&self, url: &str) {
        self.client.goto(url).await.unwrap();
    }

    /// Waits for the page with this heading, and checks all that holds for every page.
    pub async fn arrive(&self, status: u16, heading: &str) {
        self.wait_for(&format!("//h1[.='{heading}']")).await;
        self.learn_secrets().await;
        self.secrets.assert_not_in_url(&self.url().await);
        let navigation = "return performance.getEntriesByType('navigation')[0].responseStatus";
        assert_eq!(self.run(navigation).await, status, "{heading}");
        self.assert_quiet(heading, status).await;
    }

    /// The same, with pictures: it can be read with any sight and on any screen.
    pub async fn show(&self, name: &str, status: u16, heading: &str) {
        self.arrive(status, heading).await;

        for (suffix, width, scheme) in VIEWS {
            let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
            self.devtools("Emulation.setEmulatedMedia", json!({"features": features}))
                .await;
            self.resize(width).await;
            let page = format!("{}-{name}{suffix}", self.scenario);
            self.screenshot(&page).await;
            let content = self
                .run("return document.documentElement.scrollWidth")
                .await;
            assert!(
                content.as_u64().unwrap() <= u64::from(width),
                "{page} is {content} pixels wide"
            );

            self.assert_accessible(&page).await;
        }

        self.devtools("Emulation.clearDeviceMetricsOverride", json!({}))
            .await;
        self.assert_quiet(heading, status).await;
    }

    /// Waits until an element is there.
    pub async fn wait_for(&self, xpath: &str) -> Element {
        let appearing = async {
            loop {
                match self.client.find(Locator::XPath(xpath)).await {
                    Ok(element) => return element,
                    Err(error) if error.is_no_such_element() => {}
                    // A script has sent the browser to another page in the meantime.
                    Err(CmdError::NotW3C(said)) if said == "aborted by navigation" => {}
                    Err(error) => panic!("{xpath}: {error}"),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };

        if let Ok(element) = timeout(PATIENCE, appearing).await {
            return element;
        }

        panic!(
            "{xpath} does not appear at {}:\n{}",
            self.url().await,
            self.text("body").await
        );
    }

    async fn element(&self, css: &str) -> Element {
        self.client
            .find(Locator::Css(css))
            .await
            .unwrap_or_else(|error| panic!("{css}: {error}"))
    }

    pub async fn click(&self, css: &str) {
        self.element(css).await.click().await.unwrap();
    }

    pub async fn fill(&self, css: &str, text: &str) {
        let field = self.element(css).await;
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    pub async fn text(&self, css: &str) -> String {
        self.element(css).await.text().await.unwrap()
    }

    /// A key of the keyboard, to whatever has the focus.
    pub async fn press(&self, key: Key) {
        let value = key.into();
        let keys = KeyActions::new("keyboard".to_owned())
            .then(KeyAction::Down { value })
            .then(KeyAction::Up { value });
        self.client.perform_actions(keys).await.unwrap();
    }

    /// Text from the keyboard, to whatever has the focus.
    pub async fn write(&self, text: &str) {
        self.client
            .active_element()
            .await
            .unwrap()
            .send_keys(text)
            .await
            .unwrap();
    }

    /// What a script returns that runs in the page.
    pub async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// The same, until it returns a text; nothing while it returns none, or while another page
    /// comes.
    pub async fn until(&self, script: &str) -> String {
        let answering = async {
            loop {
                if let Ok(Value::String(text)) = self.client.execute(script, Vec::new()).await {
                    return text;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, answering)
            .await
            .unwrap_or_else(|_| panic!("a script has nothing to say: {script}"))
    }

    /// What stands in the address bar.
    pub async fn url(&self) -> String {
        self.client.current_url().await.unwrap().to_string()
    }

    /// The page's CSRF values and this browser's cookies.
    async fn learn_secrets(&self) {
        let values = self
            .run(
                "return Array.from(document.querySelectorAll('[name=csrf]'), (field) => \
                field.value)",
            )
            .await;
        values
            .as_array()
            .unwrap()
            .iter()
            .for_each(|value| self.secrets.add(value.as_str().unwrap()));

        // ClerkJS keeps a time and the name of a session there as well, which open nothing.
        let is_secret =
            |name: &str| !name.starts_with("__client_uat") && name != "clerk_active_context";

        for cookie in self
            .client
            .get_all_cookies()
            .await
            .unwrap()
            .iter()
            .filter(|cookie| is_secret(cookie.name()))
        {
            self.secrets.add(cookie.value());
        }
    }

    /// As high as the page is at this width, so that a screenshot shows all of it.
    async fn resize(&self, width: u32) {
        let mut metrics =
            json!({"width": width, "height": 640, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics.clone())
            .await;
        metrics["height"] = self
            .run("return document.documentElement.scrollHeight")
            .await;
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)
            .await;
    }

    async fn screenshot(&self, page: &str) {
        let picture = self.client.screenshot().await.unwrap();
        std::fs::write(target().join(format!("screenshots/{page}.png")), picture).unwrap();
    }

    async fn assert_accessible(&self, page: &str) {
        if self.run("return typeof axe").await == "undefined" {
            self.run(&self.axe).await;
        }

        let found = self.client.execute_async(AXE, Vec::new()).await.unwrap();
        let violations: Vec<_> = found[1]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert!(
            violations.is_empty(),
            "{page}:\n{}",
            violations.join("\n\n")
        );
        assert_ne!(found[0], 0, "axe has looked at nothing on {page}");
    }

    /// The console holds violations of the content security policy, errors of scripts, and assets
    /// that are missing.
    async fn assert_quiet(&self, page: &str, status: u16) {
        let log = Extension {
            path: "se/log",
            body: json!({"type": "browser"}),
        };
        let log = self.client.issue_cmd(log).await.unwrap();

        // Chromium reports a page as a failure that rightly has a failure's status.
        let expected = format!("the server responded with a status of {status} ");

        for entry in log.as_array().unwrap() {
            let message = entry["message"].as_str().unwrap();
            let is_own_status =
                status >= 400 && entry["source"] == "network" && message.contains(&expected);
            // Advice on forms, which nobody can follow for the ones that a provider's script makes.
            let is_advice = entry["level"] == "DEBUG" || entry["source"] == "recommendation";
            assert!(
                is_own_status || is_advice,
                "the console of {page} says {entry}"
            );
        }
    }

    async fn devtools(&self, command: &str, parameters: Value) {
        let body = json!({"cmd": command, "params": parameters});
        self.client
            .issue_cmd(Extension {
                path: "goog/cdp/execute",
                body,
            })
            .await
            .unwrap();
    }
}

/// Where the tools lie that tests/run installs, and where pictures go.
fn target() -> PathBuf {
    crate::root().join("target")
}
