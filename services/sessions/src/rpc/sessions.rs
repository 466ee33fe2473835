//! `vvs.session.v1.Sessions`: users and sessions, for a web app.

use tonic::{Request, Response, Status};
use vvs_proto::session as wire;
use vvs_proto::session::list_sessions_request::User;
use vvs_proto::session::revoke_user_sessions_request::Whose as WireWhose;
use vvs_proto::session::sessions_server::Sessions;

use super::{Service, message};
use crate::Error;
use crate::audit::{AuditRow, Event};
use crate::clock::clock;
use crate::id::{SessionId, UserId};
use crate::session::{self, Last, Portion};
use crate::store::{Cause, Whose};

/// The maximum number of stale users that one call returns.
const MAX_TAKEN: u32 = 100;

impl Service {
    async fn list(
        &self,
        request: wire::ListSessionsRequest,
    ) -> Result<wire::ListSessionsResponse, Error> {
        let page = Portion::new(request.page_size, &request.page_token)?;
        let user = match request.user.ok_or(Error::Malformed { field: "user" })? {
            User::UserId(id) => Some(id.parse()?),
            User::ProviderUser(user) => self.store.user_of(&message::person(user)?).await?,
        };
        let Some(user) = user else {
            return Ok(wire::ListSessionsResponse::default());
        };

        let (sessions, has_more) = self
            .store
            .sessions_of(&user, &page, &self.terms, clock())
            .await?;
        let next_page_token = sessions
            .last()
            .filter(|_| has_more)
            .map(Last::token)
            .unwrap_or_default();

        Ok(wire::ListSessionsResponse {
            sessions: sessions.into_iter().map(message::session).collect(),
            next_page_token,
        })
    }

    async fn revoke(&self, request: wire::RevokeSessionRequest) -> Result<(), Error> {
        let cause = Cause {
            reason: request.reason().try_into()?,
            address: session::address(request.address)?,
        };
        let id: SessionId = request.session_id.parse()?;
        let owner = Some(request.user_id.as_str()).filter(|user| !user.is_empty());
        let owner = owner.map(str::parse::<UserId>).transpose()?;
        let session = self.store.session(&id).await?;

        if owner.is_some_and(|owner| owner != session.user) {
            return Err(Error::SessionUnknown(id));
        }

        self.end(id, cause, request.only_pending).await
    }

    async fn revoke_all(&self, request: wire::RevokeUserSessionsRequest) -> Result<u32, Error> {
        let cause = Cause {
            reason: request.reason().try_into()?,
            address: session::address(request.address)?,
        };
        let whose = match request.whose.ok_or(Error::Malformed { field: "whose" })? {
            WireWhose::UserId(id) => Some(Whose::User(id.parse()?)),
            WireWhose::ProviderUser(user) => {
                let user = self.store.user_of(&message::person(user)?).await?;
                user.map(Whose::User)
            }
            WireWhose::ProviderSession(session) => Some(Whose::SignIn(message::sign_in(session)?)),
        };
        let Some(whose) = whose else {
            return Ok(0);
        };

        let store = self.store.clone();
        let revoked = self
            .finish(async move { store.revoke_all(&whose, &cause, clock()).await })
            .await?;
        self.counts.revoked.inc_by(revoked.into());

        Ok(revoked)
    }

    async fn audit(&self, request: wire::RecordAuditRequest) -> Result<(), Error> {
        let event = match request.event() {
            wire::AuditEvent::Denied => Event::Denied,
            wire::AuditEvent::Unspecified => return Err(Error::Malformed { field: "event" }),
        };

        let mut entry = AuditRow::new(event).from(&session::address(request.address)?);
        entry.connection_id = session::connection_id(request.connection_id)?;

        if request.device.is_some() || request.app.is_some() {
            entry = entry.on(&message::device(request.device, request.app)?);
        }

        if let Some(user) = request.provider_user {
            let person = message::person(user)?;
            match self.store.user_of(&person).await? {
                Some(user) => user.as_str().clone_into(&mut entry.user_id),
                // Somebody who never approved anything has no id of ours.
                None => entry.reason = format!("by {} of {}", person.subject, person.provider),
            }
        }

        self.store.record(entry, clock()).await
    }
}

#[tonic::async_trait]
impl Sessions for Service {
    async fn create_session(
        &self,
        request: Request<wire::CreateSessionRequest>,
    ) -> Result<Response<wire::CreateSessionResponse>, Status> {
        self.answer(async {
            let approval = message::approval(request.into_inner())?;
            let now = clock();
            let created = self.store.create(&approval, &self.terms, now).await?;
            if created.new {
                self.counts.created.inc();
            }

            let session = &created.session;
            let token = self.sign(
                session,
                now,
                self.terms
                    .token_end(&session.device, session.expires_at, now),
            )?;

            Ok(wire::CreateSessionResponse {
                session: Some(message::session(created.session)),
                token: Some(token),
            })
        })
        .await
    }

    async fn get_session(
        &self,
        request: Request<wire::GetSessionRequest>,
    ) -> Result<Response<wire::GetSessionResponse>, Status> {
        self.answer(async {
            let session = self
                .store
                .session(&request.into_inner().session_id.parse()?)
                .await?;
            self.terms.check_live(&session, clock())?;
            Ok(wire::GetSessionResponse {
                session: Some(message::session(session)),
            })
        })
        .await
    }

    async fn list_sessions(
        &self,
        request: Request<wire::ListSessionsRequest>,
    ) -> Result<Response<wire::ListSessionsResponse>, Status> {
        self.answer(self.list(request.into_inner())).await
    }

    async fn revoke_session(
        &self,
        request: Request<wire::RevokeSessionRequest>,
    ) -> Result<Response<wire::RevokeSessionResponse>, Status> {
        self.answer(async {
            self.revoke(request.into_inner()).await?;
            Ok(wire::RevokeSessionResponse {})
        })
        .await
    }

    async fn revoke_user_sessions(
        &self,
        request: Request<wire::RevokeUserSessionsRequest>,
    ) -> Result<Response<wire::RevokeUserSessionsResponse>, Status> {
        self.answer(async {
            let revoked = self.revoke_all(request.into_inner()).await?;
            Ok(wire::RevokeUserSessionsResponse { revoked })
        })
        .await
    }

    async fn take_stale_users(
        &self,
        request: Request<wire::TakeStaleUsersRequest>,
    ) -> Result<Response<wire::TakeStaleUsersResponse>, Status> {
        self.answer(async {
            let wire::TakeStaleUsersRequest { provider, limit } = request.into_inner();
            let provider = session::required("provider", provider)?;
            if !(1..=MAX_TAKEN).contains(&limit) {
                return Err(Error::Malformed { field: "limit" });
            }
            let subjects = self
                .store
                .take_stale_users(&provider, limit, clock())
                .await?;
            Ok(wire::TakeStaleUsersResponse { subjects })
        })
        .await
    }

    async fn record_audit(
        &self,
        request: Request<wire::RecordAuditRequest>,
    ) -> Result<Response<wire::RecordAuditResponse>, Status> {
        self.answer(async {
            self.audit(request.into_inner()).await?;
            Ok(wire::RecordAuditResponse {})
        })
        .await
    }
}
