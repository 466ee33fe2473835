//! An address of which a test decides where it leads, and which it can cut.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Passes connections on. Dropping it cuts them all.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    target: Arc<watch::Sender<Option<SocketAddr>>>,
    _passing: JoinSet<()>,
}

impl Wire {
    /// One that leads nowhere yet.
    pub async fn new() -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let target = Arc::new(watch::Sender::new(None));
        let mut passing = JoinSet::new();
        let watched = target.clone();
        passing.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (near, _) = tcp.accept().await.unwrap();
                connections.spawn(pass(near, watched.subscribe()));
            }
        });
        Self { address, target, _passing: passing }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts what is open, and leads there from now on.
    pub fn lead_to(&self, target: SocketAddr) {
        self.target.send_replace(Some(target));
    }

    /// Cuts what is open, and lets nothing through.
    pub fn cut(&self) {
        self.target.send_replace(None);
    }

    /// Cuts what is open, and leads where it led before.
    pub fn cut_once(&self) {
        let target = *self.target.borrow();
        self.target.send_replace(target);
    }
}

async fn pass(mut near: TcpStream, mut watched: watch::Receiver<Option<SocketAddr>>) {
    let Some(target) = *watched.borrow_and_update() else { return };
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => {}
        _ = watched.changed() => {}
    }
}
