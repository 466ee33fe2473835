//! The requests in an editor's frames, and the answers.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use vvs_auth::device::DeviceKey;
use vvs_auth::proof::Use;
use vvs_proto::Secret;
use vvs_proto::frame::{
    App, AuthErrorCode, Device, EditorFrame, ErrorCode, Method, ParseError, RefusalReason,
    RelayFrame, close,
};

use super::{End, Idle, Socket};
use crate::authority::RefusedProof;
use crate::backplane::Taken;
use crate::clock;
use crate::hello::Hello;
use crate::login::{Action, Event, State};
use crate::pause::retry_after;
use crate::proof::{NotTaken, Proofs, Unproven};
use crate::resume::Resume;
use crate::session::{Effect, Session, new_socket};
use crate::wire;

/// An editor's introduction.
struct Introduction {
    app: App,
    device: Device,
    device_key: serde_json::Value,
    return_uri: Option<String>,
    proof: Secret,
}

impl<S> Socket<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Sends the frame that names this socket and its login.
    pub(super) fn introduce(&mut self, resumed: bool) {
        let frame = wire::connection(
            self.id,
            self.proofs.nonce().to_owned(),
            self.attempt.as_deref(),
            resumed,
            &self.shared,
        );
        self.send(&frame, None);
    }

    pub(super) fn on_text(&mut self, text: &str) -> Option<End> {
        match EditorFrame::parse(text) {
            Ok(frame) => self.on_frame(frame),
            Err(ParseError::NotAFrame) => Some(End::Close(close::PROTOCOL_ERROR)),
            Err(ParseError::UnknownType) => self.complain(
                ErrorCode::UnknownType,
                "this server does not know a frame of this type",
            ),
            Err(ParseError::Malformed) => self.complain(
                ErrorCode::Malformed,
                "a member of this frame is missing or of the wrong kind",
            ),
        }
    }

    /// Handles a frame on a socket that is closing: only the acknowledgement of the token still
    /// counts.
    pub(super) fn on_last_text(&mut self, text: &str) {
        if let Ok(frame @ EditorFrame::AuthAck { .. }) = EditorFrame::parse(text) {
            self.on_frame(frame);
        }
    }

    fn on_frame(&mut self, frame: EditorFrame) -> Option<End> {
        match frame {
            EditorFrame::Ping => {
                self.send(&RelayFrame::Pong, None);
                None
            }
            EditorFrame::Pong => None,
            EditorFrame::Hello {
                app,
                device,
                device_key,
                return_uri,
                locale: _,
                proof,
            } => {
                let introduction = Introduction {
                    app,
                    device,
                    device_key,
                    return_uri,
                    proof,
                };
                match self.hello(&introduction) {
                    Ok(()) => None,
                    Err(refused) => self.refuse(refused),
                }
            }
            EditorFrame::AuthComplete { code, method } => self.complete(&code, method),
            EditorFrame::AuthCancel => self.event(Event::Cancelled),
            EditorFrame::AuthAck {
                message_id,
                ok,
                reason,
            } => self.acknowledge(&message_id, ok, reason),
            EditorFrame::Resume { ticket, proof } => self.resume(&ticket, &proof),
            EditorFrame::Authenticate { token, proof } => {
                if !self.is_free() {
                    return self.not_now();
                }
                let effects = self.with_session(|session, proofs| {
                    session.authenticate(proofs, &token, proof.as_ref())
                });
                self.take_effect(effects)
            }
            EditorFrame::TokenRefresh { proof } => {
                let effects = self.with_session(|session, proofs| session.refresh(proofs, &proof));
                self.take_effect(effects)
            }
            EditorFrame::SessionLogout { proof } => {
                let effects =
                    self.with_session(|session, proofs| session.logout(proofs, proof.as_ref()));
                self.take_effect(effects)
            }
        }
    }

    /// Returns whether the socket has nothing to do yet: it may sign in, or resume a login.
    fn is_free(&self) -> bool {
        let is_idle = self
            .attempt
            .as_ref()
            .is_none_or(|attempt| attempt.is_untouched());
        let is_anonymous = self
            .session
            .as_ref()
            .is_none_or(|signed_in| !signed_in.is_authorized());
        is_idle && is_anonymous && self.resuming.is_none()
    }

    pub(super) fn with_session<T>(
        &mut self,
        act: impl FnOnce(&mut Session, &mut Proofs) -> T,
    ) -> T {
        let (authority, address) = (&self.shared.authority, self.address);
        let session = self
            .session
            .get_or_insert_with(|| Session::new(authority.clone(), address));
        act(session, &mut self.proofs)
    }

    fn hello(&mut self, said: &Introduction) -> Result<(), NotTaken> {
        let key = DeviceKey::from_value(&said.device_key)
            .map_err(|_cause| AuthErrorCode::BadDeviceKey)?;
        self.proofs
            .take(&said.proof, Use::Hello, None, Some(&key.thumbprint()))?;
        let attempt = self.attempt.as_mut().ok_or(AuthErrorCode::NotReady)?;
        let places = self.shared.return_places();
        let hello = Hello::new(
            &said.app,
            &said.device,
            &key,
            said.return_uri.as_deref(),
            places,
        )?;
        attempt.hello(hello)?;
        self.greet();

        Ok(())
    }

    /// Sends the values with which the editor can come back.
    fn greet(&mut self) {
        let Some(attempt) = &self.attempt else { return };
        if let Some(ticket) = attempt.ticket() {
            self.send(
                &RelayFrame::HelloOk {
                    binding: attempt.binding(),
                    ticket,
                },
                None,
            );
        }
    }

    fn complete(&mut self, code: &Secret, method: Method) -> Option<End> {
        let Some(attempt) = &mut self.attempt else {
            return self.not_now();
        };
        let actions = attempt.complete(code);
        let is_right = matches!(attempt.state(), State::Sent(_));
        tracing::info!(connection_id = %self.id, ?method, is_right, "a code was shown");
        self.carry_out(&actions)
    }

    fn acknowledge(
        &mut self,
        message_id: &str,
        ok: bool,
        reason: Option<RefusalReason>,
    ) -> Option<End> {
        let state = self.attempt.as_ref().map(|attempt| attempt.state());
        let expected = state.and_then(|state| {
            state
                .unacked()
                .or(state.receipt().map(|receipt| receipt.request_id))
        });
        if expected.is_none_or(|expected| expected.to_string() != message_id) {
            return self.complain(
                ErrorCode::NotNow,
                "there is nothing by this messageId to acknowledge",
            );
        }

        if !ok {
            tracing::info!(connection_id = %self.id, ?reason, "the editor refused the sign-in");
        }

        self.event(if ok { Event::Acked } else { Event::Refused })
    }

    fn resume(&mut self, ticket: &Secret, proof: &Secret) -> Option<End> {
        if !self.is_free()
            || self
                .session
                .as_ref()
                .is_some_and(|session| session.is_busy())
        {
            return self.not_now();
        }

        let shared = self.shared.clone();

        match Resume::start(&shared, &mut self.proofs, ticket, proof) {
            Ok(resume) => {
                self.resuming = Some(Box::new(resume));
                None
            }
            Err(refused) => self.refuse(refused),
        }
    }

    fn refuse(&mut self, refused: NotTaken) -> Option<End> {
        match refused {
            NotTaken::Otherwise(code) => self.auth_error(code, None),
            NotTaken::Proof(Unproven::TooMany) => self.take_effect(new_socket()),
            NotTaken::Proof(Unproven::Bad(why)) => {
                self.refuse_proof(why);
                self.auth_error(AuthErrorCode::BadProof, None)
            }
        }
    }

    /// Handles the answer of the login's holder.
    pub(super) fn resumed(&mut self, resume: Resume, taken: Taken) -> Option<End> {
        // First, because both may count against the same address.
        self.drop_login();
        let attempt = match resume.take(taken, self.shared.clone()) {
            Ok(attempt) => attempt,
            Err(code) => return self.auth_error(code, None),
        };

        let due = attempt.due();
        self.id = attempt.facts.id;
        self.attempt = Some(attempt);
        self.idle = None;
        self.introduce(true);
        self.greet();

        self.carry_out(due.as_slice())
    }

    /// Ends the login that this socket started with: its editor has come for something else.
    fn drop_login(&mut self) {
        if let Some(mut attempt) = self.attempt.take_if(|attempt| attempt.is_untouched()) {
            attempt.apply(Event::Cancelled);
            self.idle = Some(Idle::new(Instant::now(), self.shared.settings.sign_in_time));
        }
    }

    pub(super) fn event(&mut self, event: Event) -> Option<End> {
        let Some(attempt) = &mut self.attempt else {
            return self.not_now();
        };

        let actions = attempt.apply(event);
        let is_signed_in = self
            .session
            .as_ref()
            .is_some_and(|session| session.is_authorized());
        if let (Some(receipt), false) = (attempt.state().receipt().cloned(), is_signed_in) {
            let key = attempt
                .editor()
                .and_then(|hello| DeviceKey::from_json(&hello.jwk).ok());
            let key = key.map(|key| key.thumbprint());
            let effects = self.with_session(|session, _proofs| session.adopt(&receipt, key));
            if let Some(end) = self.take_effect(effects) {
                return Some(end);
            }
        }

        self.carry_out(&actions)
    }

    pub(super) fn carry_out(&mut self, actions: &[Action]) -> Option<End> {
        for action in actions {
            match action {
                Action::TellPending { attempts_left } => self.tell_pending(*attempts_left),
                Action::TellBadCode { attempts_left } => {
                    self.auth_error(AuthErrorCode::BadCode, Some(*attempts_left));
                }
                Action::Push => self.push_grant(),
                Action::TellDenied => self.send(&RelayFrame::AuthDenied, None),
                Action::TellExpired => self.send(&RelayFrame::AuthExpired, None),
                Action::NotNow => drop(self.complain(
                    ErrorCode::NotNow,
                    "the sign-in is past the point of this frame",
                )),
                Action::Close(code) => return Some(End::Close(*code)),
                // The login has done that itself.
                Action::Activate | Action::EndSession { .. } => {}
            }
        }

        None
    }

    pub(super) fn take_effect(&mut self, effects: Vec<Effect>) -> Option<End> {
        for effect in effects {
            match effect {
                Effect::Send(frame) => {
                    if let RelayFrame::AuthFailure {
                        retry_after_ms: Some(pause),
                        ..
                    } = &frame
                        && let Some(idle) = &mut self.idle
                    {
                        // It was told to try again, so it gets the time for it.
                        let pause = Duration::from_millis(*pause);
                        idle.extend(Instant::now() + pause + self.shared.settings.sign_in_time);
                    }
                    self.send(&frame, None);
                }
                Effect::Close(code) => return Some(End::Close(code)),
                Effect::Reached(setting) => self.shared.limits.reached.tell(setting),
                Effect::Authorized => {
                    self.drop_login();
                    self.idle = None;
                    self.ws
                        .set_max_message_bytes(self.shared.settings.max_message_bytes_signed_in);
                    if let Some(handshake) = self.handshake.take() {
                        handshake.give_back();
                    }
                }
            }
        }

        None
    }

    fn tell_pending(&mut self, attempts_left: u8) {
        let Some(attempt) = &self.attempt else { return };
        let expires_in = wire::seconds_left(attempt.expires_at(), clock::now());
        self.send(
            &RelayFrame::AuthPending {
                code_length: 8,
                attempts_left,
                expires_in,
            },
            None,
        );
    }

    fn push_grant(&mut self) {
        let Some(attempt) = &self.attempt else { return };
        let State::Sent(grant) = attempt.state() else {
            return;
        };

        let frame = wire::success(grant, clock::now());

        // A bare editor acknowledges by reading on; another one says so itself, once it has stored
        // the token.
        let is_bare = attempt.editor().is_none();
        let span = tracing::info_span!(
            parent: None,
            "push",
            otel.name = "push auth:success",
            otel.kind = "producer",
            connection_id = %self.id,
        );
        attempt.place().hang(&span);
        self.send(&frame, Some(span));

        if is_bare {
            let ping = self.pings.behind_token();
            self.push(ping, None);
        }
    }

    fn refuse_proof(&self, why: &'static str) {
        let (connection_id, session_id) = (self.id.to_string(), String::new());
        let refused = RefusedProof {
            connection_id,
            session_id,
            address: self.address,
            why,
            is_own: false,
        };
        self.shared.authority.record_proof_refused(refused);
    }

    fn auth_error(&mut self, code: AuthErrorCode, attempts_left: Option<u8>) -> Option<End> {
        let retry = (code == AuthErrorCode::NotReady).then(retry_after);
        self.send(&wire::auth_error(code, attempts_left, retry), None);
        (code == AuthErrorCode::LoginOver).then_some(End::Close(close::LOGIN_OVER))
    }

    fn not_now(&mut self) -> Option<End> {
        self.complain(
            ErrorCode::NotNow,
            "nothing on this socket asks for this frame",
        )
    }

    fn complain(&mut self, code: ErrorCode, message: &str) -> Option<End> {
        self.send(
            &RelayFrame::Error {
                code,
                message: message.to_owned(),
            },
            None,
        );
        None
    }
}
