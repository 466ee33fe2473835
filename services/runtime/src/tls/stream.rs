//! A TLS connection that holds no buffer while it is idle, over rustls's unbuffered interface. The
//! buffered interface keeps 4 KiB for reading for as long as a connection lives, which is a third
//! of the cost of an idle editor behind TLS.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The maximum number of bytes in one record (RFC 8446, section 5.1).
const RECORD: usize = 16 * 1024;
/// More than the overhead of a record (22 bytes with TLS 1.3, 29 with 1.2), and a key update before
/// it.
const AROUND: usize = 128;
/// Bytes that are read in one call, through a buffer on the stack.
const READ: usize = 16 * 1024;
/// Bytes of records that carry an unfinished handshake message. rustls limits the message, but not
/// the records, which may each hold one byte of it and padding. Its buffered interface has the same
/// limit.
const UNFINISHED: usize = 64 * 1024;

/// One of the two sides, for each of which rustls has a type.
pub trait Side: Unpin {
    type Data;

    fn process<'c, 'i>(&'c mut self, records: &'i mut [u8])
    -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn common(&self) -> &CommonState;
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        records: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(records)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

/// A connection whose handshake is over.
pub struct TlsStream<S, C> {
    io: S,
    connection: C,
    /// Records as they arrived: the last may be incomplete, or part of an incomplete handshake
    /// message.
    received: BytesMut,
    /// Decrypted data that was not read yet.
    opened: BytesMut,
    /// Records that the kernel had no room for yet.
    sealed: BytesMut,
    /// The other side has said that nothing follows (`close_notify`, RFC 8446, section 6.1).
    is_over: bool,
    /// This side has said so.
    has_closed: bool,
    /// The connection must not be used again: rustls panics when it would have to refuse twice.
    has_failed: bool,
}

/// An accepted connection.
pub type Accepted<S> = TlsStream<S, UnbufferedServerConnection>;
/// A dialled connection.
pub type Dialled<S> = TlsStream<S, UnbufferedClientConnection>;

impl<S, C> fmt::Debug for TlsStream<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").finish_non_exhaustive()
    }
}

/// Performs the handshake with a client.
///
/// # Errors
///
/// `InvalidData` when the other side does not speak TLS or is not trusted, `UnexpectedEof` when it
/// goes away.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    config: Arc<ServerConfig>,
    io: S,
) -> io::Result<Accepted<S>> {
    let connection = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
    TlsStream::new(io, connection).handshake().await
}

/// Performs the handshake with the server that `io` is connected to. Errors are those of
/// [`accept`].
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    io: S,
) -> io::Result<Dialled<S>> {
    let connection = UnbufferedClientConnection::new(config, name).map_err(io::Error::other)?;
    TlsStream::new(io, connection).handshake().await
}

/// The data to encrypt as soon as the connection can.
#[derive(Clone, Copy)]
enum Seal<'a> {
    Nothing,
    Bytes(&'a [u8]),
    Close,
}

/// The result of one turn.
enum Turn {
    /// There was progress, and there may be more.
    Again,
    /// There is no progress until more bytes arrive.
    Waits,
    /// The data is encrypted.
    Sealed,
}

impl<S: AsyncRead + AsyncWrite + Unpin, C: Side> TlsStream<S, C> {
    fn new(io: S, connection: C) -> Self {
        let (received, opened, sealed) = Default::default();
        Self {
            io,
            connection,
            received,
            opened,
            sealed,
            is_over: false,
            has_closed: false,
            has_failed: false,
        }
    }

    /// Returns the certificate that the other side has presented; it was checked.
    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        self.connection.common().peer_certificates()?.first()
    }

    async fn handshake(mut self) -> io::Result<Self> {
        poll_fn(|cx| self.poll_handshake(cx)).await?;
        Ok(self)
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Turn::Again = self.turn(cx, Seal::Nothing, &mut nowhere())? {
                continue;
            }
            ready!(self.poll_send(cx))?;
            if !self.connection.common().is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_receive(cx))?;
        }
    }

    /// Makes the connection take one step. An error is its last.
    fn turn(
        &mut self,
        cx: &mut Context<'_>,
        seal: Seal<'_>,
        into: &mut ReadBuf<'_>,
    ) -> io::Result<Turn> {
        if self.has_failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }

        let UnbufferedStatus { mut discard, state } = self.connection.process(&mut self.received);
        let turn = match state {
            Ok(ConnectionState::ReadTraffic(mut records)) => {
                while let Some(record) = records.next_record() {
                    let record = match record {
                        Ok(record) => record,
                        Err(cause) => return Err(self.fail(cx, cause)),
                    };

                    discard += record.discard;
                    let fits = if self.opened.is_empty() {
                        record.payload.len().min(into.remaining())
                    } else {
                        0
                    };

                    into.put_slice(&record.payload[..fits]);
                    self.opened.extend_from_slice(&record.payload[fits..]);
                }

                Turn::Again
            }
            Ok(ConnectionState::EncodeTlsData(message)) => {
                encode(message, &mut self.sealed)?;
                Turn::Again
            }
            // Whatever is sealed leaves before anything is waited for.
            Ok(ConnectionState::TransmitTlsData(sealed)) => {
                sealed.done();
                Turn::Again
            }
            Ok(ConnectionState::PeerClosed) => {
                self.is_over = true;
                Turn::Again
            }
            Ok(ConnectionState::WriteTraffic(mut traffic)) => match seal {
                Seal::Nothing => Turn::Waits,
                Seal::Bytes(bytes) => {
                    append(&mut self.sealed, bytes.len() + AROUND, |room| {
                        traffic.encrypt(bytes, room)
                    })?;
                    Turn::Sealed
                }
                Seal::Close => {
                    append(&mut self.sealed, AROUND, |room| {
                        traffic.queue_close_notify(room)
                    })?;
                    Turn::Sealed
                }
            },
            Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => Turn::Waits,
            Ok(_) => return Err(invalid("early data, which we never ask for")),
            Err(cause) => return Err(self.fail(cx, cause)),
        };

        self.received.advance(discard);
        give_back(&mut self.received);

        Ok(turn)
    }

    /// Ends the connection permanently, and tells the other side why if there is room.
    fn fail(&mut self, cx: &mut Context<'_>, cause: rustls::Error) -> io::Error {
        self.has_failed = true;
        while self.connection.common().wants_write()
            && let Ok(ConnectionState::EncodeTlsData(alert)) =
                self.connection.process(&mut []).state
        {
            if let Err(cause) = encode(alert, &mut self.sealed) {
                return cause;
            }
        }
        let _too_late_for_its_own_errors = self.poll_send(cx);
        invalid(cause)
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.received.len() > UNFINISHED {
            return Poll::Ready(Err(invalid("too many records for one handshake message")));
        }

        let mut space = [MaybeUninit::uninit(); READ];
        let mut space = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut space))?;
        if space.filled().is_empty() {
            // Whether somebody has cut off the rest cannot be known (RFC 8446, section 6.1).
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }

        self.received.extend_from_slice(space.filled());

        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.sealed.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.sealed))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sealed.advance(sent),
            }
        }
        give_back(&mut self.sealed);
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Encrypts the data, and sends as much as the kernel has room for. The rest is sent before the
    /// next write, or with a flush.
    fn seal(&mut self, cx: &mut Context<'_>, seal: Seal<'_>) -> io::Result<()> {
        loop {
            match self.turn(cx, seal, &mut nowhere())? {
                Turn::Again => {}
                Turn::Waits => return Err(io::ErrorKind::BrokenPipe.into()),
                Turn::Sealed => break,
            }
        }
        match self.poll_send(cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, C: Side> AsyncRead for TlsStream<S, C> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.opened.is_empty() {
            let length = this.opened.len().min(buf.remaining());
            buf.put_slice(&this.opened[..length]);
            this.opened.advance(length);
            give_back(&mut this.opened);
            return Poll::Ready(Ok(()));
        }

        let before = buf.remaining();

        loop {
            if before == 0 || buf.remaining() < before || this.is_over {
                return Poll::Ready(Ok(()));
            }
            if let Turn::Again = this.turn(cx, Seal::Nothing, buf)? {
                continue;
            }
            // Answers to the other side, such as a new key, leave with the next write: sending them
            // here would take the place of a writer in another task that waits for room.
            ready!(this.poll_receive(cx))?;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, C: Side> AsyncWrite for TlsStream<S, C> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.has_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(this.poll_send(cx))?;
        let bytes = &bytes[..bytes.len().min(RECORD)];
        if !bytes.is_empty() {
            this.seal(cx, Seal::Bytes(bytes))?;
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Writes one record for all slices: headers and the data that follows rarely need more.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = parts.iter().filter(|part| !part.is_empty());
        let first = filled.next().map_or(&[][..], |part| part);
        if first.len() >= RECORD || filled.next().is_none() {
            return self.poll_write(cx, first);
        }

        ready!(self.poll_send(cx))?;
        let length = parts
            .iter()
            .map(|part| part.len())
            .sum::<usize>()
            .min(RECORD);
        let mut bytes = Vec::with_capacity(length);
        for part in parts {
            bytes.extend_from_slice(&part[..part.len().min(length - bytes.len())]);
        }

        self.poll_write(cx, &bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.has_closed && !this.has_failed {
            this.has_closed = true;
            this.seal(cx, Seal::Close)?;
        }
        ready!(this.poll_send(cx))?;
        match ready!(Pin::new(&mut this.io).poll_shutdown(cx)) {
            // The other side was quicker.
            Err(cause) if cause.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}

/// A buffer for turns outside of a read: decrypted data is kept for the next one.
fn nowhere() -> ReadBuf<'static> {
    ReadBuf::new(&mut [])
}

/// Frees the memory of `buffer`, whose content was processed.
fn give_back(buffer: &mut BytesMut) {
    if buffer.is_empty() {
        *buffer = BytesMut::new();
    }
}

fn append<E>(
    records: &mut BytesMut,
    room: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
) -> io::Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let before = records.len();
    records.resize(before + room, 0);
    let filled = fill(&mut records[before..]);
    records.truncate(before + filled.as_ref().map_or(0, |length| *length));
    filled.map(|_| ()).map_err(io::Error::other)
}

fn encode<D>(mut message: EncodeTlsData<'_, D>, records: &mut BytesMut) -> io::Result<()> {
    let room = match message.encode(&mut []) {
        Err(EncodeError::InsufficientSize(missing)) => missing.required_size,
        Ok(_) | Err(EncodeError::AlreadyEncoded) => 0,
    };
    append(records, room, |room| message.encode(room))
}

fn invalid(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, cause)
}

#[cfg(test)]
mod play;
#[cfg(test)]
mod tests;
