//! The reference editor as a library: it signs in through the browser, keeps the credential, and
//! holds a connection with it. It knows the server by its WebSocket alone.
//!
//! ```no_run
//! # async fn example() -> Result<(), vvs_client::Error> {
//! use vvs_client::{Keep, Options, Outcome, Profile};
//!
//! let profile = Profile::new(".vvs/editor", "default", Keep::Anywhere)?;
//! let options = Options::new("http://127.0.0.1:8080".parse()?, profile.clone());
//! // What the person types, or `Input::Cancel`, goes into `person`.
//! let (person, inputs) = tokio::sync::mpsc::channel(1);
//! let mut terminal = vvs_client::Terminal::new(std::io::stderr(), false, true).asking(person);
//! let outcome = vvs_client::login(&options, inputs, |event| terminal.show(&event)).await?;
//! if let Outcome::SignedIn { .. } = outcome {
//!     let (never, show) = (std::future::pending(), |change| println!("{change:?}"));
//!     let _end = vvs_client::connect(&profile, None, never, show).await?;
//! }
//! # Ok(()) }
//! ```

pub mod browser;
mod chance;
mod connection;
mod credential;
mod error;
mod hand_back;
mod key;
mod line;
mod login;
mod profile;
#[cfg(test)]
mod script;
mod server;
mod session;
mod terminal;
mod text;
mod tls;
mod vault;

pub use credential::Credential;
pub use error::Error;
pub use key::{DeviceKey, Use};
pub use login::{Event, Input, Options, Outcome, login};
pub use profile::{DEFAULT, Keep, Profile, Record, StoredIn};
pub use server::{BadServer, Link, Server};
pub use session::{Change, End, SignedOut, Status, connect, logout, status};
pub use terminal::Terminal;
