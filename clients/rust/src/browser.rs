//! Opens a link in the person's browser. This may fail, for example on a machine without a desktop,
//! so the link is always printed as well.

use std::process::{Command, Stdio};
use std::{env, fs, thread};

use crate::server::Link;

/// No program here is a shell, so `&` in a link stays a character.
const WINDOWS: &[&str] = &["rundll32.exe", "url.dll,FileProtocolHandler"];
/// For a WSL that does not import the `PATH` of Windows.
const WINDOWS_FROM_WSL: &[&str] = &[
    "/mnt/c/Windows/System32/rundll32.exe",
    "url.dll,FileProtocolHandler",
];

/// Starts the browser and returns immediately; false when there is nothing to start.
pub fn open(link: &Link) -> bool {
    launchers(is_wsl())
        .iter()
        .any(|launcher| start(launcher, link))
}

fn launchers(wsl: bool) -> &'static [&'static [&'static str]] {
    if cfg!(windows) {
        &[WINDOWS]
    } else if cfg!(target_os = "macos") {
        &[&["open"]]
    } else if wsl {
        &[&["wslview"], WINDOWS, WINDOWS_FROM_WSL, &["xdg-open"]]
    } else {
        &[&["xdg-open"]]
    }
}

/// Returns whether this Linux runs inside Windows, where the browser is.
fn is_wsl() -> bool {
    env::var_os("WSL_DISTRO_NAME").is_some()
        || fs::read_to_string("/proc/version")
            .is_ok_and(|version| version.to_lowercase().contains("microsoft"))
}

fn start(launcher: &[&str], link: &Link) -> bool {
    let Some((program, arguments)) = launcher.split_first() else {
        return false;
    };

    let mut command = Command::new(program);
    command.args(arguments).arg(link.as_str());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());

    // Ctrl-C in our terminal must not reach the browser.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let Ok(mut child) = command.spawn() else {
        return false;
    };

    // Some launchers stay as long as the browser; somebody must wait for them, or they stay as
    // zombies.
    thread::spawn(move || child.wait());

    true
}

#[cfg(test)]
mod tests {
    use super::{launchers, start};
    use crate::server::Server;

    #[test]
    fn a_missing_launcher_is_no_error() {
        let server: Server = "http://127.0.0.1:8080".parse().unwrap();
        let link = server.link("http://127.0.0.1:8080/login").unwrap();
        assert!(!start(&["/nonexistent/launcher"], &link));
        assert!(start(&["true"], &link));
    }

    #[test]
    fn no_launcher_is_a_shell() {
        for launcher in launchers(false).iter().chain(launchers(true)) {
            let program = launcher[0].rsplit('/').next().unwrap();
            assert!(
                ["wslview", "rundll32.exe", "xdg-open", "open"].contains(&program),
                "{program}"
            );
        }
    }
}
