//! One editor's WebSocket: one task with one timer, which keeps the heartbeat and enforces the
//! socket's limits. `dialogue` reads the frames; `login` and `session` decide what they mean.

use std::fmt;
use std::future::{Future as _, poll_fn};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::time::{Instant, Sleep, timeout};
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_util::sync::CancellationToken;
use tracing::Span;
use vvs_proto::ConnectionId;
use vvs_proto::frame::{RelayFrame, close};
use vvs_runtime::metrics::count;
use vvs_runtime::tcp::Cut;

use crate::attempt::Attempt;
use crate::authority::Bearer;
use crate::backplane::Taken;
use crate::drain::Moments;
use crate::limit::{ConnectionPlace, HandshakePlace};
use crate::login::{Action, Event};
use crate::proof::Proofs;
use crate::resume::Resume;
use crate::session::{Effect, Session};
use crate::shared::Shared;
use crate::socket::idle::Idle;
use crate::socket::ping::{Pings, Pong};
use crate::socket::stream::{FRAGMENT_FLOOD, Stream};

mod dialogue;
mod idle;
mod ping;
mod stream;

/// How long a close may take before the connection is dropped.
const CLOSE_TIME: Duration = Duration::from_secs(1);
/// Bytes of a message that was too long that are read and discarded, so that the close frame is not
/// lost to a reset.
const LINGER_BYTES: usize = 256 * 1024;

/// Why a socket's loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// We close it, with this code.
    Close(u16),
    /// The editor closed it or went away.
    Gone(&'static str),
}

/// The event that woke the loop.
enum Wake {
    Message(Result<Message, WsError>),
    Login(Vec<Action>),
    Resumed(Box<Resume>, Taken),
    Session(Vec<Effect>),
    Timer,
    Drain,
}

/// The initial state of a socket.
#[derive(Debug)]
pub(crate) struct Start {
    /// Names the socket, and its login when it has one.
    pub(crate) id: ConnectionId,
    /// The nonce for proofs on this socket: 16 random bytes, base64url.
    pub(crate) nonce: String,
    pub(crate) address: IpAddr,
    /// `None` when the editor is going to authenticate or to resume.
    pub(crate) attempt: Option<Box<Attempt>>,
    /// The judged token that came with the upgrade.
    pub(crate) bearer: Option<Box<Bearer>>,
    pub(crate) connection_place: ConnectionPlace,
    /// Resets the connection of an editor that does not read.
    pub(crate) cut: Cut,
    /// `None` when it does not count, because the upgrade came with a token.
    pub(crate) handshake: Option<HandshakePlace>,
}

struct Socket<S> {
    ws: Stream<S>,
    shared: Arc<Shared>,
    id: ConnectionId,
    proofs: Proofs,
    address: IpAddr,
    attempt: Option<Box<Attempt>>,
    /// A login that is being fetched from its holder.
    resuming: Option<Box<Resume>>,
    session: Option<Box<Session>>,
    /// Given back when the editor is signed in.
    handshake: Option<HandshakePlace>,
    connection_place: ConnectionPlace,
    cut: Cut,
    /// Messages that have not been handed to the connection.
    outbox: Vec<(Message, Option<Span>)>,
    /// Bytes of messages that have not left.
    queued: usize,
    /// Whether all data to send has left.
    is_flushed: bool,
    messages: DefaultDirectRateLimiter,
    pings: Pings,
    /// Until when a socket without a login may also be without a session.
    idle: Option<Idle>,
    /// When it is closed because the relay stops.
    drain: Option<Box<Moments>>,
}

/// Serves one editor until its socket is gone, and its login until that is over.
pub(crate) async fn run<S>(io: S, start: Box<Start>, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    // Each on the heap, so that the task has room for neither while the other runs.
    if let Some(attempt) = Box::pin(hold_socket(io, start, &shared)).await {
        Box::pin(follow_up(attempt, &shared)).await;
    }
}

async fn hold_socket<S>(io: S, start: Box<Start>, shared: &Arc<Shared>) -> Option<Box<Attempt>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    shared.metrics.connections.inc();
    let (mut socket, bearer) = Socket::new(io, *start, shared);
    let end = socket.serve(bearer, &shared.stop).await;

    // On the heap, because only a socket that ends needs the room.
    Box::pin(socket.finish(end)).await;
    shared.metrics.connections.dec();
    drop(socket.connection_place);

    // What was being fetched would be lost with this socket, and the tries for its code with it.
    let fetched = match socket.resuming.take() {
        Some(resume) => Box::pin(resume.finish(shared)).await,
        None => None,
    };

    let mut attempt = fetched.or(socket.attempt.take())?;
    attempt.apply(Event::SocketGone);

    Some(attempt)
}

/// Answers for a login whose socket is gone, and finishes its activation, as far as there is room.
/// Otherwise the editor makes up for any loss, by resuming or by presenting its token, and so does
/// the page, by delivering again.
async fn follow_up(mut attempt: Box<Attempt>, shared: &Shared) {
    if attempt.is_over_unseen() || attempt.deadline().is_none() {
        return;
    }

    let (stop, over, limits) = (&shared.stop, shared.drain.over(), &shared.limits);
    let mut kept = None;

    while let Some(due) = attempt.deadline() {
        let is_over = attempt.is_over();
        if kept
            .as_ref()
            .is_none_or(|(was_over, _)| *was_over != is_over)
        {
            let address = attempt.facts.client_address;
            let place = if is_over {
                limits.over(address)
            } else {
                limits.detached(address)
            };
            if place.is_none() && !is_over {
                shared.metrics.logins_given_up.inc();
            }
            let Some(place) = place else { return };
            kept = Some((is_over, place));
        }

        // Another relay may be asked for it by its editor, which was sent there.
        let is_wanted =
            !shared.drain.is_alone() && !over.is_cancelled() && attempt.state().is_unfinished();
        if stop.is_cancelled() && !is_wanted && !attempt.is_activating() {
            return;
        }

        let next = if stop.is_cancelled() { over } else { stop };

        tokio::select! {
            _ = poll_fn(|cx| attempt.poll(cx)) => {}
            () = tokio::time::sleep_until(due) => drop(attempt.on_timer(Instant::now())),
            () = next.cancelled(), if !next.is_cancelled() => {}
        }
    }
}

impl<S> Socket<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Creates the loop. It is a separate function, so that the memory of the start is freed.
    fn new(io: S, start: Start, shared: &Arc<Shared>) -> (Self, Option<Box<Bearer>>) {
        let Start {
            id,
            nonce,
            address,
            attempt,
            bearer,
            connection_place,
            cut,
            handshake,
        } = start;
        let limits = &shared.settings;
        let now = Instant::now();
        let socket = Self {
            ws: Stream::new(io, limits.max_message_bytes),
            shared: shared.clone(),
            id,
            proofs: Proofs::new(shared.authority.clone(), nonce),
            address,
            idle: attempt
                .is_none()
                .then(|| Idle::new(now, limits.sign_in_time)),
            attempt,
            resuming: None,
            session: None,
            handshake,
            connection_place,
            cut,
            outbox: Vec::new(),
            queued: 0,
            is_flushed: false,
            messages: RateLimiter::direct(Quota::per_minute(limits.messages_per_minute)),
            pings: Pings::new(now + limits.heartbeat_interval),
            drain: None,
        };

        (socket, bearer)
    }

    async fn serve(&mut self, bearer: Option<Box<Bearer>>, stop: &CancellationToken) -> End {
        self.introduce(false);

        if let Some(bearer) = bearer {
            let effects = self.with_session(|session, _proofs| session.bearer(*bearer));
            if let Some(end) = self.take_effect(effects) {
                return end;
            }
        }

        let mut timer = Box::pin(tokio::time::sleep_until(self.deadline()));
        let mut drain = Box::pin(stop.cancelled());

        loop {
            let due = self.deadline();
            if timer.deadline() != due {
                timer.as_mut().reset(due);
            }

            let draining = self.drain.is_some();
            let wake = poll_fn(|cx| {
                if !draining && drain.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Wake::Drain);
                }
                self.poll(cx, timer.as_mut())
            });
            let end = match wake.await {
                Wake::Message(message) => self.on_message(message),
                Wake::Login(actions) => self.carry_out(&actions),
                Wake::Resumed(resume, taken) => self.resumed(*resume, taken),
                Wake::Session(effects) => self.take_effect(effects),
                Wake::Timer => self.on_timer(Instant::now()),
                Wake::Drain => {
                    self.drain = Some(Box::new(self.shared.drain.moments()));
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

    /// Writes as much as possible, then looks for work.
    fn poll(&mut self, cx: &mut Context<'_>, timer: Pin<&mut Sleep>) -> Poll<Wake> {
        self.is_flushed = match self.poll_write(cx) {
            Poll::Ready(Err(cause)) => return Poll::Ready(Wake::Message(Err(cause))),
            Poll::Ready(Ok(())) => true,
            Poll::Pending => false,
        };

        if let Some(attempt) = &mut self.attempt
            && let Poll::Ready(actions) = attempt.poll(cx)
        {
            return Poll::Ready(Wake::Login(actions));
        }

        if let Some(mut resume) = self.resuming.take() {
            match resume.poll(cx) {
                Poll::Ready(taken) => return Poll::Ready(Wake::Resumed(resume, taken)),
                Poll::Pending => self.resuming = Some(resume),
            }
        }

        if let Some(session) = &mut self.session
            && let Poll::Ready(effects) = session.poll(cx)
        {
            return Poll::Ready(Wake::Session(effects));
        }

        if timer.poll(cx).is_ready() {
            return Poll::Ready(Wake::Timer);
        }

        // What the editor says must not change a login that is on its way to another relay.
        if self
            .attempt
            .as_ref()
            .is_some_and(|attempt| attempt.is_offered())
        {
            return Poll::Pending;
        }

        let read = self.ws.poll_read(cx).map(Wake::Message);
        self.connection_place
            .buffers(self.queued + self.ws.partial());

        read
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        ready!(self.ws.poll_flush(cx))?;
        self.queued = self.outbox.iter().map(|(message, _)| message.len()).sum();
        if self.outbox.is_empty() {
            return Poll::Ready(Ok(()));
        }

        // All at once, for a token and the ping behind it need no packet each. They stay in the
        // count until they have left.
        for (message, _span) in std::mem::take(&mut self.outbox) {
            self.ws.write(message)?;
        }

        ready!(self.ws.poll_flush(cx))?;
        self.queued = 0;

        Poll::Ready(Ok(()))
    }

    fn deadline(&self) -> Instant {
        let login = self.attempt.as_ref().and_then(|attempt| attempt.deadline());
        let session = self.session.as_ref().and_then(|session| session.deadline());
        let others = [login, session, self.idle.map(Idle::until), self.drain_at()];
        others
            .into_iter()
            .flatten()
            .fold(self.pings.deadline(), Instant::min)
    }

    /// Returns when it is closed because the relay stops: late, while something is under way on it
    /// that cannot continue elsewhere.
    fn drain_at(&self) -> Option<Instant> {
        let moments = self.drain.as_ref()?;
        let is_alone = self.shared.drain.is_alone();
        let is_kept = self.is_busy()
            || self
                .attempt
                .as_ref()
                .is_some_and(|attempt| attempt.is_tied(is_alone));
        Some(if is_kept { moments.last } else { moments.own })
    }

    /// Returns whether the editor waits for an answer.
    fn is_busy(&self) -> bool {
        self.resuming.is_some()
            || self
                .session
                .as_ref()
                .is_some_and(|session| session.is_busy())
    }

    fn on_timer(&mut self, now: Instant) -> Option<End> {
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        if self.pings.is_overdue(now) {
            return Some(End::Close(close::NO_PONG));
        }

        if is_due(self.drain_at()) {
            let frame = RelayFrame::Reconnect {
                after_ms: u64::try_from(self.shared.drain.pause().as_millis()).unwrap_or_default(),
                reason: "this server is about to restart".to_owned(),
            };
            self.send(&frame, None);
            return Some(End::Close(close::RECONNECT));
        }

        let is_busy = self.is_busy();
        if let Some(idle) = self.idle.as_mut().filter(|idle| idle.until() <= now) {
            let is_more = is_busy && idle.extend(now + self.shared.settings.sign_in_time);
            if !is_more {
                self.shared.limits.reached.tell("VVS_RELAY_SIGN_IN_TIME");
                return Some(End::Close(close::RECONNECT));
            }
        }

        let settings = &self.shared.settings;
        if let Some(ping) =
            self.pings
                .beat(now, settings.heartbeat_interval, settings.heartbeat_timeout)
        {
            self.push(ping, None);
        }

        if let Some(session) = &mut self.session {
            let effects = session.on_timer(now);
            if let Some(end) = self.take_effect(effects) {
                return Some(end);
            }
        }

        let actions = self
            .attempt
            .as_mut()
            .map(|attempt| attempt.on_timer(now))
            .unwrap_or_default();

        self.carry_out(&actions)
    }

    fn on_message(&mut self, message: Result<Message, WsError>) -> Option<End> {
        match message {
            Ok(Message::Text(text)) => self.is_flood().or_else(|| self.on_text(&text)),
            Ok(Message::Ping(_)) => self.is_flood(),
            Ok(Message::Pong(payload)) => match self.pings.on_pong(&payload) {
                Pong::Unsolicited => self.is_flood(),
                // It may have said so itself before.
                Pong::HasToken
                    if self
                        .attempt
                        .as_ref()
                        .is_some_and(|attempt| attempt.state().unacked().is_some()) =>
                {
                    self.event(Event::Acked)
                }
                Pong::HasToken | Pong::Alive => None,
            },
            Err(WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                Some(End::Gone("lost"))
            }
            Ok(Message::Binary(_) | Message::Frame(_))
            | Err(WsError::Protocol(_) | WsError::Utf8(_)) => {
                Some(End::Close(close::PROTOCOL_ERROR))
            }
            Err(WsError::Io(cause)) if cause.kind() == FRAGMENT_FLOOD => {
                Some(End::Close(close::RATE_LIMITED))
            }
            Err(WsError::Capacity(_)) => Some(End::Close(close::TOO_BIG)),
            Ok(Message::Close(_)) => {
                if self.has_token_in_order() {
                    self.event(Event::Acked);
                }
                Some(End::Gone("editor"))
            }
            Err(_) => Some(End::Gone("lost")),
        }
    }

    /// Returns whether a close has the same meaning as the pong behind the token. This is so only
    /// for a bare editor, and only if all of the token was sent: once a library has begun to close,
    /// it answers no ping.
    fn has_token_in_order(&self) -> bool {
        let attempt = self
            .attempt
            .as_ref()
            .filter(|attempt| attempt.editor().is_none());
        self.is_flushed && attempt.is_some_and(|attempt| attempt.state().unacked().is_some())
    }

    fn is_flood(&self) -> Option<End> {
        self.messages
            .check()
            .is_err()
            .then_some(End::Close(close::RATE_LIMITED))
    }

    fn send(&mut self, frame: &RelayFrame, span: Option<Span>) {
        self.push(Message::text(frame.to_json()), span);
    }

    /// Queues a message. The span ends when the message has been handed to the connection.
    fn push(&mut self, message: Message, span: Option<Span>) {
        self.queued += message.len();
        self.outbox.push((message, span));
    }

    /// Sends a close frame if the editor still listens.
    async fn finish(&mut self, end: End) {
        let code = match end {
            End::Close(code) => code.to_string(),
            End::Gone(how) => how.to_owned(),
        };

        tracing::debug!(connection_id = %self.id, code, "socket closed");
        count(&self.shared.metrics.closes, "code", code);
        if let Some(setting) = self.limit(end) {
            self.shared.limits.reached.tell(setting);
        }

        // The close has a bounded time; an editor that does not read it is cut off.
        self.is_flushed = false;
        let is_over = timeout(CLOSE_TIME, self.say_goodbye(end)).await.is_ok();

        if !is_over && (!self.is_flushed || end == End::Close(close::TOO_SLOW)) {
            // What the kernel holds for it would outlive the socket.
            self.cut.set();
        }
    }

    /// Returns the setting whose limit made us close.
    fn limit(&self, end: End) -> Option<&'static str> {
        let End::Close(code) = end else { return None };
        match code {
            close::TOO_SLOW => Some("VVS_RELAY_SEND_QUEUE_BYTES"),
            close::RATE_LIMITED => Some("VVS_RELAY_MESSAGES_PER_MINUTE"),
            close::TOO_BIG if self.handshake.is_none() => {
                Some("VVS_RELAY_MAX_MESSAGE_BYTES_SIGNED_IN")
            }
            close::TOO_BIG => Some("VVS_RELAY_MAX_MESSAGE_BYTES"),
            _ => None,
        }
    }

    async fn say_goodbye(&mut self, end: End) {
        if let End::Close(code) = end {
            self.push(
                Message::Close(Some(CloseFrame {
                    code: code.into(),
                    reason: "".into(),
                })),
                None,
            );
        }

        if poll_fn(|cx| self.poll_write(cx)).await.is_err() {
            return;
        }

        self.is_flushed = true;

        if matches!(end, End::Close(close::TOO_BIG | close::PROTOCOL_ERROR)) {
            // The rest is no longer a WebSocket, but data that is unread when a socket is closed
            // resets it.
            let (mut scratch, mut read) = ([0; 1024], 0);
            while let Ok(1..) = self
                .ws
                .inner()
                .read(&mut scratch)
                .await
                .inspect(|length| read += length)
            {
                if read > LINGER_BYTES {
                    return;
                }
            }

            return;
        }

        // What was on its way when we closed still counts, as far as it says that the editor has
        // its token.
        while let Ok(message) = poll_fn(|cx| self.ws.poll_read(cx)).await {
            match message {
                Message::Text(text) => self.on_last_text(&text),
                Message::Pong(_) | Message::Close(_) => drop(self.on_message(Ok(message))),
                Message::Binary(_) | Message::Ping(_) | Message::Frame(_) => {}
            }
        }
    }
}

impl<S> fmt::Debug for Socket<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
