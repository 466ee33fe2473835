//! The whole system, over real sockets: scenarios, one file a theme.

mod sign_in;
mod structure;
