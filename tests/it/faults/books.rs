//! What everybody did and was told, and whether that fits together.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

/// Of one run.
#[derive(Debug)]
pub(super) struct Books {
    start: Instant,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    counts: BTreeMap<&'static str, u64>,
    /// What each editor is about, for the one that does not come to an end.
    stages: BTreeMap<String, String>,
    /// Sessions that an editor has in the end.
    held: BTreeSet<String>,
    /// Sessions of which nobody can say: their login was told to have failed when the editor had
    /// its token already.
    doubtful: BTreeSet<String>,
    wrongs: Vec<String>,
}

/// Past the capture of the test harness: a run takes long, and whoever waits wants to see it.
pub(super) fn say(line: &str) {
    std::io::Write::write_all(&mut std::io::stderr(), format!("{line}\n").as_bytes()).unwrap();
}

impl Books {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            entries: Mutex::default(),
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap()
    }

    /// Since the beginning of the run, in seconds.
    pub(super) fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    pub(super) fn tell(&self, what: &str) {
        say(&format!("  {:6.2} {what}", self.now()));
    }

    pub(super) fn count(&self, what: &'static str) {
        *self.entries().counts.entry(what).or_default() += 1;
    }

    pub(super) fn counted(&self, what: &str) -> u64 {
        self.entries().counts.get(what).copied().unwrap_or(0)
    }

    pub(super) fn stage(&self, who: &str, stage: impl Into<String>) {
        let stage = format!("{:.1} {}", self.now(), stage.into());
        self.entries().stages.insert(who.to_owned(), stage);
    }

    pub(super) fn ended(&self, who: &str) {
        self.entries().stages.remove(who);
    }

    pub(super) fn hold(&self, session_id: &str) {
        self.entries().held.insert(session_id.to_owned());
    }

    pub(super) fn doubt(&self, session_id: &str) {
        self.entries().doubtful.insert(session_id.to_owned());
    }

    /// Something that must not be.
    pub(super) fn wrong(&self, what: &str) {
        self.tell(&format!("WRONG: {what}"));
        self.entries()
            .wrongs
            .push(format!("at {:.2} s: {what}", self.now()));
    }

    /// Each session that is active is one that an editor has, and the other way round.
    pub(super) fn compare(&self, active: &BTreeSet<String>) {
        let (held, doubtful) = {
            let entries = self.entries();
            (entries.held.clone(), entries.doubtful.clone())
        };
        for session_id in held.difference(active) {
            self.wrong(&format!("{session_id} is an editor's, and is not active"));
        }

        for session_id in active
            .difference(&held)
            .filter(|session_id| !doubtful.contains(*session_id))
        {
            self.wrong(&format!("{session_id} is active, and no editor has it"));
        }
    }

    pub(super) fn counts(&self) -> String {
        let mut line = String::new();
        for (what, count) in &self.entries().counts {
            write!(
                line,
                "{}{count} {what}",
                if line.is_empty() { "" } else { ", " }
            )
            .unwrap();
        }
        line
    }

    /// Editors and persons that have not come to an end, and what they are about.
    pub(super) fn unfinished(&self) -> Vec<String> {
        self.entries()
            .stages
            .iter()
            .map(|(who, stage)| format!("{who}: {stage}"))
            .collect()
    }

    pub(super) fn wrongs(&self) -> Vec<String> {
        self.entries().wrongs.clone()
    }
}
