//! One editor's WebSocket: moves frames between it and its login, keeps the heartbeat, and enforces the socket's limits.
//! What the frames mean for the login is decided in `login`; this is one task with one timer.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Sink as _, Stream as _};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::time::{Instant, Sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error as WsError, Message};
use tokio_util::sync::CancellationToken;
use tracing::Span;
use vvs_proto::frame::{EditorFrame, ErrorCode, ParseError, RelayFrame, close};
use vvs_runtime::metrics::count;

use crate::Shared;
use crate::attempt::Attempt;
use crate::limit::{ConnectionPlace, LoginPlace};
use crate::login::{Action, Event, State};
use crate::wire;

/// How long a close may take before the connection is dropped.
const CLOSE_TIME: Duration = Duration::from_secs(1);
/// What is read and thrown away of a message that was too long, so that the close frame is not lost to a reset.
const LINGER_BYTES: usize = 256 * 1024;
/// How long a signed-in socket is let be after its token has expired.
const TOKEN_LEEWAY: Duration = Duration::from_mins(1);
/// The most that an editor is asked to wait before it connects again, in milliseconds.
const RECONNECT_WITHIN: u64 = 2000;

/// Why a socket's loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// We close it, with this code.
    Close(u16),
    /// The editor closed it or went away.
    Gone(&'static str),
}

/// What woke the loop.
enum Wake {
    Message(Option<Result<Message, WsError>>),
    Login(Vec<Action>),
    Timer,
    Drain,
}

/// What a socket holds besides its login.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) connection: ConnectionPlace,
    pub(crate) login: LoginPlace,
}

struct Socket<S> {
    ws: WebSocketStream<S>,
    shared: Arc<Shared>,
    attempt: Box<Attempt>,
    /// Given back when the editor is signed in.
    login_place: Option<LoginPlace>,
    outbox: VecDeque<(Message, Option<Span>)>,
    queued: usize,
    messages: DefaultDirectRateLimiter,
    next_ping: Instant,
    pong_due: Option<Instant>,
    authorized_until: Option<Instant>,
    drain_at: Option<Instant>,
}

/// Serves one editor until its socket is gone, and its login until that is over.
pub(crate) async fn run<S>(io: S, attempt: Box<Attempt>, places: Places, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let attempt = Box::pin(hold_socket(io, attempt, places, &shared)).await;
    follow_up(attempt, &shared.stop).await;
}

async fn hold_socket<S>(io: S, attempt: Box<Attempt>, places: Places, shared: &Arc<Shared>) -> Box<Attempt>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    shared.metrics.connections.inc();
    let Places { connection, login } = places;
    let limits = &shared.settings;
    let config = WebSocketConfig::default()
        .read_buffer_size(1024)
        .write_buffer_size(0)
        .max_message_size(Some(limits.max_message_bytes_signed_in))
        .max_frame_size(Some(limits.max_message_bytes_signed_in));
    let mut socket = Socket {
        ws: WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await,
        shared: shared.clone(),
        attempt,
        login_place: Some(login),
        outbox: VecDeque::new(),
        queued: 0,
        messages: RateLimiter::direct(Quota::per_minute(limits.messages_per_minute)),
        next_ping: Instant::now() + limits.heartbeat_interval,
        pong_due: None,
        authorized_until: None,
        drain_at: None,
    };
    let end = socket.serve(&shared.stop).await;
    // On the heap, because only a socket that ends needs the room.
    Box::pin(socket.finish(end)).await;
    shared.metrics.connections.dec();
    drop(connection);
    socket.attempt.apply(Event::SocketGone);
    socket.attempt
}

/// Answers for a login whose socket is gone, and finishes its activation.
async fn follow_up(mut attempt: Box<Attempt>, stop: &CancellationToken) {
    while let Some(due) = attempt.deadline() {
        if stop.is_cancelled() && !attempt.is_activating() {
            return;
        }
        tokio::select! {
            _ = poll_fn(|cx| attempt.poll(cx)) => {}
            () = tokio::time::sleep_until(due) => drop(attempt.on_timer(Instant::now())),
            () = stop.cancelled(), if !stop.is_cancelled() => {}
        }
    }
}

impl<S> Socket<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    async fn serve(&mut self, stop: &CancellationToken) -> End {
        self.send(&wire::connection(&self.attempt, &self.shared), None);
        let mut timer = Box::pin(tokio::time::sleep_until(self.deadline()));
        let mut drain = Box::pin(stop.cancelled());
        loop {
            let due = self.deadline();
            if timer.deadline() != due {
                timer.as_mut().reset(due);
            }
            let draining = self.drain_at.is_some();
            let wake = poll_fn(|cx| {
                if !draining && drain.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Wake::Drain);
                }
                self.poll(cx, timer.as_mut())
            });
            let end = match wake.await {
                Wake::Message(message) => self.on_message(message),
                Wake::Login(actions) => self.carry_out(&actions),
                Wake::Timer => self.on_timer(Instant::now()),
                Wake::Drain => {
                    self.drain_at = Some(Instant::now() + moment_within(self.shared.grace));
                    None
                }
            };
            if let Some(end) = end {
                return end;
            }
            if self.queued > self.shared.settings.send_queue_bytes {
                return End::Close(close::TOO_SLOW);
            }
        }
    }

    /// Writes what can be written, then sees what there is to do.
    fn poll(&mut self, cx: &mut Context<'_>, timer: Pin<&mut Sleep>) -> Poll<Wake> {
        if let Poll::Ready(Err(cause)) = self.poll_write(cx) {
            return Poll::Ready(Wake::Message(Some(Err(cause))));
        }
        if let Poll::Ready(actions) = self.attempt.poll(cx) {
            return Poll::Ready(Wake::Login(actions));
        }
        if timer.poll(cx).is_ready() {
            return Poll::Ready(Wake::Timer);
        }
        Pin::new(&mut self.ws).poll_next(cx).map(Wake::Message)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        let mut ws = Pin::new(&mut self.ws);
        while !self.outbox.is_empty() {
            std::task::ready!(ws.as_mut().poll_ready(cx))?;
            if let Some((message, _span)) = self.outbox.pop_front() {
                self.queued -= message.len();
                ws.as_mut().start_send(message)?;
            }
        }
        ws.poll_flush(cx)
    }

    fn deadline(&self) -> Instant {
        let others = [self.pong_due, self.attempt.deadline(), self.authorized_until, self.drain_at];
        others.into_iter().flatten().fold(self.next_ping, Instant::min)
    }

    fn on_timer(&mut self, now: Instant) -> Option<End> {
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        if is_due(self.pong_due) {
            return Some(End::Close(close::NO_PONG));
        }
        if is_due(self.drain_at) {
            let after_ms = u64::try_from(moment_within(Duration::from_millis(RECONNECT_WITHIN)).as_millis());
            let frame = RelayFrame::Reconnect {
                after_ms: after_ms.unwrap_or(RECONNECT_WITHIN),
                reason: "this server is about to restart".to_owned(),
            };
            self.send(&frame, None);
            return Some(End::Close(close::RECONNECT));
        }
        if is_due(self.authorized_until) {
            self.send(&wire::token_expired(), None);
            return Some(End::Close(close::RECONNECT));
        }
        if self.next_ping <= now {
            self.next_ping = now + self.shared.settings.heartbeat_interval;
            self.pong_due.get_or_insert(now + self.shared.settings.heartbeat_timeout);
            self.push(Message::Ping(Bytes::new()), None);
        }
        let actions = self.attempt.on_timer(now);
        self.carry_out(&actions)
    }

    fn on_message(&mut self, message: Option<Result<Message, WsError>>) -> Option<End> {
        match message {
            Some(Ok(Message::Text(text))) => self.is_flood().or_else(|| self.on_text(&text)),
            Some(Ok(Message::Ping(_))) => self.is_flood(),
            Some(Ok(Message::Pong(payload))) => {
                self.pong_due = None;
                // The pong of the ping right behind the token: whatever read that far has read the token.
                let is_ack = self.attempt.state().unacked().is_some_and(|id| id.as_bytes() == &payload[..]);
                if is_ack { self.event(Event::Acked) } else { None }
            }
            Some(Ok(Message::Binary(_) | Message::Frame(_)) | Err(WsError::Protocol(_) | WsError::Utf8(_))) => {
                Some(End::Close(close::PROTOCOL_ERROR))
            }
            Some(Err(WsError::Capacity(_))) => Some(End::Close(close::TOO_BIG)),
            Some(Ok(Message::Close(_))) => Some(End::Gone("editor")),
            Some(Err(_)) | None => Some(End::Gone("lost")),
        }
    }

    fn is_flood(&self) -> Option<End> {
        self.messages.check().is_err().then_some(End::Close(close::RATE_LIMITED))
    }

    fn on_text(&mut self, text: &str) -> Option<End> {
        if self.authorized_until.is_none() && text.len() > self.shared.settings.max_message_bytes {
            return Some(End::Close(close::TOO_BIG));
        }
        match EditorFrame::parse(text) {
            Ok(frame) => self.on_frame(frame),
            Err(ParseError::NotAFrame) => Some(End::Close(close::PROTOCOL_ERROR)),
            Err(ParseError::UnknownType) => {
                self.complain(ErrorCode::UnknownType, "this server does not know a frame of this type")
            }
            Err(ParseError::Malformed) => {
                self.complain(ErrorCode::Malformed, "a member of this frame is missing or of the wrong kind")
            }
        }
    }

    fn on_frame(&mut self, frame: EditorFrame) -> Option<End> {
        match frame {
            EditorFrame::Ping => {
                self.send(&RelayFrame::Pong, None);
                None
            }
            EditorFrame::Pong => None,
            EditorFrame::AuthCancel => self.event(Event::Cancelled),
            EditorFrame::AuthAck { message_id, ok, reason } => {
                let state = self.attempt.state();
                let expected = state.unacked().or_else(|| state.receipt().map(|receipt| receipt.request_id));
                if expected.is_none_or(|expected| expected.to_string() != message_id) {
                    return self.complain(ErrorCode::NotNow, "there is nothing by this messageId to acknowledge");
                }
                if !ok {
                    tracing::info!(connection_id = %self.attempt.facts.id, ?reason, "the editor refused the sign-in");
                }
                self.event(if ok { Event::Acked } else { Event::Refused })
            }
            EditorFrame::Hello { .. } => self.complain(
                ErrorCode::NotNow,
                "this server does not take hello yet; go on without it, the sign-in works the same",
            ),
            EditorFrame::AuthComplete { .. }
            | EditorFrame::Resume { .. }
            | EditorFrame::Authenticate { .. }
            | EditorFrame::TokenRefresh { .. }
            | EditorFrame::SessionLogout { .. } => {
                self.complain(ErrorCode::NotNow, "nothing on this socket asks for this frame")
            }
        }
    }

    fn event(&mut self, event: Event) -> Option<End> {
        let actions = self.attempt.apply(event);
        if self.authorized_until.is_none()
            && let Some(receipt) = self.attempt.state().receipt()
        {
            let left = receipt.authorized_until - OffsetDateTime::now_utc();
            self.authorized_until = Some(Instant::now() + left.try_into().unwrap_or(Duration::ZERO) + TOKEN_LEEWAY);
            self.login_place = None;
        }
        self.carry_out(&actions)
    }

    fn carry_out(&mut self, actions: &[Action]) -> Option<End> {
        for action in actions {
            match action {
                Action::Push => self.push_grant(),
                Action::TellDenied => self.send(&RelayFrame::AuthDenied, None),
                Action::TellExpired => self.send(&RelayFrame::AuthExpired, None),
                Action::NotNow => drop(self.complain(ErrorCode::NotNow, "the sign-in is past the point of this frame")),
                Action::Close(code) => return Some(End::Close(*code)),
                // The login has started that itself.
                Action::Activate => {}
            }
        }
        None
    }

    fn push_grant(&mut self) {
        let State::Sent(grant) = self.attempt.state() else { return };
        let frame = wire::success(grant, OffsetDateTime::now_utc());
        let ping = Message::Ping(Bytes::copy_from_slice(grant.request_id.as_bytes()));
        let span = tracing::info_span!(
            parent: None,
            "push",
            otel.name = "push auth:success",
            otel.kind = "producer",
            connection_id = %self.attempt.facts.id,
        );
        self.attempt.place().hang(&span);
        self.send(&frame, Some(span));
        self.push(ping, None);
    }

    fn complain(&mut self, code: ErrorCode, message: &str) -> Option<End> {
        self.send(&RelayFrame::Error { code, message: message.to_owned() }, None);
        None
    }

    fn send(&mut self, frame: &RelayFrame, span: Option<Span>) {
        self.push(Message::text(frame.to_json()), span);
    }

    /// The span ends when the message has been handed to the connection.
    fn push(&mut self, message: Message, span: Option<Span>) {
        self.queued += message.len();
        self.outbox.push_back((message, span));
    }

    /// Says goodbye as far as the editor still listens.
    async fn finish(&mut self, end: End) {
        let code = match end {
            End::Close(code) => code.to_string(),
            End::Gone(how) => how.to_owned(),
        };
        tracing::debug!(connection_id = %self.attempt.facts.id, code, "socket closed");
        count(&self.shared.metrics.closes, "code", code);
        // The close has a bounded time; whoever does not take it is cut off.
        timeout(CLOSE_TIME, self.say_goodbye(end)).await.ok();
    }

    async fn say_goodbye(&mut self, end: End) {
        if let End::Close(code) = end {
            self.push(Message::Close(Some(CloseFrame { code: code.into(), reason: "".into() })), None);
        }
        if poll_fn(|cx| self.poll_write(cx)).await.is_err() {
            return;
        }
        if matches!(end, End::Close(close::TOO_BIG | close::PROTOCOL_ERROR)) {
            // What follows is no WebSocket any more, but what is unread when a socket is closed resets it.
            let (mut scratch, mut read) = ([0; 1024], 0);
            while let Ok(1..) = self.ws.get_mut().read(&mut scratch).await.inspect(|length| read += length) {
                if read > LINGER_BYTES {
                    return;
                }
            }
            return;
        }
        while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut self.ws).poll_next(cx)).await {}
    }
}

/// A random moment within a time, so that not everyone does the same at once.
fn moment_within(time: Duration) -> Duration {
    let fraction = vvs_auth::key::random::<4>().map_or(0, u32::from_be_bytes);
    time.mul_f64(f64::from(fraction) / f64::from(u32::MAX))
}

impl<S> fmt::Debug for Socket<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("attempt", &self.attempt).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
