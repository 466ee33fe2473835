//! What others see of a login.

use std::net::IpAddr;

use time::OffsetDateTime;
use vvs_proto::frame::Binding;
use vvs_proto::{Phase, RequestId};

use crate::hello::Hello;

/// What a login says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) phase: Phase,
    pub(crate) user_code: String,
    pub(crate) client_address: IpAddr,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) expires_at: OffsetDateTime,
    pub(crate) acked_at: Option<OffsetDateTime>,
    pub(crate) binding: Binding,
    /// What the editor said of itself, when it did.
    pub(crate) hello: Option<Hello>,
    /// The delivery that waits for its code.
    pub(crate) held: Option<RequestId>,
}
