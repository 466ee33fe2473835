//! A private PostgreSQL: one cluster for a test binary, on a free port, and a database of its own
//! for each test. It ends, and its files go, when the test process ends, however that ends.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tokio::sync::OnceCell;

/// What nobody may find in a log.
pub const PASSWORD: &str = "opens-the-test-cluster";

/// How clients sign in, in production too.
const SCRAM: &str = "scram-sha-256";

/// Makes the cluster, says where, and runs the server whenever it is told to. The end of its input
/// is the end of the process that started it.
const KEEPER: &str = r#"
set -eu
dir=$(mktemp -d "${TMPDIR:-/tmp}/vvs-postgres.XXXXXX")
server=
stop() { [ -z "$server" ] || { kill -CONT "$server"; kill -"$1" "$server"; wait "$server"; server=; } 2>/dev/null || :; }
trap 'stop QUIT; rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
printf %s "$2" > "$dir/password"
initdb -D "$dir/data" -U vvs -A "$5" --pwfile="$dir/password" -E UTF8 --locale=C --no-sync >"$dir/log" 2>&1 ||
    { cat "$dir/log" >&2; exit 1; }
if [ -n "$3" ]; then
    printf %s "$3" >"$dir/server.crt"
    (umask 077 && printf %s "$4" >"$dir/server.key")
    printf "ssl = on\nssl_cert_file = '%s'\nssl_key_file = '%s'\n" "$dir/server.crt" "$dir/server.key" \
        >>"$dir/data/postgresql.conf"
fi
echo "$dir"
while read -r word; do
    case $word in
        start)
            postgres -D "$dir/data" -c listen_addresses=127.0.0.1 -c port="$1" -c unix_socket_directories="$dir" \
                -c fsync=off -c max_connections=200 -c shared_buffers=16MB >>"$dir/log" 2>&1 </dev/null &
            server=$! ;;
        stop) stop INT ;;
        kill) stop QUIT ;;
    esac
    echo "$word"
done
"#;

/// A cluster.
#[derive(Debug)]
pub struct Postgres {
    keeper: std::sync::Mutex<(Child, BufReader<std::process::ChildStdout>)>,
    port: u16,
    folder: PathBuf,
    databases: AtomicU32,
}

impl Postgres {
    /// The one of this test binary. Whoever stops it needs one of his own.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        // Without a hash, which takes a program that is not optimized too long when a fault has
        // emptied its pool.
        SHARED
            .get_or_init(|| Self::start_with("", "", "password"))
            .await
    }

    /// A new one, running.
    pub async fn start() -> Self {
        Self::start_with("", "", SCRAM).await
    }

    /// A new one that has this certificate, in PEM with its key.
    pub async fn start_certified(certificate: &str, key: &str) -> Self {
        Self::start_with(certificate, key, SCRAM).await
    }

    async fn start_with(certificate: &str, key: &str, sign_in: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut child = as_nobody_special()
            .args([
                "sh",
                "-c",
                KEEPER,
                "keeper",
                &port.to_string(),
                PASSWORD,
                certificate,
                key,
                sign_in,
            ])
            .env("PATH", path())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut folder = String::new();
        lines.read_line(&mut folder).unwrap();
        assert!(
            !folder.is_empty(),
            "initdb failed: is Debian's package `postgresql` installed?"
        );

        let keeper = std::sync::Mutex::new((child, lines));
        let cluster = Self {
            keeper,
            port,
            folder: folder.trim().into(),
            databases: AtomicU32::new(0),
        };
        cluster.resume().await;

        cluster
    }

    /// A new, empty database.
    pub async fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut connection = PgConnection::connect(&self.url("postgres")).await.unwrap();
        let create = format!("CREATE DATABASE {name}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(create))
            .execute(&mut connection)
            .await
            .unwrap();
        self.url(&name)
    }

    /// The URL of a database.
    pub fn url(&self, name: &str) -> String {
        format!("postgres://vvs:{PASSWORD}@127.0.0.1:{}/{name}", self.port)
    }

    /// How many connections others have to a database: in clear, and over TLS.
    pub async fn connections(&self, name: &str) -> [i64; 2] {
        let mut connection = PgConnection::connect(&self.url("postgres")).await.unwrap();
        let query = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE \
            datname = $1 AND ssl = $2";
        let mut counts = [0; 2];
        for (count, is_tls) in counts.iter_mut().zip([false, true]) {
            let counting = sqlx::query_scalar(query).bind(name).bind(is_tls);
            *count = counting.fetch_one(&mut connection).await.unwrap();
        }
        counts
    }

    /// Where it listens, on this machine.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its files and its socket are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Stops the server: connections are closed, new ones refused.
    pub fn stop(&self) {
        self.tell("stop");
    }

    /// Starts it again, on the same port and the same files.
    pub async fn resume(&self) {
        self.tell("start");
        let up = async {
            while PgConnection::connect(&self.url("postgres")).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };

        let is_up = tokio::time::timeout(Duration::from_secs(30), up)
            .await
            .is_ok();
        assert!(
            is_up,
            "the server does not come up: {:?}",
            std::fs::read_to_string(self.folder.join("log"))
        );
    }

    /// All its processes go on existing, and do nothing any more.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Ends [`Postgres::freeze`].
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let file = std::fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap();
        let server = file.lines().next().unwrap().to_owned();
        let children =
            std::fs::read_to_string(format!("/proc/{server}/task/{server}/children")).unwrap();
        let all = std::iter::once(server.as_str()).chain(children.split_whitespace());
        let sent = Command::new("kill")
            .arg(signal)
            .args(all)
            .stderr(Stdio::null())
            .status()
            .unwrap();

        // A backend may have ended in between.
        assert!(sent.success() || !children.is_empty());
    }

    fn tell(&self, word: &str) {
        let mut keeper = self.keeper.lock().unwrap();
        let (child, lines) = &mut *keeper;
        std::io::Write::write_all(
            child.stdin.as_mut().unwrap(),
            format!("{word}\n").as_bytes(),
        )
        .unwrap();
        let mut done = String::new();
        lines.read_line(&mut done).unwrap();
        assert_eq!(done.trim(), word, "the keeper of the cluster is gone");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let mut keeper = self.keeper.lock().unwrap();
        drop(keeper.0.stdin.take());
        keeper.0.wait().unwrap();
    }
}

/// PostgreSQL refuses to run as root.
fn as_nobody_special() -> Command {
    let mut id = Command::new("id");
    let is_root = id.arg("-u").output().unwrap().stdout.starts_with(b"0\n");
    if !is_root {
        return Command::new("env");
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    command
}

/// Debian keeps the server's programs out of the way.
fn path() -> String {
    let mut folders: Vec<String> = std::env::var_os("PATH")
        .map(|path| path.to_string_lossy().into_owned())
        .into_iter()
        .collect();
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        let bin = versions
            .flatten()
            .map(|version| version.path().join("bin").display().to_string());
        folders.splice(0..0, bin);
    }
    folders.join(":")
}
