//! The reference editor as a library: it signs in through the browser and keeps the credential. It knows the server by
//! its WebSocket alone, and speaks as a bare editor, one without a device key.
//!
//! ```no_run
//! # async fn example() -> Result<(), vvs_client::Error> {
//! use std::io;
//!
//! let options = vvs_client::Options {
//!     server: "http://127.0.0.1:8080".parse()?,
//!     ca_file: None,
//!     state_dir: ".vvs/editor".into(),
//! };
//! let mut terminal = vvs_client::Terminal::new(io::stderr(), false, true);
//! let never = std::future::pending();
//! let outcome = vvs_client::login(&options, never, |event| terminal.show(&event)).await?;
//! # Ok(()) }
//! ```

pub mod browser;
mod connection;
mod credential;
mod error;
mod login;
mod server;
mod terminal;
mod text;
mod tls;

pub use credential::Credential;
pub use error::Error;
pub use login::{Event, Options, Outcome, login};
pub use server::{Link, Server};
pub use terminal::Terminal;
