//! Reports that a limit is reached: each time in a metric, and in the log at most once a second for
//! each limit, so that a flood does not flood the log. It does not know what the limits are for.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::counter::{Counters, count};

/// Minimum time between two lines about the same limit.
const PAUSE: Duration = Duration::from_secs(1);

/// How often each limit of the process was reached, by the name of its setting.
#[derive(Debug, Clone, Default)]
pub struct Reached {
    pub(crate) counters: Counters,
    said: Arc<Mutex<HashMap<&'static str, Said>>>,
}

/// The log state of one limit.
#[derive(Debug)]
struct Said {
    at: Instant,
    /// How often it was reached since the last line.
    untold: u64,
}

impl Reached {
    /// Records that a client was refused or closed because of this setting.
    pub fn tell(&self, setting: &'static str) {
        self.tell_of(setting, None);
    }

    /// The same, with the client's name.
    pub fn tell_of(&self, setting: &'static str, who: Option<&str>) {
        count(&self.counters, "setting", setting);
        if let Some(times) = self.due(setting, Instant::now()) {
            tracing::warn!(setting, times, who, "a limit was reached");
        }
    }

    /// Returns how often the limit was reached.
    pub fn times(&self, setting: &'static str) -> u64 {
        self.counters
            .get_or_create(&[("setting", setting.to_owned())])
            .get()
    }

    /// Returns how often the limit was reached since the last line, if another line is due.
    fn due(&self, setting: &'static str, now: Instant) -> Option<u64> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let said = match said.entry(setting) {
            Entry::Vacant(entry) => {
                entry.insert(Said { at: now, untold: 0 });
                return Some(1);
            }
            Entry::Occupied(entry) => entry.into_mut(),
        };

        said.untold += 1;
        if now < said.at + PAUSE {
            return None;
        }

        said.at = now;

        Some(std::mem::take(&mut said.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_writes_a_line_a_second_and_each_says_how_many_came_since_the_last() {
        let (reached, start) = (Reached::default(), Instant::now());
        let lines = (0..3_500).filter_map(|at| reached.due("A", start + Duration::from_millis(at)));
        assert_eq!(lines.collect::<Vec<_>>(), [1, 1000, 1000, 1000]);
        assert_eq!(
            reached.due("B", start),
            Some(1),
            "another limit has separate lines"
        );

        let later = start + Duration::from_mins(1);
        assert_eq!(
            reached.due("A", later),
            Some(500),
            "what was not told yet is not lost"
        );
    }
}
