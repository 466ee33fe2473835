//! Shows a login to a person at a terminal, or in a log. Decides nothing.

use std::io::{BufRead as _, Write, stdin};
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;
use vvs_proto::frame::Secret;

use crate::browser;
use crate::login::{Event, Input};

/// Where a login is shown.
#[derive(Debug)]
pub struct Terminal<W> {
    out: W,
    live: bool,
    browser: bool,
    /// A line with the time left is shown, and the cursor is on it.
    counting: bool,
    minutes: u64,
    /// Where to send the lines of standard input, once a code is asked for.
    asking: Option<mpsc::Sender<Input>>,
}

impl<W: Write> Terminal<W> {
    /// `live`: `out` is a terminal and can overwrite a line. `browser`: open the link as well.
    pub fn new(out: W, live: bool, browser: bool) -> Self {
        Self {
            out,
            live,
            browser,
            counting: false,
            minutes: 0,
            asking: None,
        }
    }

    /// Reads the code from standard input, and nothing before it is asked for: the rest belongs to
    /// other programs.
    #[must_use]
    pub fn asking(self, person: mpsc::Sender<Input>) -> Self {
        Self {
            asking: Some(person),
            ..self
        }
    }

    pub fn show(&mut self, event: &Event) {
        match event {
            Event::Left(left) => self.count(*left),
            Event::Notice(message) => self.line(message),
            Event::Pending {
                link,
                attempts_left,
            } => {
                let by_link = if *link {
                    "If the browser is on this machine, press its button. Otherwise type"
                } else {
                    "Type"
                };
                self.line(&format!(
                    "\nApproved. {by_link} the code that the page shows, and Enter \
                     ({attempts_left} tries). Give it to nobody.",
                ));
                self.read_codes();
            }
            Event::WrongCode { attempts_left } => {
                self.line(&format!("That code is wrong. Tries left: {attempts_left}."));
            }
            Event::Stranger => self.line(
                "\nWarning: a browser brought a code for a sign-in that was not started here, and \
                 it was not used. If somebody sent you the link, they may be trying to get into \
                 your account. Approve nothing more.",
            ),
            Event::Resumed => self.line("Connected again. The link and the code are still good."),
            Event::Lost { retry_after } => {
                let seconds = retry_after.as_secs_f32();
                self.line(&format!(
                    "The connection is gone. Connecting again in {seconds:.1} s."
                ));
            }
            Event::Link {
                login_url,
                link,
                user_code,
                left,
                changed,
            } => {
                if *changed {
                    self.line("\nThe link has changed; the earlier one no longer works.");
                }

                self.minutes = left.as_secs().div_ceil(60);
                let left = clock(*left);
                self.line(&format!(
                    "\nTo sign in, open this link in a browser:\n\n    {login_url}\n\n\
                     Approve only if the page shows this code:\n\n    {user_code}\n\n\
                     The link works for {left}. Ctrl-C cancels.\n"
                ));

                match link {
                    None => self.line(
                        "Warning: this link does not lead to the server that you named, so it was \
                         not opened. Do not follow it unless you know why.",
                    ),
                    Some(link) if self.browser && !browser::open(link) => {
                        self.line(
                            "No browser could be started here. Open the link yourself, on \
                            any machine.",
                        );
                    }
                    Some(_) => {}
                }
            }
        }
    }

    /// Leaves the cursor on an empty line, for further output.
    pub fn end(&mut self) {
        if self.counting {
            self.counting = false;
            self.put("\r\u{1b}[K");
        }
    }

    fn count(&mut self, left: Duration) {
        let minutes = left.as_secs().div_ceil(60);
        if self.live {
            self.put(&format!(
                "\r\u{1b}[KWaiting for your approval in the browser, {} left ",
                clock(left)
            ));
            self.counting = true;
        } else if minutes < self.minutes {
            self.line(&format!(
                "Waiting for your approval in the browser, {minutes} min left"
            ));
        }

        self.minutes = minutes;
    }

    fn read_codes(&mut self) {
        let Some(person) = self.asking.take() else {
            return;
        };

        // A read of standard input cannot be called off, so that no runtime should wait for it.
        thread::spawn(move || {
            for line in stdin().lock().lines() {
                let Ok(line) = line else { return };
                let sent = line.trim().is_empty()
                    || person.blocking_send(Input::Code(Secret::new(line))).is_ok();
                if !sent {
                    return;
                }
            }
        });
    }

    fn line(&mut self, text: &str) {
        self.end();
        self.put(&format!("{text}\n"));
    }

    fn put(&mut self, text: &str) {
        // The login goes on in the browser, whether or not somebody still reads this.
        self.out
            .write_all(text.as_bytes())
            .and_then(|()| self.out.flush())
            .ok();
    }
}

fn clock(left: Duration) -> String {
    format!("{}:{:02}", left.as_secs() / 60, left.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(live: bool, events: &[Event]) -> String {
        let mut out = Vec::new();
        let mut terminal = Terminal::new(&mut out, live, false);
        for event in events {
            terminal.show(event);
        }
        terminal.end();
        String::from_utf8(out).unwrap()
    }

    fn link(own: bool, changed: bool) -> Event {
        let login_url = "http://127.0.0.1:8080/login?connection_id=1".to_owned();
        let server: crate::Server = "http://127.0.0.1:8080".parse().unwrap();
        let link = server.link(&login_url).filter(|_| own);
        Event::Link {
            login_url,
            link,
            user_code: "BCDF-GHJK".to_owned(),
            left: Duration::from_secs(90),
            changed,
        }
    }

    #[test]
    fn link_and_code_and_time_are_always_printed() {
        for (own, changed) in [(true, false), (true, true), (false, false)] {
            let text = shown(false, &[link(own, changed)]);
            assert!(
                text.contains("\n    http://127.0.0.1:8080/login?connection_id=1\n"),
                "{text}"
            );
            assert!(
                text.contains("\n    BCDF-GHJK\n") && text.contains("1:30"),
                "{text}"
            );
            assert_eq!(text.contains("Warning"), !own, "{text}");
            assert_eq!(text.contains("has changed"), changed, "{text}");
        }
    }

    #[test]
    fn a_log_gets_a_line_a_minute_and_no_control_characters() {
        let lefts = (0..=90).rev().map(|s| Event::Left(Duration::from_secs(s)));
        let text = shown(
            false,
            &[link(true, false)]
                .into_iter()
                .chain(lefts)
                .collect::<Vec<_>>(),
        );
        assert_eq!(text.matches("min left").count(), 2, "{text}");
        assert!(!text.contains(['\r', '\u{1b}']), "{text}");
    }

    #[test]
    fn a_terminal_gets_one_live_line_that_is_gone_before_the_next() {
        let events = [
            Event::Left(Duration::from_secs(61)),
            Event::Left(Duration::from_mins(1)),
            Event::Notice("hm".into()),
        ];
        let waiting = "\r\u{1b}[KWaiting for your approval in the browser";
        let expected = format!("{waiting}, 1:01 left {waiting}, 1:00 left \r\u{1b}[Khm\n");
        assert_eq!(shown(true, &events), expected);
    }

    #[test]
    fn a_code_is_asked_for_with_the_tries_left_and_a_strangers_link_is_a_warning() {
        let pending = |link| Event::Pending {
            link,
            attempts_left: 5,
        };
        let text = shown(
            false,
            &[pending(true), Event::WrongCode { attempts_left: 4 }],
        );
        assert!(
            text.contains("press its button")
                && text.contains("(5 tries)")
                && text.contains("Tries left: 4"),
            "{text}"
        );
        assert!(!shown(false, &[pending(false)]).contains("button"));
        assert!(shown(false, &[Event::Stranger]).contains("Warning"));
    }
}
