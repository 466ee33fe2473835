//! The `Relay` service: parses web's requests, puts them to the login, answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};
use tonic::{Request, Response, Status};
use vvs_auth::method;
use vvs_auth::peer::{Peers, Role};
use vvs_auth::quota::Quota;
use vvs_proto::ConnectionId;
use vvs_proto::relay::deliver_auth_response::Outcome;
use vvs_proto::relay::{
    self, Acked, DeliverAuthRequest, DeliverAuthResponse, DenyLoginRequest, DenyLoginResponse,
    GetLoginRequest, GetLoginResponse, Sent, relay_server,
};
use vvs_runtime::http::{Guard, PeerAdmission, Unadmitted};
use vvs_runtime::limit::Reached;
use vvs_runtime::metrics::count;
use vvs_runtime::rpc::{Held, MethodCheck, deadline};
use vvs_runtime::trace::code_name;

use crate::backplane;
use crate::contract::{binding, grant, known_state, login, to_the_second};
use crate::refusal::Refusal;
use crate::shared::Shared;
use crate::view::View;

/// How long `GetLogin` waits for another state.
const LOOK_TIME: Duration = Duration::from_secs(20);
/// How long `DeliverAuth` waits when its caller sets no deadline.
const DELIVER_TIME: Duration = Duration::from_secs(10);
/// How long before the caller's deadline an answer is sent, so that it arrives.
const HEADROOM: Duration = Duration::from_millis(500);

/// Checks the method table, and counts the calls of each peer under way.
pub(crate) fn check(peers: Arc<Peers>, quota: Quota, reached: Reached) -> MethodCheck {
    Arc::new(move |connection, path| {
        match method::admit(&peers, &quota, connection.certificate.as_deref(), path) {
            Ok(place) => Ok(Box::new(place) as Held),
            Err(refusal) => {
                if let vvs_auth::Error::PeerBusy { peer, setting } = &refusal {
                    reached.tell_of(setting, Some(peer));
                }
                Err(Refusal::from(refusal).into())
            }
        }
    })
}

/// Counts the connections of each peer except those in this role.
pub(crate) fn admission(peers: Arc<Peers>, quota: Quota, but: Option<Role>) -> PeerAdmission {
    Arc::new(move |certificate| {
        if but.is_some_and(|role| peers.expect(certificate, role).is_ok()) {
            return Ok(Arc::new(()) as Guard);
        }
        match method::admit_connection(&peers, &quota, certificate) {
            Ok(place) => Ok(Arc::new(place) as Guard),
            Err(setting) => Err(Unadmitted {
                reason: "connections_per_peer",
                setting,
            }),
        }
    })
}

/// Answers for every login, wherever it is held.
#[derive(Clone)]
pub(crate) struct Relay(pub(crate) Arc<Shared>);

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Relay")
    }
}

#[tonic::async_trait]
impl relay_server::Relay for Relay {
    async fn get_login(
        &self,
        request: Request<GetLoginRequest>,
    ) -> Result<Response<GetLoginResponse>, Status> {
        let time = deadline(request.metadata()).map_or(LOOK_TIME, |time| {
            time.saturating_sub(HEADROOM).min(LOOK_TIME)
        });
        let request = request.into_inner();
        let _place = self.place()?;
        let id = connection_id(&request.connection_id)?;
        let known = known_state(request.known_state)?;
        let look = |known| self.0.backplane.ask(id, backplane::Request::Look { known });

        // A caller that waits while this relay begins to stop is answered, and asks another one the
        // next time, if there is one.
        let news = if self.0.stop.is_cancelled() {
            self.0.drain.over()
        } else {
            &self.0.stop
        };

        let view = match timeout(time, news.run_until_cancelled(look(known))).await {
            Ok(Some(answer)) => answer?,
            Ok(None) | Err(_) => look(None).await?,
        };

        Ok(Response::new(login(view)))
    }

    async fn deliver_auth(
        &self,
        request: Request<DeliverAuthRequest>,
    ) -> Result<Response<DeliverAuthResponse>, Status> {
        let (started, metrics) = (Instant::now(), &self.0.metrics);
        let time =
            deadline(request.metadata()).map_or(DELIVER_TIME, |time| time.saturating_sub(HEADROOM));
        let answer = self
            .deliver(request.into_inner(), time)
            .await
            .map_err(Status::from);
        let code = answer
            .as_ref()
            .map_or_else(Status::code, |_| tonic::Code::Ok);
        count(&metrics.deliveries, "code", code_name(code));
        metrics
            .delivery_seconds
            .observe(started.elapsed().as_secs_f64());

        answer.map(Response::new)
    }

    async fn deny_login(
        &self,
        request: Request<DenyLoginRequest>,
    ) -> Result<Response<DenyLoginResponse>, Status> {
        let _place = self.place()?;
        let id = connection_id(&request.into_inner().connection_id)?;
        self.0.backplane.ask(id, backplane::Request::Deny).await?;
        Ok(Response::new(DenyLoginResponse {}))
    }
}

impl Relay {
    /// Takes a place among the calls under way.
    fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.0.limits.call().ok_or(Refusal::Overloaded)
    }

    async fn deliver(
        &self,
        request: DeliverAuthRequest,
        time: Duration,
    ) -> Result<DeliverAuthResponse, Refusal> {
        let _place = self.place()?;
        let id = connection_id(&request.connection_id)?;
        let grant = grant(request)?;
        let asking = self
            .0
            .backplane
            .ask(id, backplane::Request::Deliver(Box::new(grant)));

        match timeout(time, asking).await {
            Ok(answer) => Ok(DeliverAuthResponse {
                outcome: Some(self.outcome(id, answer?)),
            }),
            // The push is out and its acknowledgement is not in; the login's own task goes on.
            Err(_) => Ok(DeliverAuthResponse {
                outcome: Some(Outcome::Sent(Sent {})),
            }),
        }
    }

    fn outcome(&self, id: ConnectionId, view: View) -> Outcome {
        // Held is held, also while its editor is away: the person needs the code when it comes
        // back.
        if let Some(request_id) = view.held {
            let code = self.0.keys.completion_code(id, request_id);
            return Outcome::Held(relay::Held {
                code: code.expose().to_owned(),
                return_uri: view
                    .hello
                    .and_then(|hello| hello.return_uri)
                    .unwrap_or_default(),
                min_binding: binding(self.0.settings.min_binding.into()).into(),
            });
        }

        match view.acked_at {
            Some(at) => Outcome::Acked(Acked {
                at: Some(to_the_second(at)),
            }),
            None => Outcome::Sent(Sent {}),
        }
    }
}

fn connection_id(text: &str) -> Result<ConnectionId, Refusal> {
    text.parse().map_err(|_malformed| Refusal::Malformed {
        field: "connection_id",
    })
}
