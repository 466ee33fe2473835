//! The public view of a login.

use std::net::IpAddr;

use time::OffsetDateTime;
use vvs_proto::frame::Binding;
use vvs_proto::{Phase, RequestId};

use crate::hello::Hello;

/// A view of a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) phase: Phase,
    pub(crate) user_code: String,
    pub(crate) client_address: IpAddr,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) expires_at: OffsetDateTime,
    pub(crate) acked_at: Option<OffsetDateTime>,
    pub(crate) binding: Binding,
    /// The editor's introduction, if it sent one.
    pub(crate) hello: Option<Hello>,
    /// The delivery that waits for its code.
    pub(crate) held: Option<RequestId>,
}
