//! The identity providers that people sign in with in the browser, and the wall between them and
//! the pages. A provider sees requests and a browser, and answers; it names no router, no page and
//! no cookie of the role that shows its part.
//!
//! [`Provider`] is the wall in the caller's terms. The caller implements two traits in return: the
//! [`Browser`] that asks, and the [`Sessions`] that end when the provider says so. `settings` makes
//! the provider that is chosen: `dev`, `clerk` or `oidc`. What they share stands beside them:
//! `fetch` makes calls, `cache` and `keys` keep what was fetched, `allow` decides who may sign in.

mod about;
mod allow;
mod asking;
mod browser;
mod cache;
mod clerk;
pub mod dev;
mod dev_key;
mod error;
mod fetch;
mod keys;
mod name;
mod oidc;
mod people;
mod person;
mod provider;
mod refusal;
mod sessions;
mod settings;
mod source;
#[cfg(test)]
mod testing;

pub use about::{ACCOUNT_PATH, About, CALLBACK_PATH, SIGN_IN_PATH};
pub use allow::{NotARule, Rule};
pub use asking::Asking;
pub use browser::{Browser, Trip};
pub use clerk::ClerkSettings;
pub use dev_key::{DevKey, Guess};
pub use error::Error;
pub use fetch::Failed;
pub use oidc::OidcSettings;
#[cfg(any(test, feature = "testing"))]
pub use oidc::testing as openid;
pub use people::People;
pub use person::{Freshness, SignIn};
pub use provider::{
    Arrival, Ask, BrowserRequest, Part, Path, PathKind, PlainRequest, Provider, ProviderContext,
    Reply, Response, Stop,
};
pub use refusal::Refusal;
pub use sessions::{Sessions, Whose};
pub use settings::{IdentityKind, Settings};
pub use source::{Nonce, Sources};
