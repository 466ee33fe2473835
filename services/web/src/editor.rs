//! An editor's description of itself, as far as a person is shown it.

/// The editor's description of itself; a bare one sends none.
#[derive(Clone)]
pub(crate) struct Editor {
    pub(crate) app: Option<App>,
    pub(crate) device: Option<Device>,
}

#[derive(Clone)]
pub(crate) struct App {
    pub(crate) name: String,
    /// May be empty.
    pub(crate) version: String,
}

#[derive(Clone, Default)]
pub(crate) struct Device {
    /// May be empty, when there is an `os`.
    pub(crate) name: String,
    /// May be empty.
    pub(crate) os: String,
}
