//! `vvs.internal.v1.Editors`: what relays ask for their editors.

use tonic::{Request, Response, Status};
use vvs_auth::proof::{Expected, Use};
use vvs_auth::token;
use vvs_proto::internal::editors_server::Editors;
use vvs_proto::internal::{
    self, ActivateSessionsRequest, ActivateSessionsResponse, EndSessionRequest, EndSessionResponse,
    NotActivated, RecordRefusedProofRequest, RecordRefusedProofResponse,
};

use super::{Service, message};
use crate::Error;
use crate::audit::{AuditRow, Event};
use crate::clock::clock;
use crate::id::SessionId;
use crate::session;
use crate::store::{Activated, Cause};

/// The maximum number of sessions that one call activates.
pub(super) const MAX_ACTIVATED: usize = 100;

impl Service {
    async fn refresh(
        &self,
        request: internal::RefreshTokenRequest,
    ) -> Result<internal::RefreshTokenResponse, Error> {
        let id: SessionId = request.session_id.parse()?;
        let address = session::address(request.address)?;
        let shown = Some(request.token.as_str()).filter(|token| !token.is_empty());
        let uses = if shown.is_some() {
            [Use::Authenticate]
        } else {
            [Use::Refresh]
        };

        let expected = Expected {
            audience: &self.terms.issuer,
            nonce: &request.nonce,
            uses: &uses,
            token: shown,
        };
        let key = self.prove(&request.proof, &expected, &id, &address).await?;
        self.refreshes.count(&id, &key)?;
        let now = clock();
        let refreshed = match self
            .store
            .refresh(&id, &key, &address, &self.terms, now)
            .await
        {
            Err(unknown @ (Error::KeyMismatch(_) | Error::SessionUnknown(_))) => {
                let kid = shown
                    .map_or(Some(request.key_id), token::key_id)
                    .and_then(session::key_id);
                return Err(self.unknown(unknown, id, kid).await);
            }
            done => done?,
        };

        self.counts.refreshed.inc();
        if refreshed.activated {
            self.counts.activated.inc();
        }

        let token = self.sign(&refreshed.session, now, refreshed.token_end)?;

        Ok(internal::RefreshTokenResponse {
            token: Some(token),
            session: Some(message::session(refreshed.session)),
        })
    }

    async fn activate(
        &self,
        sessions: Vec<(SessionId, String)>,
    ) -> Result<Vec<(SessionId, Result<Activated, Error>)>, Error> {
        let outcomes = self
            .store
            .activate_all(sessions, &self.terms, clock())
            .await?;
        let new = outcomes
            .iter()
            .filter(|(_, outcome)| outcome.as_ref().is_ok_and(|activated| activated.new))
            .count();
        self.counts.activated.inc_by(new as u64);
        Ok(outcomes)
    }

    /// Reports one of several sessions that was not activated. It is counted and logged like a
    /// separate call.
    fn not_activated(&self, session_id: String, error: &Error) -> NotActivated {
        self.counts.failed(error);
        error.log();
        NotActivated {
            session_id,
            reason: error.outside().1.into(),
        }
    }

    async fn sign_out(&self, request: EndSessionRequest) -> Result<(), Error> {
        let cause = Cause {
            reason: request.reason().try_into()?,
            address: session::address(request.address)?,
        };
        let id: SessionId = request.session_id.parse()?;
        let session = match self.store.session(&id).await {
            Err(unknown @ Error::SessionUnknown(_)) if !request.key_id.is_empty() => {
                let kid = session::key_id(request.key_id);
                return Err(self.unknown(unknown, id, kid).await);
            }
            found => found?,
        };

        if let (Some(key), false) = (&session.device.key, request.only_pending) {
            let expected = Expected {
                audience: &self.terms.issuer,
                nonce: &request.nonce,
                uses: &[Use::Logout],
                token: None,
            };
            if self
                .prove(&request.proof, &expected, &id, &cause.address)
                .await?
                != key.thumbprint()
            {
                let kid = session::key_id(request.key_id);
                return Err(self.unknown(Error::KeyMismatch(session.id), id, kid).await);
            }
        }

        self.end(id, cause, request.only_pending).await
    }

    async fn record_refused(&self, request: RecordRefusedProofRequest) -> Result<(), Error> {
        let mut entry =
            AuditRow::new(Event::ProofRefused).from(&session::address(request.address)?);
        entry.connection_id = session::connection_id(request.connection_id)?;

        if !request.session_id.is_empty() {
            request
                .session_id
                .parse::<SessionId>()?
                .as_str()
                .clone_into(&mut entry.session_id);
        }

        self.store.record(entry, clock()).await
    }
}

#[tonic::async_trait]
impl Editors for Service {
    async fn activate_sessions(
        &self,
        request: Request<ActivateSessionsRequest>,
    ) -> Result<Response<ActivateSessionsResponse>, Status> {
        self.answer(async {
            let asked = request.into_inner().activations;
            if asked.len() > MAX_ACTIVATED {
                return Err(Error::Malformed {
                    field: "activations",
                });
            }

            let (mut sessions, mut not_activated) = (Vec::new(), Vec::new());
            for one in asked {
                let session_id = one.session_id.clone();
                match message::activation(one) {
                    Ok(session) => sessions.push(session),
                    Err(error) => not_activated.push(self.not_activated(session_id, &error)),
                }
            }

            for (id, outcome) in self.activate(sessions).await? {
                if let Err(error) = outcome {
                    not_activated.push(self.not_activated(id.as_str().to_owned(), &error));
                }
            }

            Ok(ActivateSessionsResponse { not_activated })
        })
        .await
    }

    async fn refresh_token(
        &self,
        request: Request<internal::RefreshTokenRequest>,
    ) -> Result<Response<internal::RefreshTokenResponse>, Status> {
        self.answer(self.refresh(request.into_inner())).await
    }

    async fn end_session(
        &self,
        request: Request<EndSessionRequest>,
    ) -> Result<Response<EndSessionResponse>, Status> {
        self.answer(async {
            self.sign_out(request.into_inner()).await?;
            Ok(EndSessionResponse {})
        })
        .await
    }

    async fn record_refused_proof(
        &self,
        request: Request<RecordRefusedProofRequest>,
    ) -> Result<Response<RecordRefusedProofResponse>, Status> {
        self.answer(async {
            self.record_refused(request.into_inner()).await?;
            Ok(RecordRefusedProofResponse {})
        })
        .await
    }
}
