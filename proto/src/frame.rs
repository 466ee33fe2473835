//! The JSON text frames of the editor's WebSocket, `GET /ws`. The relay and the editor define what
//! they mean.

use serde::{Deserialize, Serialize};

pub use crate::secret::Secret;

/// Close codes of the WebSocket. 4000 to 4499 ask the editor to reconnect, 4500 and above tell it
/// not to.
pub mod close {
    /// The editor ended it, or everything is done.
    pub const NORMAL: u16 = 1000;
    /// A message was longer than the limit (RFC 6455, section 7.4.1).
    pub const TOO_BIG: u16 = 1009;
    /// The server is draining, or the editor must authenticate again.
    pub const RECONNECT: u16 = 4000;
    /// The editor reads too slowly.
    pub const TOO_SLOW: u16 = 4001;
    /// No pong came in time.
    pub const NO_PONG: u16 = 4002;
    /// Too many messages.
    pub const RATE_LIMITED: u16 = 4003;
    /// The session was revoked.
    pub const REVOKED: u16 = 4500;
    /// The credential is not valid.
    pub const BAD_CREDENTIAL: u16 = 4501;
    /// Not a frame of this protocol.
    pub const PROTOCOL_ERROR: u16 = 4502;
    /// The login ended without a sign-in.
    pub const LOGIN_OVER: u16 = 4503;
}

/// The subprotocol that is echoed when the editor offers it.
pub const SUBPROTOCOL: &str = "vvs.auth.v1";

/// How the browser that approves is tied to the editor that asked; later is stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Binding {
    Confirm,
    Typed,
    Link,
}

/// Nearly every frame of a relay fits, so the buffer is not moved while it grows.
const FRAME_BYTES: usize = 2048;

/// When the relay pings, and how long it waits for the pong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    pub interval_ms: u64,
    pub timeout_ms: u64,
}

/// The user who signed in; `null` where unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    pub id: String,
    pub email: Option<String>,
    pub name: Option<String>,
    pub avatar_url: Option<String>,
}

/// The signed-in user, with the data of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserId {
    pub id: String,
}

/// The session that a token belongs to. `expires_at` is RFC 3339, `expires_in` whole seconds from
/// `serverTime`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    pub id: String,
    pub expires_at: String,
    pub expires_in: u64,
}

/// Program name and version, as the editor reports them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    pub name: String,
    pub version: String,
}

/// Device name and operating system, as the editor reports them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub name: String,
    pub os: String,
}

/// Frames that a relay sends. Unknown members are ignored, so that old editors can read frames of
/// new relays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum RelayFrame {
    /// The first frame on every socket. The members of the login are absent on `/ws?for=session`.
    #[serde(rename = "connection")]
    Connection {
        connection_id: String,
        /// `XXXX-XXXX`, as the editor and the approval page show it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user_code: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        login_url: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_in: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<String>,
        server_time: String,
        /// 16 random bytes, base64url. Proofs on this socket are made over it.
        nonce: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        binding: Option<Binding>,
        heartbeat: Heartbeat,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resumed: Option<bool>,
    },
    #[serde(rename = "hello:ok")]
    HelloOk { binding: Binding, ticket: Secret },
    /// The person approved; a code is on its way.
    #[serde(rename = "auth:pending")]
    AuthPending {
        code_length: u8,
        attempts_left: u8,
        expires_in: u64,
    },
    #[serde(rename = "auth:success")]
    AuthSuccess {
        token: Secret,
        user: User,
        message_id: String,
        session: Session,
        token_expires_at: String,
        token_expires_in: u64,
        server_time: String,
    },
    #[serde(rename = "auth:denied")]
    AuthDenied,
    #[serde(rename = "auth:expired")]
    AuthExpired,
    /// Something about the login went wrong; the socket stays open unless a close follows.
    #[serde(rename = "auth:error")]
    AuthError {
        code: AuthErrorCode,
        message: String,
        retryable: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempts_left: Option<u8>,
    },
    #[serde(rename = "auth:ok")]
    AuthOk {
        user: UserId,
        session: Session,
        server_time: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<Secret>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token_expires_at: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token_expires_in: Option<u64>,
    },
    /// `terminal` only when the sessions role itself has said that the session is over.
    #[serde(rename = "auth:failure")]
    AuthFailure {
        code: FailureCode,
        message: String,
        terminal: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
    #[serde(rename = "auth:token")]
    AuthToken {
        token: Secret,
        token_expires_at: String,
        token_expires_in: u64,
    },
    #[serde(rename = "session:revoked")]
    SessionRevoked { reason: String },
    #[serde(rename = "session:expiring")]
    SessionExpiring { expires_in: u64 },
    #[serde(rename = "session:ended")]
    SessionEnded,
    /// The editor reconnects after `after_ms`; a close with 4000 follows.
    #[serde(rename = "reconnect")]
    Reconnect { after_ms: u64, reason: String },
    #[serde(rename = "ping")]
    Ping,
    #[serde(rename = "pong")]
    Pong,
    /// The last frame was invalid here; the socket stays open.
    #[serde(rename = "error")]
    Error { code: ErrorCode, message: String },
}

/// Codes of `auth:error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthErrorCode {
    BadCode,
    TooLate,
    BadReturnUri,
    BadDeviceKey,
    BadProof,
    BadTicket,
    NotReady,
    LoginOver,
}

/// Codes of `auth:failure`. The first four are terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    Revoked,
    Expired,
    /// Also sent to an editor that proves a key other than the session's, so that no stranger
    /// learns which sessions exist.
    UnknownSession,
    /// Sent by earlier relays; now it is [`FailureCode::UnknownSession`].
    KeyMismatch,
    Unavailable,
    BadToken,
    BadProof,
    StaleFeed,
    TokenExpired,
}

/// Codes of `error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    UnknownType,
    Malformed,
    NotNow,
}

impl RelayFrame {
    /// Returns the frame as it is sent.
    pub fn to_json(&self) -> String {
        let mut json = Vec::with_capacity(FRAME_BYTES);
        // Neither can fail: all keys are strings, and JSON is UTF-8.
        serde_json::to_writer(&mut json, self).unwrap_or_default();
        String::from_utf8(json).unwrap_or_default()
    }
}

/// How the completion code reached the editor; for the audit log only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    Link,
    Typed,
}

/// Why an editor refuses a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    StoreFailed,
    AccountRejected,
}

/// Frames that an editor sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum EditorFrame {
    #[serde(rename = "hello")]
    Hello {
        app: App,
        device: Device,
        /// JWK, EC P-256, public.
        device_key: serde_json::Value,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        return_uri: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        locale: Option<String>,
        proof: Secret,
    },
    #[serde(rename = "auth:complete")]
    AuthComplete { code: Secret, method: Method },
    #[serde(rename = "auth:ack")]
    AuthAck {
        message_id: String,
        ok: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<RefusalReason>,
    },
    #[serde(rename = "auth:cancel")]
    AuthCancel,
    #[serde(rename = "resume")]
    Resume { ticket: Secret, proof: Secret },
    #[serde(rename = "authenticate")]
    Authenticate {
        token: Secret,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        proof: Option<Secret>,
    },
    #[serde(rename = "token:refresh")]
    TokenRefresh { proof: Secret },
    #[serde(rename = "session:logout")]
    SessionLogout {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        proof: Option<Secret>,
    },
    #[serde(rename = "ping")]
    Ping,
    #[serde(rename = "pong")]
    Pong,
}

/// The `type`s of [`EditorFrame`], to tell an unknown type from wrong members.
const EDITOR_TYPES: [&str; 10] = [
    "hello",
    "auth:complete",
    "auth:ack",
    "auth:cancel",
    "resume",
    "authenticate",
    "token:refresh",
    "session:logout",
    "ping",
    "pong",
];

/// Why a text is not a frame of an editor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseError {
    /// Not JSON, not an object, or without a string `type`: the socket is closed.
    NotAFrame,
    /// A `type` that this version does not know: answered, and the socket stays open.
    UnknownType,
    /// A known `type` with wrong members: answered, and the socket stays open.
    Malformed,
}

impl EditorFrame {
    /// Reads one text message.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        #[derive(Deserialize)]
        struct Tagged {
            r#type: String,
        }

        // A struct would also be read from an array; a frame is an object.
        if !text.trim_start().starts_with('{') {
            return Err(ParseError::NotAFrame);
        }

        let tagged: Tagged = serde_json::from_str(text).map_err(|_cause| ParseError::NotAFrame)?;

        serde_json::from_str(text).map_err(|_cause| {
            if EDITOR_TYPES.contains(&tagged.r#type.as_str()) {
                ParseError::Malformed
            } else {
                ParseError::UnknownType
            }
        })
    }

    /// Returns the frame as it is sent.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
