//! The library's WebSocket over a stream of the runtime, for one task. Unlike with the library's
//! own adapter, its limits can be changed while it is open.

use std::io::{self, ErrorKind, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tokio_tungstenite::tungstenite::{Error, Message};

/// Bytes that are read in one call, and the room that is kept for them: most messages are pongs, of
/// 14 bytes.
const READ_BYTES: usize = 128;
/// Up to this size, written data waits for [`Stream::poll_flush`], so that frames leave together.
const WRITE_BYTES: usize = 4096;

/// The error when the other end sends frames that form no message. Each fragment costs time, and an
/// empty one no memory, so the limit of a message does not stop it (RFC 6455, section 5.4).
pub(super) const FRAGMENT_FLOOD: ErrorKind = ErrorKind::QuotaExceeded;

/// The server's end of a WebSocket.
pub(super) struct Stream<S> {
    context: WebSocketContext,
    io: Io<S>,
    /// Whether the buffers may have grown.
    is_used: bool,
}

impl<S> Stream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn new(io: S, max_message_bytes: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(WRITE_BYTES)
            .max_message_size(Some(max_message_bytes))
            .max_frame_size(Some(max_message_bytes));
        let most = most_bytes(max_message_bytes);
        let io = Io {
            inner: io,
            waker: Waker::noop().clone(),
            read: 0,
            kept: 0,
            most,
        };

        Self {
            context: WebSocketContext::new(Role::Server, Some(config)),
            io,
            is_used: false,
        }
    }

    /// Sets the limit from the next frame on. A longer frame is refused by its header, before
    /// memory is allocated for it.
    pub(super) fn set_max_message_bytes(&mut self, most: usize) {
        self.context.set_config(|config| {
            (config.max_message_size, config.max_frame_size) = (Some(most), Some(most));
        });
        self.io.most = most_bytes(most);
    }

    /// Returns the bytes that have arrived since the last message, at most as many as are held for
    /// the next one.
    pub(super) fn partial(&self) -> usize {
        self.io.read
    }

    /// Returns the stream below; the WebSocket must not be used afterwards.
    pub(super) fn inner(&mut self) -> &mut S {
        &mut self.io.inner
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Error>> {
        self.io.waker.clone_from(cx.waker());
        let read = unless_blocked(self.context.read(&mut self.io));
        if let Poll::Ready(Ok(message)) = &read {
            self.is_used = true;
            self.io.read = 0;
            self.io.kept = self
                .io
                .kept
                .saturating_sub(least_frame_bytes(message.len()));
        }
        read
    }

    /// Resolves when all written data has left.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.io.waker.clone_from(cx.waker());
        match ready!(unless_blocked(self.context.flush(&mut self.io))) {
            // That was the answer to the other end's close.
            Err(Error::ConnectionClosed) => Poll::Ready(Ok(())),
            flushed => {
                self.release();
                Poll::Ready(flushed)
            }
        }
    }

    /// Accepts one message, which leaves with [`Stream::poll_flush`] at the latest.
    pub(super) fn write(&mut self, message: Message) -> Result<(), Error> {
        self.is_used = true;
        match unless_blocked(self.context.write(&mut self.io, message)) {
            Poll::Ready(written) => written,
            // It is in the buffer.
            Poll::Pending => Ok(()),
        }
    }

    /// Replaces empty buffers with small ones. Otherwise they would stay as large as the largest
    /// message of each direction, for as long as the socket is open.
    fn release(&mut self) {
        if self.is_used && self.io.kept == 0 && self.context.can_write() {
            self.context = WebSocketContext::new(Role::Server, Some(*self.context.get_config()));
            self.is_used = false;
        }
    }
}

fn unless_blocked<T>(result: Result<T, Error>) -> Poll<Result<T, Error>> {
    match result {
        Err(Error::Io(cause)) if cause.kind() == ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

/// Never blocks: the last caller is woken when another try is worthwhile.
struct Io<S> {
    inner: S,
    waker: Waker,
    /// Bytes since the last message, and their maximum.
    read: usize,
    most: usize,
    /// Bytes that form no message yet, or more: the headers of a fragmented message are not known.
    kept: usize,
}

/// Returns the minimum size of a message on the wire: one frame with a mask (RFC 6455, section
/// 5.2).
fn least_frame_bytes(message_bytes: usize) -> usize {
    let length = match message_bytes {
        0..=125 => 0,
        126..=0xffff => 2,
        _ => 8,
    };
    2 + length + 4 + message_bytes
}

/// Returns the size within which a message is complete or too long: its parts, and as much again
/// for their headers.
fn most_bytes(max_message_bytes: usize) -> usize {
    max_message_bytes
        .saturating_mul(2)
        .saturating_add(READ_BYTES)
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
        self.kept += buffer.filled().len();
        Ok(buffer.filled().len())
    }
}

impl<S: AsyncWrite + Unpin> Write for Io<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        or_would_block(
            Pin::new(&mut self.inner).poll_write(&mut Context::from_waker(&self.waker), bytes),
        )
    }

    fn flush(&mut self) -> io::Result<()> {
        or_would_block(Pin::new(&mut self.inner).poll_flush(&mut Context::from_waker(&self.waker)))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncWriteExt as _, duplex};
    use tokio::task::unconstrained;

    use super::*;

    /// A client's frame; its mask changes nothing.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let length = match u8::try_from(payload.len()) {
            Ok(length @ 0..=125) => vec![0x80 | length],
            _ => [
                &[0x80 | 0x7e][..],
                &u16::try_from(payload.len()).unwrap().to_be_bytes(),
            ]
            .concat(),
        };
        [&[first][..], &length, &[0; 4], payload].concat()
    }

    /// Flushes and reads by turns, as a socket does, until nothing is left.
    async fn take(stream: &mut Stream<tokio::io::DuplexStream>, seen: &mut Vec<Message>) {
        unconstrained(poll_fn(|cx| {
            loop {
                assert!(stream.poll_flush(cx).map(Result::unwrap).is_ready());
                let Poll::Ready(message) = stream.poll_read(cx) else {
                    return Poll::Ready(());
                };
                seen.push(message.unwrap());
            }
        }))
        .await;
    }

    #[tokio::test]
    async fn nothing_is_lost_with_the_buffers_however_the_bytes_arrive() {
        let long = "x".repeat(1000);
        let frames = [
            frame(0x81, b"one"),
            frame(0x89, b"ping"),
            frame(0x81, long.as_bytes()),
            frame(0x8a, b""),
            frame(0x01, b"in "),
            frame(0x80, b"parts"),
            frame(0x81, b"last"),
        ];
        let expected = [
            Message::text("one"),
            Message::Ping("ping".into()),
            Message::text(long),
            Message::Pong("".into()),
            Message::text("in parts"),
            Message::text("last"),
        ];

        for step in 1..200 {
            let (mut editor, io) = duplex(64 * 1024);
            let (mut stream, mut seen) = (Stream::new(io, 2048), Vec::new());
            for chunk in frames.concat().chunks(step) {
                editor.write_all(chunk).await.unwrap();
                take(&mut stream, &mut seen).await;
            }
            assert_eq!(seen, expected, "{step} bytes at a time");
        }
    }

    #[tokio::test]
    async fn buffers_are_given_back_between_two_messages_and_not_within_one() {
        let (mut editor, io) = duplex(64 * 1024);
        let (mut stream, mut seen) = (Stream::new(io, 2048), Vec::new());
        let whole = frame(0x81, b"one");
        let (first, rest) = whole.split_at(7);
        editor.write_all(first).await.unwrap();
        take(&mut stream, &mut seen).await;
        stream.is_used = true;
        take(&mut stream, &mut seen).await;
        assert!(stream.is_used && seen.is_empty());

        editor.write_all(rest).await.unwrap();
        take(&mut stream, &mut seen).await;
        assert_eq!((stream.is_used, seen.len()), (false, 1));

        stream.write(Message::text("x".repeat(3000))).unwrap();
        assert!(stream.is_used);

        take(&mut stream, &mut seen).await;
        assert!(!stream.is_used);
    }
}
