//! The project's programs as processes, as a person starts them. What they have said is searched
//! for secrets when they are dropped.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex, Once};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use crate::Secrets;
use crate::stack::PATIENCE;

/// Names the folder of programs that are built already.
const PROGRAMS: &str = "VVS_PROGRAMS";

/// Returns where a program of this project is: in the folder that `VVS_PROGRAMS` names, or where
/// this one is. Builds the latter first, the whole workspace at once: a package alone would have
/// third-party crates compiled again, with other features.
pub fn binary(name: &str) -> PathBuf {
    static BUILT: Once = Once::new();
    if let Some(folder) = std::env::var_os(PROGRAMS) {
        return Path::new(&folder).join(name);
    }

    // target/debug/deps/<this test>, or target/release/<this tool>
    let own = std::env::current_exe().unwrap();
    let folder = own
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .unwrap();

    BUILT.call_once(|| {
        let mut cargo = std::process::Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--workspace", "--bins"]);
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        let built = cargo.current_dir(crate::root()).status().unwrap();
        assert!(built.success(), "the programs do not build");
    });

    folder.join(name)
}

/// A program of this project that runs with no settings of ours in its environment.
pub fn command(name: &str, arguments: &[&str]) -> Command {
    program(&binary(name), arguments)
}

/// The same, for a program that was built before.
pub fn program(path: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(path);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);

    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy();
        let is_a_setting = name.starts_with("VVS_") || name.starts_with("OTEL_");
        // The load tool starts programs in turn.
        if is_a_setting && name != PROGRAMS {
            command.env_remove(&variable);
        }
    }

    command
}

/// The same, for a program that believes it to be another time: `+2d` is the day after tomorrow.
/// Its timers run as ever.
pub fn command_at(offset: &str, name: &str, arguments: &[&str]) -> Command {
    at(offset, command(name, arguments))
}

/// By how many seconds the clock of such a program is ahead.
pub async fn shift_of(offset: &str) -> i64 {
    let told = at(offset, Command::new("date"))
        .arg("+%s")
        .output()
        .await
        .unwrap();
    let told: i64 = String::from_utf8(told.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    told - time::OffsetDateTime::now_utc().unix_timestamp()
}

/// Not by the command `faketime`, which would stand between us and the program.
fn at(offset: &str, mut command: Command) -> Command {
    let places = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let mut libraries = places.map(|place| place.path().join("faketime/libfaketimeMT.so.1"));
    let library = libraries.find(|library| library.exists());
    let library = library.unwrap_or_else(|| panic!("is Debian's package `faketime` installed?"));
    command
        .env("LD_PRELOAD", library)
        .env("FAKETIME", offset)
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    command
}

/// Runs a program to its end.
pub async fn run(name: &str, arguments: &[&str]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = timeout(PATIENCE, command(name, arguments).output())
        .await
        .unwrap()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// All that comes out of one end of a process, by line and as a whole.
#[derive(Debug)]
struct Stream {
    lines: UnboundedReceiver<String>,
    all: Arc<Mutex<String>>,
    reading: Option<JoinHandle<()>>,
}

impl Stream {
    /// Reads on a thread of its own, so that nothing is left unread when the test is over.
    fn read(pipe: OwnedFd) -> Self {
        let (sender, lines) = unbounded_channel();
        let all = Arc::<Mutex<String>>::default();
        let whole = all.clone();
        let reading = std::thread::spawn(move || collect(pipe, &sender, &whole));
        Self {
            lines,
            all,
            reading: Some(reading),
        }
    }

    /// `None` at its end.
    async fn line(&mut self) -> Option<String> {
        timeout(PATIENCE, self.lines.recv()).await.unwrap()
    }

    /// All of it, once the process is gone.
    fn finish(&mut self) -> String {
        self.reading.take().unwrap().join().unwrap();
        self.all.lock().unwrap().clone()
    }
}

fn collect(pipe: OwnedFd, lines: &UnboundedSender<String>, all: &Mutex<String>) {
    for line in BufReader::new(File::from(pipe)).split(b'\n') {
        let line = String::from_utf8_lossy(&line.unwrap()).into_owned();
        let mut all = all.lock().unwrap();
        all.push_str(&line);
        all.push('\n');
        // Nobody may be waiting for lines any more.
        lines.send(line).ok();
    }
}

/// A program under way. The secrets are those of its test: what it has said must not contain one.
#[derive(Debug)]
pub struct Running {
    child: Child,
    out: Stream,
    errors: Stream,
    secrets: Secrets,
}

impl Running {
    pub fn start(mut command: Command, secrets: &Secrets) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = Stream::read(child.stdout.take().unwrap().into_owned_fd().unwrap());
        let errors = Stream::read(child.stderr.take().unwrap().into_owned_fd().unwrap());

        Self {
            child,
            out,
            errors,
            secrets: secrets.clone(),
        }
    }

    /// The next line of standard output; `None` at its end.
    pub async fn line(&mut self) -> Option<String> {
        self.out.line().await
    }

    /// All lines up to one that begins so, with it.
    pub async fn lines_until(&mut self, beginning: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let Some(line) = self.line().await else {
                panic!("it ended after {lines:?}: {}", self.errors.finish());
            };
            lines.push(line);
            if lines.last().unwrap().starts_with(beginning) {
                return lines;
            }
        }
    }

    /// The first addresses that a role prints by name, whether it is ready or not.
    pub async fn addresses(&mut self, count: usize) -> HashMap<String, SocketAddr> {
        let mut addresses = HashMap::new();
        while addresses.len() < count {
            let line = self
                .line()
                .await
                .unwrap_or_else(|| panic!("it ended: {}", self.errors.finish()));
            let (name, address) = line.split_once(' ').unwrap();
            addresses.insert(name.to_owned(), address.parse().unwrap());
        }
        addresses
    }

    pub fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Whether it runs, or is stopped, and has not ended.
    pub fn is_there(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The addresses that a role prints by name, once it is ready.
    pub async fn ready(&mut self) -> HashMap<String, SocketAddr> {
        let lines = self.lines_until("ready").await;
        let address = |line: &String| {
            let (name, address) = line.split_once(' ')?;
            Some((name.to_owned(), address.parse().ok()?))
        };
        lines.iter().filter_map(address).collect()
    }

    /// The next line of standard error that contains this.
    pub async fn error_line(&mut self, containing: &str) -> String {
        let finding = async {
            loop {
                let line = self
                    .errors
                    .lines
                    .recv()
                    .await
                    .unwrap_or_else(|| panic!("it ended without {containing}"));
                if line.contains(containing) {
                    return line;
                }
            }
        };

        timeout(PATIENCE, finding)
            .await
            .unwrap_or_else(|_| panic!("it does not say {containing}"))
    }

    /// What it has written to standard error so far.
    pub fn log(&self) -> String {
        self.errors.all.lock().unwrap().clone()
    }

    /// Types a line, where standard input is piped.
    pub async fn type_line(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        input
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
        input.flush().await.unwrap();
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-s", name, &id])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    pub async fn exit_code(&mut self) -> i32 {
        self.exit_code_within(PATIENCE).await
    }

    /// The same, of one that may take its time.
    pub async fn exit_code_within(&mut self, patience: Duration) -> i32 {
        timeout(patience, self.child.wait())
            .await
            .unwrap()
            .unwrap()
            .code()
            .unwrap()
    }

    /// Ends it as `kill -9` does, and waits until it is gone.
    pub async fn kill(&mut self) {
        timeout(PATIENCE, self.child.kill()).await.unwrap().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails for one that has ended.
        self.child.start_kill().ok();
        if std::thread::panicking() {
            eprintln!("what a process said:\n{}", self.log());
            return;
        }
        for stream in [&mut self.out, &mut self.errors] {
            let said = stream.finish();
            self.secrets
                .assert_absent_but_shown(&said, "what a process said");
        }
    }
}
