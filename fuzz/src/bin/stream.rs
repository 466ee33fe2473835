//! A peer that plays with the records of a TLS connection.

#![no_main]

use libfuzzer_sys::fuzz_target;

use self::stream::{Side, TlsStream, accept, connect};

// By their paths: what else their crate needs, such as gRPC, has nothing to do with it.
#[path = "../../../services/runtime/src/tls/stream/play.rs"]
mod play;
// Formatted and tested where it is: its own modules are not found from here.
#[rustfmt::skip]
#[expect(dead_code, reason = "the play needs less than the servers do")]
#[path = "../../../services/runtime/src/tls/stream.rs"]
mod stream;

fuzz_target!(|input: &[u8]| play::play(input));
