//! An address of which a test decides where it leads, and which it can cut, close and slow down.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::front::bound;

/// Passes connections on. Dropping it cuts them all.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    way: Way,
    /// Keeps the port while nobody listens, so that a connection is refused and does not find
    /// someone else.
    _reserved: TcpSocket,
    passing: Mutex<JoinSet<()>>,
}

#[derive(Debug, Clone, Default)]
struct Way {
    target: Arc<Mutex<Option<SocketAddr>>>,
    cuts: watch::Sender<()>,
    delay_ms: Arc<AtomicU64>,
}

impl Wire {
    /// One that leads nowhere yet. Within a runtime.
    pub fn new() -> Self {
        let reserved = bound(([127, 0, 0, 1], 0).into());
        let address = reserved.local_addr().unwrap();
        let wire = Self {
            address,
            way: Way::default(),
            _reserved: reserved,
            passing: Mutex::default(),
        };
        wire.accept();
        wire
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// New connections go there. Those that are open stay.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.way.target.lock().unwrap() = Some(target);
    }

    /// Cuts what is open, and lets nothing through.
    pub fn cut(&self) {
        *self.way.target.lock().unwrap() = None;
        self.way.cuts.send_replace(());
    }

    /// Cuts what is open, and lets the kernel refuse what comes.
    pub async fn refuse(&self) {
        let mut passing = std::mem::take(&mut *self.passing.lock().unwrap());
        passing.shutdown().await;
    }

    /// Ends [`Wire::refuse`].
    pub fn accept(&self) {
        let listener = bound(self.address).listen(1024).unwrap();
        self.passing
            .lock()
            .unwrap()
            .spawn(serve(listener, self.way.clone()));
    }

    /// From now on everything takes that much longer in each direction, on open connections too.
    pub fn slow_down(&self, delay: Duration) {
        self.way
            .delay_ms
            .store(delay.as_millis().try_into().unwrap(), Ordering::Relaxed);
    }
}

impl Default for Wire {
    fn default() -> Self {
        Self::new()
    }
}

async fn serve(listener: TcpListener, way: Way) {
    let mut connections = JoinSet::new();
    loop {
        let (near, _) = listener.accept().await.unwrap();
        // What has ended must not be kept.
        while connections.try_join_next().is_some() {}
        let target = *way.target.lock().unwrap();
        if let Some(target) = target {
            connections.spawn(pass(near, target, way.clone()));
        }
    }
}

async fn pass(near: TcpStream, target: SocketAddr, way: Way) {
    let mut cuts = way.cuts.subscribe();
    let passing = async {
        let far = TcpStream::connect(target).await?;
        for stream in [&near, &far] {
            stream.set_nodelay(true)?;
        }
        let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
        tokio::try_join!(
            carry(from_near, to_far, &way.delay_ms),
            carry(from_far, to_near, &way.delay_ms)
        )
    };

    tokio::select! {
        _ = passing => {}
        _ = cuts.changed() => {}
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    delay_ms: &AtomicU64,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        let delay = delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}
