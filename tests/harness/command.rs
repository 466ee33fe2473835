//! The project's programs as processes, as a person starts them.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

use crate::stack::PATIENCE;

/// Builds a program if it is not up to date, and says where it is.
pub fn binary(package: &str, name: &str) -> PathBuf {
    let built = std::process::Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", package, "--bin", name])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap())
        .status()
        .unwrap();
    assert!(built.success(), "{name} does not build");
    // target/debug/deps/<this test>
    std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join(name)
}

/// A program that runs with no settings of ours in its environment.
pub fn command(package: &str, name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary(package, name));
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("VVS_") || variable.to_string_lossy().starts_with("OTEL_") {
            command.env_remove(variable);
        }
    }
    command
}

/// Runs a program to its end.
pub async fn run(package: &str, name: &str, arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        timeout(PATIENCE, command(package, name, arguments).output()).await.unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// A program under way, and what it says on standard output.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    errors: Lines<BufReader<ChildStderr>>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let errors = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines, errors }
    }

    /// The next line of standard output; `None` at its end.
    pub async fn line(&mut self) -> Option<String> {
        timeout(PATIENCE, self.lines.next_line()).await.unwrap().unwrap()
    }

    /// All lines up to one that begins so, with it.
    pub async fn lines_until(&mut self, beginning: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let Some(line) = self.line().await else {
                panic!("it ended after {lines:?}: {}", self.rest_of_errors().await);
            };
            lines.push(line);
            if lines.last().unwrap().starts_with(beginning) {
                return lines;
            }
        }
    }

    /// The next line of standard error that contains this.
    pub async fn error_line(&mut self, containing: &str) -> String {
        let finding = async {
            loop {
                let line = self.errors.next_line().await.unwrap().unwrap();
                if line.contains(containing) {
                    return line;
                }
            }
        };
        timeout(PATIENCE, finding).await.unwrap()
    }

    async fn rest_of_errors(&mut self) -> String {
        let mut text = String::new();
        while let Some(line) = self.errors.next_line().await.unwrap() {
            text.push_str(&(line + "\n"));
        }
        text
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        let sent = std::process::Command::new("kill").args(["-s", name, &id]).status().unwrap();
        assert!(sent.success());
    }

    pub async fn exit_code(&mut self) -> i32 {
        timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap().code().unwrap()
    }
}
