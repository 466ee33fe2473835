//! The library's WebSocket over a stream of the runtime, for one task. Unlike the library's own adapter, its limits can be
//! changed while it is open.

use std::io::{self, ErrorKind, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket};

/// Bytes that are read at once.
const READ_BYTES: usize = 1024;

/// What reading fails with when the other end sends frames and no message. Each fragment costs time, and an empty one no
/// room, so that the limit of a message does not end it (RFC 6455, section 5.4).
pub(super) const FRAGMENT_FLOOD: ErrorKind = ErrorKind::QuotaExceeded;

/// One end of a WebSocket, the server's.
pub(super) struct Stream<S>(WebSocket<Io<S>>);

impl<S> Stream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn new(io: S, max_message_bytes: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(max_message_bytes))
            .max_frame_size(Some(max_message_bytes));
        let io = Io { inner: io, waker: Waker::noop().clone(), read: 0, most: most_bytes(max_message_bytes) };
        Self(WebSocket::from_raw_socket(io, Role::Server, Some(config)))
    }

    /// From the next frame on. One that is longer is refused by its header, before there is room made for it.
    pub(super) fn set_max_message_bytes(&mut self, most: usize) {
        self.0.set_config(|config| (config.max_message_size, config.max_frame_size) = (Some(most), Some(most)));
        self.0.get_mut().most = most_bytes(most);
    }

    /// What is below; the WebSocket must not be used any more.
    pub(super) fn inner(&mut self) -> &mut S {
        &mut self.0.get_mut().inner
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Error>> {
        self.0.get_mut().waker.clone_from(cx.waker());
        let read = unless_blocked(self.0.read());
        if read.is_ready() {
            self.0.get_mut().read = 0;
        }
        read
    }

    /// Resolves when all that was written has left.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.get_mut().waker.clone_from(cx.waker());
        match ready!(unless_blocked(self.0.flush())) {
            // That was the answer to the other end's close.
            Err(Error::ConnectionClosed) => Poll::Ready(Ok(())),
            flushed => Poll::Ready(flushed),
        }
    }

    /// Takes one message, which leaves by [`Stream::poll_flush`] at the latest.
    pub(super) fn write(&mut self, message: Message) -> Result<(), Error> {
        match unless_blocked(self.0.write(message)) {
            Poll::Ready(written) => written,
            // It is in the buffer.
            Poll::Pending => Ok(()),
        }
    }
}

fn unless_blocked<T>(result: Result<T, Error>) -> Poll<Result<T, Error>> {
    match result {
        Err(Error::Io(cause)) if cause.kind() == ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

/// Blocks on nothing: whoever was here last is woken when it is worth another try.
struct Io<S> {
    inner: S,
    waker: Waker,
    /// Bytes since the last message, and how many there may be.
    read: usize,
    most: usize,
}

/// Within which a message has come, or one that is too long: its parts, and as much again to announce them.
fn most_bytes(max_message_bytes: usize) -> usize {
    max_message_bytes.saturating_mul(2).saturating_add(READ_BYTES)
}

fn or_would_block<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(ErrorKind::WouldBlock.into()),
    }
}

impl<S: AsyncRead + Unpin> Read for Io<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(buffer);
        let mut cx = Context::from_waker(&self.waker);
        if self.read > self.most {
            return Err(FRAGMENT_FLOOD.into());
        }
        or_would_block(Pin::new(&mut self.inner).poll_read(&mut cx, &mut buffer))?;
        self.read += buffer.filled().len();
        Ok(buffer.filled().len())
    }
}

impl<S: AsyncWrite + Unpin> Write for Io<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        or_would_block(Pin::new(&mut self.inner).poll_write(&mut Context::from_waker(&self.waker), bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        or_would_block(Pin::new(&mut self.inner).poll_flush(&mut Context::from_waker(&self.waker)))
    }
}
