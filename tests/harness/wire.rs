//! An address of which a test decides where it leads, and which it can cut.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Passes connections on. Dropping it cuts them all.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    target: Arc<Mutex<Option<SocketAddr>>>,
    cuts: watch::Sender<()>,
    _passing: JoinSet<()>,
}

impl Wire {
    /// One that leads nowhere yet.
    pub async fn new() -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let target = Arc::<Mutex<Option<SocketAddr>>>::default();
        let (cuts, mut passing) = (watch::Sender::new(()), JoinSet::new());
        let (leading, cut) = (target.clone(), cuts.clone());
        passing.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (near, _) = tcp.accept().await.unwrap();
                let target = *leading.lock().unwrap();
                if let Some(target) = target {
                    connections.spawn(pass(near, target, cut.subscribe()));
                }
            }
        });
        Self { address, target, cuts, _passing: passing }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// New connections go there. Those that are open stay.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.target.lock().unwrap() = Some(target);
    }

    /// Cuts what is open, and lets nothing through.
    pub fn cut(&self) {
        *self.target.lock().unwrap() = None;
        self.cuts.send_replace(());
    }
}

async fn pass(mut near: TcpStream, target: SocketAddr, mut cuts: watch::Receiver<()>) {
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => {}
        _ = cuts.changed() => {}
    }
}
