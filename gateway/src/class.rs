//! What is counted apart by the limits.

use http::Method;

/// Where a page waits for news of its login.
const POLL: &str = "/login/status";
/// Where identity providers say that somebody has signed out.
const HOOKS: [&str; 2] = ["/webhooks/clerk", "/api/auth/oidc/logout"];

/// What is counted apart: none of them can take what another one needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Connections,
    /// Requests of which the body has not come whole.
    Bodies,
    /// Requests that are whole, and have no answer yet.
    Requests,
    /// Of them, those that wait for news of a login.
    Polls,
    /// Of them, what identity providers send.
    Hooks,
}

impl Class {
    /// The class that a request counts in once it is whole.
    pub(crate) fn of(method: &Method, path: &str) -> Self {
        match path {
            POLL if *method != Method::POST => Self::Polls,
            _ if HOOKS.contains(&path) && *method == Method::POST => Self::Hooks,
            _ => Self::Requests,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_belongs_to_the_pool_of_its_path_spelled_exactly() {
        for (method, path, pool) in [
            (Method::GET, "/login/status", Class::Polls),
            (Method::HEAD, "/login/status", Class::Polls),
            (Method::POST, "/login/status", Class::Requests),
            (Method::GET, "/login/status/", Class::Requests),
            (Method::GET, "/login/statu%73", Class::Requests),
            (Method::POST, "/webhooks/clerk", Class::Hooks),
            (Method::POST, "/api/auth/oidc/logout", Class::Hooks),
            (Method::GET, "/api/auth/oidc/logout", Class::Requests),
            (Method::POST, "/Webhooks/clerk", Class::Requests),
            (Method::GET, "/ws", Class::Requests),
        ] {
            assert_eq!(Class::of(&method, path), pool, "{method} {path}");
        }
    }
}
