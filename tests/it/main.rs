//! The whole system, over real sockets: scenarios, one file a theme.

mod command;
mod faults;
mod peers;
mod polyglot;
mod sign_in;
mod socket;
mod structure;
mod trace;
