//! Starts roles on bound ports and stops the process when one of them fails.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vvs_auth::key::Keyring;
use vvs_auth::peer::{Peers, Role};
use vvs_runtime::admin::{self, HostName, Readiness};
use vvs_runtime::http::{Limits, Listener};
use vvs_runtime::metrics::Metrics;
use vvs_runtime::origin::Origin;
use vvs_runtime::secret_file::Policy;
use vvs_runtime::tls::{Files, Identity};
use vvs_runtime::{Process, http, stop};

use crate::Error;

/// One process being built: the state that its roles share.
#[derive(Debug, Clone)]
pub struct Launch {
    pub peers: Arc<Peers>,
    pub public_url: Origin,
    pub metrics: Metrics,
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
    pub grace: Duration,
    /// How to treat new certificates that others may change.
    file_modes: Policy,
    /// The stop token and tracker of the sessions role, which serves the others until they have
    /// ended, and of the administration port.
    last: (CancellationToken, TaskTracker),
    failure: Arc<Mutex<Option<Error>>>,
}

impl Launch {
    pub fn new(peers: Peers, public_url: Origin, grace: Duration, file_modes: Policy) -> Self {
        Self {
            peers: Arc::new(peers),
            file_modes,
            public_url,
            metrics: Metrics::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            grace,
            last: (CancellationToken::new(), TaskTracker::new()),
            failure: Arc::default(),
        }
    }

    /// Creates the context of a role. Its own stop token ends only this role; the launch's ends
    /// them all.
    pub fn process(&self, role: Role, files: Files) -> Result<Process, Error> {
        let (stop, tasks) = if role == Role::Sessions {
            self.last.clone()
        } else {
            (self.stop.clone(), self.tasks.clone())
        };

        let process = Process {
            identity: Identity::load(files)?,
            metrics: self.metrics.clone(),
            readiness: Readiness::default(),
            stop: stop.child_token(),
            tasks,
            grace: self.grace,
        };
        self.watch(
            role.as_str(),
            &process.identity,
            &process.stop,
            &process.tasks,
        );

        Ok(process)
    }

    /// Picks up new certificates while the process runs.
    pub fn watch(
        &self,
        name: &'static str,
        identity: &Arc<Identity>,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) {
        let watch =
            identity
                .clone()
                .watch(name, self.file_modes, self.metrics.clone(), stop.clone());
        tasks.spawn(watch);
    }

    /// Runs a role. The process is useless without one of its roles, so a failure stops it.
    pub fn run<E: std::error::Error + Send + 'static>(
        &self,
        role: Role,
        own: CancellationToken,
        serving: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let (failure, stop) = (self.failure.clone(), self.stop.clone());
        let tasks = if role == Role::Sessions {
            &self.last.1
        } else {
            &self.tasks
        };

        tasks.spawn(async move {
            if let Err(cause) = serving.await {
                tracing::error!(role = role.as_str(), %cause, "a role stopped");
                let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                failure.get_or_insert(Error::Role {
                    role,
                    cause: cause.to_string(),
                });
            }
            if !own.is_cancelled() {
                stop.cancel();
            }
        });
    }

    /// Serves the administration port until the end: a draining process is the one that operators
    /// watch most.
    pub fn admin(
        &self,
        tcp: TcpListener,
        names: Vec<HostName>,
        parts: Vec<(&'static str, Readiness)>,
    ) {
        let limits = Limits {
            max_connections: 100,
            ..Limits::default()
        };
        let (stop, tasks) = self.last.clone();
        let server = http::Server::new(limits, self.metrics.clone(), stop, tasks.clone());
        tasks.spawn(server.serve(
            Listener { tcp, tls: None },
            admin::router(parts, self.metrics.clone(), names),
        ));
    }

    /// Waits for the order to stop, then until everything is drained or the time is over.
    pub async fn finish(self, cut: CancellationToken) -> Result<(), Error> {
        self.stop.cancelled().await;
        stop::drained(&self.tasks, self.grace, &cut).await;
        let (stop, tasks) = &self.last;
        stop.cancel();
        stop::drained(tasks, self.grace, &cut).await;
        let failure = self
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        failure.map_or(Ok(()), Err)
    }
}

/// Logs warnings at start.
pub fn warn(lines: &[String]) {
    for line in lines {
        tracing::warn!("{line}");
    }
}

/// Binds a port.
pub async fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address)
        .await
        .map_err(|source| Error::Bind {
            what,
            address,
            source,
        })
}

/// Reads a key file.
pub fn read_keys(path: &Path) -> Result<Keyring, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })?;
    Keyring::parse(&text).map_err(|source| Error::Key {
        path: path.to_owned(),
        source,
    })
}
