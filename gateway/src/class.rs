//! The classes of requests that the limits count separately.

use http::Method;

/// The path on which a page waits for news of its login.
const POLL: &str = "/login/status";
/// The paths on which identity providers report sign-outs.
const HOOKS: [&str; 2] = ["/webhooks/clerk", "/api/auth/oidc/logout"];

/// A separate pool of places: no kind of request can take the places of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Connections,
    /// Requests whose body has not completely arrived.
    Bodies,
    /// Complete requests without an answer.
    Requests,
    /// Complete requests that wait for news of a login.
    Polls,
    /// Complete requests of identity providers.
    Hooks,
}

impl Class {
    /// Returns the class of a complete request.
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
