//! Scratch: the browser suite alone; not to be committed.
#[path = "../it/browser.rs"]
mod browser;
