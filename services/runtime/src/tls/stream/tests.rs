//! Each side of ours against the other side of the buffered interface, which nearly all other
//! programs use.

use proptest::collection::vec;
use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

type Theirs = tokio_rustls::TlsStream<DuplexStream>;

struct Configs {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

fn configs(version: &'static rustls::SupportedProtocolVersion) -> Configs {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[version])
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();

    Configs {
        server: Arc::new(
            server
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], key)
                .unwrap(),
        ),
        client: Arc::new(client.with_root_certificates(roots).with_no_client_auth()),
    }
}

fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

/// Our server and their client.
async fn connected(configs: &Configs) -> (Accepted<DuplexStream>, Theirs) {
    let (near, far) = duplex(64 * 1024);
    let theirs = TlsConnector::from(configs.client.clone());
    let (ours, theirs) = tokio::join!(
        accept(configs.server.clone(), near),
        theirs.connect(name(), far)
    );
    (ours.unwrap(), theirs.unwrap().into())
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| u8::try_from(at % 251).unwrap())
        .collect()
}

/// Sends more than fits on the way while as much arrives, and says that nothing follows.
async fn exchange(
    stream: impl Future<Output = io::Result<impl AsyncRead + AsyncWrite + Unpin>>,
    length: usize,
) {
    let (mut read, mut write) = tokio::io::split(stream.await.unwrap());
    let (sent, mut received) = (bytes(length), Vec::new());
    let writing = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };

    tokio::join!(writing, async {
        read.read_to_end(&mut received).await.unwrap()
    });
    assert!(
        received == sent,
        "{} of {length} bytes came",
        received.len()
    );
}

#[tokio::test]
async fn what_is_sent_arrives_whole_both_ways_however_little_fits_on_the_way() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let Configs { server, client } = configs(version);
        for (room, length) in [(10, 3_000), (100, 50_000), (20_000, 300_000)] {
            let (near, far) = duplex(room);
            let theirs = TlsConnector::from(client.clone()).connect(name(), far);
            tokio::join!(
                exchange(accept(server.clone(), near), length),
                exchange(theirs, length)
            );
            let (near, far) = duplex(room);
            let theirs = TlsAcceptor::from(server.clone()).accept(far);
            tokio::join!(
                exchange(connect(client.clone(), name(), near), length),
                exchange(theirs, length)
            );
        }
    }
}

#[tokio::test]
async fn nothing_is_held_while_nothing_is_under_way() {
    let (mut ours, mut theirs) = connected(&configs(&rustls::version::TLS13)).await;
    let holds = |stream: &Accepted<_>| {
        [&stream.received, &stream.opened, &stream.sealed].map(BytesMut::capacity)
    };
    assert_eq!(holds(&ours), [0; 3], "behind the handshake");

    theirs.write_all(&bytes(20_000)).await.unwrap();
    theirs.flush().await.unwrap();
    ours.read_exact(&mut vec![0; 20_000]).await.unwrap();
    ours.write_all(&bytes(20_000)).await.unwrap();
    ours.flush().await.unwrap();
    let more = poll_fn(|cx| {
        Poll::Ready(
            Pin::new(&mut ours)
                .poll_read(cx, &mut ReadBuf::new(&mut [0]))
                .is_ready(),
        )
    })
    .await;
    assert!(!more);
    assert_eq!(holds(&ours), [0; 3]);
}

#[tokio::test]
async fn bytes_that_were_not_asked_for_yet_are_kept() {
    let (mut ours, mut theirs) = connected(&configs(&rustls::version::TLS13)).await;
    theirs.write_all(b"hello").await.unwrap();
    theirs.flush().await.unwrap();
    let mut letters = Vec::new();
    for _ in 0..5 {
        letters.push(ours.read_u8().await.unwrap());
    }
    assert_eq!(letters, b"hello");
}

#[tokio::test]
async fn parts_that_are_written_at_once_arrive_in_their_order() {
    let (mut ours, mut theirs) = connected(&configs(&rustls::version::TLS13)).await;
    let (head, body) = (bytes(100), bytes(RECORD));
    let parts = [IoSlice::new(&head), IoSlice::new(&[]), IoSlice::new(&body)];
    let written = ours.write_vectored(&parts).await.unwrap();
    assert_eq!(written, RECORD, "one record");
    ours.flush().await.unwrap();
    let mut received = vec![0; written];
    theirs.read_exact(&mut received).await.unwrap();
    assert!(received == [head, body].concat()[..RECORD]);
}

#[tokio::test]
async fn a_connection_that_was_cut_is_not_one_that_ended() {
    let configs = configs(&rustls::version::TLS13);
    let (mut ours, mut theirs) = connected(&configs).await;
    theirs.shutdown().await.unwrap();
    assert_eq!(ours.read(&mut [0]).await.unwrap(), 0);

    ours.write_all(b"still").await.unwrap();
    ours.shutdown().await.unwrap();
    assert_eq!(
        ours.write(b"too late").await.unwrap_err().kind(),
        io::ErrorKind::BrokenPipe
    );

    let mut last = Vec::new();
    theirs.read_to_end(&mut last).await.unwrap();
    assert_eq!(last, b"still");

    let (mut ours, theirs) = connected(&configs).await;
    let Theirs::Client(client) = theirs else {
        unreachable!()
    };

    drop(client.into_inner().0);
    assert_eq!(
        ours.read(&mut [0]).await.unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
}

#[tokio::test]
async fn a_record_that_is_not_genuine_is_refused_once_and_for_all() {
    let (mut ours, theirs) = connected(&configs(&rustls::version::TLS13)).await;
    let Theirs::Client(client) = theirs else {
        unreachable!()
    };

    let mut wire = client.into_inner().0;
    let mut forged = vec![23, 3, 3, 0, 32];
    forged.resize(5 + 32, 7);
    wire.write_all(&forged.repeat(2)).await.unwrap();
    assert_eq!(
        ours.read(&mut [0]).await.unwrap_err().kind(),
        io::ErrorKind::InvalidData
    );
    assert_eq!(
        ours.read(&mut [0]).await.unwrap_err().kind(),
        io::ErrorKind::BrokenPipe
    );
    assert_eq!(
        ours.write(b"more").await.unwrap_err().kind(),
        io::ErrorKind::BrokenPipe
    );

    ours.shutdown().await.unwrap();
    let mut alert = Vec::new();
    wire.read_to_end(&mut alert).await.unwrap();
    assert!(
        alert
            .last_chunk::<24>()
            .is_some_and(|record| record.starts_with(&[23, 3, 3, 0, 19])),
        "{alert:?}"
    );
}

#[tokio::test]
async fn new_keys_are_taken_and_answered() {
    let (mut ours, mut theirs) = connected(&configs(&rustls::version::TLS13)).await;
    for _ in 0..3 {
        let Theirs::Client(client) = &mut theirs else {
            unreachable!()
        };

        client.get_mut().1.refresh_traffic_keys().unwrap();
        theirs.write_all(b"ping").await.unwrap();
        theirs.flush().await.unwrap();
        let mut four = [0; 4];
        ours.read_exact(&mut four).await.unwrap();
        ours.write_all(&four).await.unwrap();
        ours.flush().await.unwrap();
        theirs.read_exact(&mut four).await.unwrap();
        assert_eq!(&four, b"ping");
    }
}

#[tokio::test]
async fn whoever_is_not_believed_hears_why() {
    let (right, wrong) = (
        configs(&rustls::version::TLS13),
        configs(&rustls::version::TLS13),
    );
    let (near, far) = duplex(64 * 1024);
    let theirs = TlsAcceptor::from(wrong.server);
    let (ours, theirs) = tokio::join!(connect(right.client, name(), near), theirs.accept(far));
    assert_eq!(ours.unwrap_err().kind(), io::ErrorKind::InvalidData);
    assert!(theirs.unwrap_err().to_string().contains("fatal alert"));
}

#[tokio::test]
async fn what_is_not_tls_or_has_no_end_is_refused() {
    let configs = configs(&rustls::version::TLS13);
    let handshake = async |sent: Vec<u8>| {
        let (near, mut far) = duplex(1024 * 1024);
        far.write_all(&sent).await.unwrap();
        drop(far);
        accept(configs.server.clone(), near).await.unwrap_err()
    };
    assert_eq!(
        handshake(b"GET / HTTP/1.1\r\n\r\n".to_vec()).await.kind(),
        io::ErrorKind::InvalidData
    );

    // A ClientHello (type 1) of 8 MiB, in records of 16 KiB.
    let mut first = vec![1, 0x80, 0, 0];
    first.resize(RECORD, 0);
    let record = |fragment: &[u8]| [&[22, 3, 3, 0x40, 0][..], fragment].concat();
    let endless = [record(&first), record(&bytes(RECORD)).repeat(10)].concat();
    assert_eq!(handshake(endless).await.kind(), io::ErrorKind::InvalidData);

    // One of 60,000 bytes, which is not too long, in records of one byte each.
    let crumbs: Vec<_> = [&[1, 0, 0xea, 0x60][..], &bytes(50_000)].concat();
    let crumbs = crumbs
        .iter()
        .flat_map(|byte| [22, 3, 3, 0, 1, *byte])
        .collect();
    assert_eq!(handshake(crumbs).await.kind(), io::ErrorKind::InvalidData);
}

/// The seeds from which the fuzzer starts.
#[test]
fn whoever_plays_with_records_as_the_seeds_do_changes_nothing_of_what_arrives() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/stream");
    let seeds: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|seed| seed.unwrap().path())
        .collect();
    assert!(seeds.len() >= 40, "{seeds:?}");
    for seed in seeds {
        let played = std::panic::catch_unwind(|| play::play(&std::fs::read(&seed).unwrap()));
        assert!(played.is_ok(), "{}", seed.display());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Most events of a connection happen after its handshake.
    #[test]
    fn whatever_is_done_to_records_nothing_false_arrives_and_nobody_waits(
        choice in 0..4_u8,
        shakes in any::<bool>(),
        steps in vec((0..16_u8, any::<u8>()), 0..80),
    ) {
        let mut input = vec![choice];
        if shakes {
            input.extend([1, 255, 2, 0].repeat(4));
        }
        input.extend(steps.into_iter().flat_map(|(step, amount)| [step, amount]));
        play::play(&input);
    }
}
