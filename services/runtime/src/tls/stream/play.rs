//! A peer that manipulates the records of a TLS connection: it cuts, joins, forges, drops and
//! repeats them, changes keys, and goes away. Our stream is at one end, as server or client, and
//! rustls's own buffered connection at the other. Tests and the fuzzer use it, the latter by the
//! path of this file.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, Read as _, Write as _};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Side, TlsStream, accept, connect};

/// The maximum number of bytes that each side sends.
const MOST: usize = 100_000;
/// Turns within which everything that was sent must arrive on an undisturbed connection: for a
/// handshake, and for the rest.
const TURNS: usize = 20;

/// Configurations with TLS 1.2 and with 1.3. The key differs from run to run; findings do not
/// depend on it.
static CONFIGS: LazyLock<[(Arc<ServerConfig>, Arc<ClientConfig>); 2]> = LazyLock::new(|| {
    [&rustls::version::TLS12, &rustls::version::TLS13].map(|version| {
        let key = rcgen::KeyPair::generate().expect("a new key");
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).expect("a root");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a pair");
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        (Arc::new(server), Arc::new(client))
    })
});

/// Plays these bytes: the first selects our side and the version, the others are steps.
pub(crate) fn play(input: &[u8]) {
    let Some((choice, steps)) = input.split_first() else {
        return;
    };

    let (server, client) = CONFIGS[usize::from(choice & 1)].clone();
    let io = Io::default();

    if choice & 2 == 0 {
        let theirs = ClientConnection::new(client, name()).expect("a client");
        Play::new(accept(server, io.clone()), theirs.into(), io).run(steps);
    } else {
        let theirs = ServerConnection::new(server).expect("a server");
        Play::new(connect(client, name(), io.clone()), theirs.into(), io).run(steps);
    }
}

fn name() -> ServerName<'static> {
    "localhost".try_into().expect("a name")
}

/// Returns the byte that each side sends at a position, so that a byte is known by its position.
fn said(at: usize) -> u8 {
    u8::try_from(at % 251).expect("it fits")
}

/// The data in transit.
#[derive(Default)]
struct Wire {
    to_us: VecDeque<u8>,
    from_us: VecDeque<u8>,
    /// Nothing more arrives at our side.
    is_ended: bool,
    /// Bytes that we may write for now.
    room: usize,
}

/// Our end of the wire.
#[derive(Clone, Default)]
struct Io(Rc<RefCell<Wire>>);

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut wire = self.0.borrow_mut();
        if wire.to_us.is_empty() && !wire.is_ended {
            return Poll::Pending;
        }
        let length = wire.to_us.len().min(buf.remaining());
        buf.put_slice(&wire.to_us.drain(..length).collect::<Vec<_>>());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.0.borrow_mut();
        let length = bytes.len().min(wire.room);
        if length == 0 && !bytes.is_empty() {
            return Poll::Pending;
        }
        wire.room -= length;
        wire.from_us.extend(&bytes[..length]);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The result of a read.
#[derive(PartialEq)]
enum Heard {
    Nothing,
    Something,
    /// The end, or an error.
    Last,
}

/// Our stream in its current state.
enum Ours<F, C> {
    Shaking(Pin<Box<F>>),
    Open(TlsStream<Io, C>),
    Gone,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a separate fact, for either side"
)]
struct Play<F, C> {
    ours: Ours<F, C>,
    theirs: Connection,
    io: Io,
    /// Data that they have encrypted and that was not passed on yet.
    sealed: VecDeque<u8>,
    they_said: usize,
    they_closed: bool,
    they_failed: bool,
    we_heard: usize,
    we_said: usize,
    we_closed: bool,
    we_failed: bool,
    they_heard: usize,
    /// Whether data on its way to us was manipulated.
    is_disturbed: bool,
}

impl<F: Future<Output = io::Result<TlsStream<Io, C>>>, C: Side> Play<F, C> {
    fn new(shaking: F, theirs: Connection, io: Io) -> Self {
        Self {
            ours: Ours::Shaking(Box::pin(shaking)),
            theirs,
            io,
            sealed: VecDeque::new(),
            they_said: 0,
            they_closed: false,
            they_failed: false,
            we_heard: 0,
            we_said: 0,
            we_closed: false,
            we_failed: false,
            they_heard: 0,
            is_disturbed: false,
        }
    }

    fn run(mut self, steps: &[u8]) {
        self.io.0.borrow_mut().room = 1 << 20;
        let mut steps = steps.iter().copied();
        while let Some(step) = steps.next() {
            let amount = usize::from(steps.next().unwrap_or(1));
            self.step(step, amount, &mut steps);
        }
        self.settle();
    }

    fn step(&mut self, step: u8, amount: usize, more: &mut impl Iterator<Item = u8>) {
        // Built for debugging, rustls asserts that nothing it refuses comes behind its own close.
        let may_disturb = !(cfg!(debug_assertions) && self.we_closed);
        match step % 16 {
            0 => self.pass(amount),
            1 => self.pass(amount * 256),
            2 => self.they_hear(),
            3 => {
                self.read(amount + 1);
            }
            4 => {
                self.read(amount * 256 + 1);
            }
            5 => self.write(amount),
            6 => self.write(amount * 256),
            7 => self.they_say(amount),
            8 => self.they_say(amount * 256),
            // The other side asks for ours as well. TLS 1.2 has none, and nobody has before the
            // handshake is over.
            9 => {
                self.theirs.refresh_traffic_keys().ok();
            }
            10 => self.close_one(amount),
            11 => self.io.0.borrow_mut().room = amount,
            12 if may_disturb => self.flip(amount),
            13 if may_disturb => self.forge(amount, more),
            14 if may_disturb => self.lose_or_repeat(amount),
            12..15 => {}
            _ => self.end(amount),
        }
    }

    /// Passes some of their encrypted data to us.
    fn pass(&mut self, amount: usize) {
        self.seal();
        let length = amount.min(self.sealed.len());
        if !self.io.0.borrow().is_ended {
            self.io
                .0
                .borrow_mut()
                .to_us
                .extend(self.sealed.drain(..length));
        }
        self.shake();
    }

    fn seal(&mut self) {
        let mut records = Vec::new();
        while self.theirs.wants_write() {
            self.theirs.write_tls(&mut records).expect("memory");
        }
        self.sealed.extend(records);
    }

    fn they_hear(&mut self) {
        self.shake();
        let bytes: Vec<u8> = self.io.0.borrow_mut().from_us.drain(..).collect();
        let mut bytes = &bytes[..];
        while !bytes.is_empty() && !self.they_failed {
            self.theirs
                .read_tls(&mut bytes)
                .expect("what was heard was read");

            match self.theirs.process_new_packets() {
                Ok(state) => {
                    let mut heard = vec![0; state.plaintext_bytes_to_read()];
                    self.theirs
                        .reader()
                        .read_exact(&mut heard)
                        .expect("they are there");

                    for byte in heard {
                        assert_eq!(
                            byte,
                            said(self.they_heard),
                            "they heard what we did not say"
                        );
                        self.they_heard += 1;
                    }
                }
                Err(cause) => {
                    assert!(
                        self.we_failed || self.is_disturbed,
                        "they refuse what we said: {cause}"
                    );
                    self.they_failed = true;
                }
            }
        }

        assert!(
            self.they_heard <= self.we_said,
            "they heard more than we said"
        );
    }

    fn they_say(&mut self, amount: usize) {
        let amount = amount.min(MOST - self.they_said);
        if self.they_closed || self.they_failed {
            return;
        }

        let bytes: Vec<u8> = (self.they_said..self.they_said + amount)
            .map(said)
            .collect();
        self.theirs.set_buffer_limit(None);
        self.theirs
            .writer()
            .write_all(&bytes)
            .expect("without a limit");
        self.they_said += amount;
    }

    fn shake(&mut self) {
        let Ours::Shaking(shaking) = &mut self.ours else {
            return;
        };

        match shaking
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Pending => {}
            Poll::Ready(Ok(stream)) => self.ours = Ours::Open(stream),
            Poll::Ready(Err(cause)) => {
                assert!(self.is_disturbed, "we refuse their handshake: {cause}");
                self.we_failed = true;
                self.ours = Ours::Gone;
            }
        }
    }

    /// Reads up to this many bytes.
    fn read(&mut self, most: usize) -> Heard {
        self.shake();
        let ours = match &mut self.ours {
            Ours::Shaking(_) => return Heard::Nothing,
            Ours::Open(ours) => ours,
            Ours::Gone => return Heard::Last,
        };

        let mut space = vec![0; most];
        let mut space = ReadBuf::new(&mut space);

        match Pin::new(ours).poll_read(&mut Context::from_waker(Waker::noop()), &mut space) {
            Poll::Pending => Heard::Nothing,
            Poll::Ready(Ok(())) if space.filled().is_empty() => {
                assert!(self.they_closed, "the end came, and nobody has said so");
                assert_eq!(
                    self.we_heard, self.they_said,
                    "the end came before the rest"
                );
                Heard::Last
            }
            Poll::Ready(Ok(())) => {
                for byte in space.filled() {
                    assert_eq!(*byte, said(self.we_heard), "we heard what they did not say");
                    self.we_heard += 1;
                }
                assert!(
                    self.we_heard <= self.they_said,
                    "we heard more than they said"
                );
                Heard::Something
            }
            Poll::Ready(Err(cause)) => {
                assert!(self.is_disturbed, "we refuse what they said: {cause}");
                self.we_failed = true;
                Heard::Last
            }
        }
    }

    fn write(&mut self, amount: usize) {
        self.shake();
        let amount = amount.min(MOST - self.we_said);
        let Ours::Open(ours) = &mut self.ours else {
            return;
        };

        let bytes: Vec<u8> = (self.we_said..self.we_said + amount).map(said).collect();

        match Pin::new(ours).poll_write(&mut Context::from_waker(Waker::noop()), &bytes) {
            Poll::Pending => {}
            Poll::Ready(Ok(length)) => self.we_said += length,
            Poll::Ready(Err(cause)) => {
                assert!(
                    self.we_closed || self.they_closed || self.is_disturbed,
                    "we cannot write: {cause}"
                );
                self.we_failed |= self.is_disturbed;
            }
        }
    }

    fn close_one(&mut self, amount: usize) {
        if amount.is_multiple_of(2) {
            if !self.theirs.is_handshaking() {
                self.they_closed = true;
                self.theirs.send_close_notify();
            }
            return;
        }

        if cfg!(debug_assertions) && self.is_disturbed {
            return;
        }

        if let Ours::Open(ours) = &mut self.ours {
            self.we_closed = true;
            let closed = Pin::new(ours).poll_shutdown(&mut Context::from_waker(Waker::noop()));
            if let Poll::Ready(Err(cause)) = closed {
                assert!(self.is_disturbed, "we cannot close: {cause}");
            }
        }
    }

    fn flip(&mut self, amount: usize) {
        self.seal();
        let length = self.sealed.len();
        if length > 0 {
            self.is_disturbed = true;
            self.sealed[amount * 31 % length] ^= 1 << (amount % 8);
        }
    }

    /// Inserts a forged record before the data that follows.
    fn forge(&mut self, amount: usize, more: &mut impl Iterator<Item = u8>) {
        let body: Vec<u8> = more.take(amount / 5).collect();
        let kind = 20 + u8::try_from(amount % 5).expect("it fits");
        let length = u8::try_from(body.len()).expect("it fits");
        for byte in [kind, 3, 3, 0, length].into_iter().chain(body).rev() {
            self.sealed.push_front(byte);
        }
        self.is_disturbed = true;
    }

    fn lose_or_repeat(&mut self, amount: usize) {
        self.seal();
        let some: Vec<u8> = self.sealed.iter().take(amount / 2 * 16).copied().collect();
        if some.is_empty() {
            return;
        }

        self.is_disturbed = true;

        if amount.is_multiple_of(2) {
            self.sealed.drain(..some.len());
        } else {
            some.into_iter()
                .rev()
                .for_each(|byte| self.sealed.push_front(byte));
        }
    }

    /// Ends the connection to us, a little later in the stream.
    fn end(&mut self, amount: usize) {
        self.pass(amount);
        self.is_disturbed = true;
        self.io.0.borrow_mut().is_ended = true;
    }

    /// Undisturbed, everything that was sent arrives. After a cut, nobody waits.
    fn settle(&mut self) {
        for _ in 0..TURNS {
            self.io.0.borrow_mut().room = 1 << 20;
            self.pass(usize::MAX);
            let mut heard = self.read(1 << 16);
            while heard == Heard::Something {
                heard = self.read(1 << 16);
            }

            if let Ours::Open(ours) = &mut self.ours
                && let Poll::Ready(Err(_)) =
                    Pin::new(ours).poll_flush(&mut Context::from_waker(Waker::noop()))
            {
                assert!(self.is_disturbed, "we cannot flush");
            }

            self.they_hear();

            if self.io.0.borrow().is_ended {
                assert!(heard == Heard::Last, "we wait for what cannot come");
            }
        }

        if self.is_disturbed {
            return;
        }

        assert!(
            matches!(self.ours, Ours::Open(_)),
            "the handshake has no end"
        );
        assert_eq!(
            (self.we_heard, self.they_heard),
            (self.they_said, self.we_said),
            "some did not arrive"
        );
    }
}
