//! Private PostgreSQL and Redis servers: on free loopback ports, in temporary folders, gone when the tests are.
//!
//! Shared by the tests of a process: `TEST_POSTGRES_URL` and `TEST_REDIS_URL` where they are set, else a server started
//! from the binaries in `PATH` (and Debian's folder for PostgreSQL). A test of outages starts one of its own. Where there
//! is none, one line says what is skipped, and with `REQUIRE_SERVERS=1` it is a failure.
//!
//! A server is the child of a shell that waits for its standard input to end, as it does when the test process goes,
//! however it goes. The shell then ends the server by its id and removes the folder.
//!
//! The example `cluster` starts its servers with this file, too.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Once, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{env, fs, thread};

use tower_token_auth::TokenId;

/// Starting takes a second at most where nothing is wrong.
const PATIENCE: Duration = Duration::from_secs(60);
/// Another process may take the port first; the remains of a crashed server may need a moment to go.
const ATTEMPTS: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres,
    Redis,
}

/// The server that the tests of this process share.
pub(crate) fn shared(kind: Kind) -> Option<String> {
    static SHARED: [OnceLock<Option<Shared>>; 2] = [OnceLock::new(), OnceLock::new()];
    let start = || match env::var(kind.variable()) {
        Ok(url) => Some(Shared { url, _server: None }),
        Err(_) => Server::start(kind).map(|server| Shared { url: server.url(), _server: Some(server) }),
    };
    SHARED[kind as usize].get_or_init(start).as_ref().map(|shared| shared.url.clone())
}

struct Shared {
    url: String,
    /// Never dropped: its shell notices when this process goes.
    _server: Option<Server>,
}

/// A name for a schema or a prefix that no other test uses, on no server.
pub(crate) fn unique(name: &str) -> String {
    format!("{name}_{}", TokenId::generate().unwrap().as_str().to_lowercase())
}

impl Kind {
    const fn variable(self) -> &'static str {
        match self {
            Self::Postgres => "TEST_POSTGRES_URL",
            Self::Redis => "TEST_REDIS_URL",
        }
    }

    const fn binary(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis-server",
        }
    }

    /// What it prints when clients may come.
    const fn greeting(self) -> &'static str {
        match self {
            Self::Postgres => "database system is ready to accept connections",
            Self::Redis => "Ready to accept connections",
        }
    }

    /// How it ends at once. PostgreSQL has shared memory to give back.
    const fn last_signal(self) -> &'static str {
        match self {
            Self::Postgres => "QUIT",
            Self::Redis => "KILL",
        }
    }

    /// Where its binaries are; where there are none, that is said, and may be a failure.
    fn folder_or_skip(self) -> Option<PathBuf> {
        let found = folders().into_iter().find(|folder| folder.join(self.binary()).is_file());
        if found.is_none() {
            static SAID: [Once; 2] = [Once::new(), Once::new()];
            let missing = format!("there is no {}", self.binary());
            let required = env::var("REQUIRE_SERVERS").is_ok_and(|required| required == "1");
            assert!(!required, "{missing}, and servers are required");
            // Past the capture of tests that pass.
            let say = || writeln!(io::stderr(), "skipped: what needs a real {self:?} server ({missing})");
            SAID[self as usize].call_once(|| say().unwrap());
        }
        found
    }

    /// To be run in its folder.
    fn command(self, binaries: &Path, port: u16) -> Vec<String> {
        let arguments = match self {
            Self::Postgres => format!("-D . -p {port} -h 127.0.0.1 -N 300 -k"),
            Self::Redis => format!("--port {port} --bind 127.0.0.1 --appendonly yes --appendfsync always --save"),
        };
        // No socket in the file system, and no snapshots beside the log.
        let last = "";
        let mut command = if self == Self::Postgres { unprivileged() } else { Vec::new() };
        command.push(binaries.join(self.binary()).display().to_string());
        command.extend(arguments.split(' ').chain([last]).map(str::to_owned));
        command
    }
}

/// `PATH`, and where Debian keeps PostgreSQL, the newest first.
fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<_> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    versions.sort();
    folders.extend(versions.into_iter().rev());
    folders
}

/// What turns root into somebody else, as PostgreSQL demands.
fn unprivileged() -> Vec<String> {
    nobody().map_or_else(Vec::new, |(user, group)| {
        let words = format!("setpriv --reuid={user} --regid={group} --clear-groups");
        words.split(' ').map(str::to_owned).collect()
    })
}

/// The ids of an unprivileged user, where this is root.
fn nobody() -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| output(Command::new("id").args(arguments)).trim().parse::<u32>().unwrap();
    (id(&["-u"]) == 0).then(|| (id(&["-u", "nobody"]), id(&["-g", "nobody"])))
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A server of one's own.
#[derive(Debug)]
pub(crate) struct Server {
    kind: Kind,
    binaries: PathBuf,
    folder: PathBuf,
    port: u16,
    run: Option<Run>,
}

impl Server {
    /// A fresh one, `None` where there is no binary.
    pub(crate) fn start(kind: Kind) -> Option<Self> {
        let binaries = kind.folder_or_skip()?;
        let folder = env::temp_dir().join(unique("tower-token-auth"));
        fs::create_dir(&folder).unwrap();
        let mut server = Self { kind, binaries, folder, port: 0, run: None };
        if kind == Kind::Postgres {
            server.init_postgres();
        }
        server.launch(free_port);
        Some(server)
    }

    fn init_postgres(&self) {
        if let Some((user, group)) = nobody() {
            chown(&self.folder, Some(user), Some(group)).unwrap();
        }
        let mut command = unprivileged();
        command.push(self.binaries.join("initdb").display().to_string());
        command.extend("-D . -U test -A trust -E UTF8 --locale=C --no-sync".split(' ').map(str::to_owned));
        output(Command::new(&command[0]).args(&command[1..]).current_dir(&self.folder));
    }

    pub(crate) fn url(&self) -> String {
        match self.kind {
            Kind::Postgres => format!("postgres://test@127.0.0.1:{}/postgres", self.port),
            Kind::Redis => format!("redis://127.0.0.1:{}", self.port),
        }
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn crash(&mut self) {
        self.run.take().expect("it runs").end("KILL");
    }

    /// Starts it again, with what it has on the disk, on the same port.
    pub(crate) fn start_again(&mut self) {
        let port = self.port;
        self.launch(|| port);
    }

    /// Stops it in its tracks: sockets stay open, and nobody answers.
    pub(crate) fn freeze(&self) {
        self.run.as_ref().expect("it runs").signal("STOP");
    }

    /// Goes on after [`freeze`](Self::freeze).
    pub(crate) fn thaw(&self) {
        self.run.as_ref().expect("it runs").signal("CONT");
    }

    fn launch(&mut self, port: impl Fn() -> u16) {
        let mut complaints = String::new();
        self.run = (0..ATTEMPTS).find_map(|_| {
            self.port = port();
            let command = self.kind.command(&self.binaries, self.port);
            Run::start(self.kind, &command, &self.folder).map_err(|complaint| complaints = complaint).ok()
        });
        assert!(self.run.is_some(), "{:?} does not start: {complaints}", self.kind);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.run.take());
        // The shell has done so, unless the server had crashed.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// One life of a server, until it is dropped.
#[derive(Debug)]
struct Run {
    shell: Child,
    server: String,
    /// Reads until every process that the server has started is gone.
    reader: Option<JoinHandle<()>>,
}

/// `$1` is the last signal, `$2` the folder, the rest the server's command. A line on the standard input is a signal that
/// leaves the folder where it is.
const KEEPER: &str = r#"
last=$1 folder=$2; shift 2
"$@" </dev/null 2>&1 &
echo "server=$!"
read -r signal || cleanup=yes
kill -s "${signal:-$last}" $!
kill -s CONT $!
wait $!
[ -z "$cleanup" ] || rm -rf "$folder"
"#;

/// `$1` is the signal, `$2` the server. Its children may come and go meanwhile.
const SIGNAL: &str = r#"
kill -s "$1" "$2" || exit
kill -s "$1" $(cat "/proc/$2/task/$2/children") 2>/dev/null || :
"#;

impl Run {
    fn start(kind: Kind, command: &[String], folder: &Path) -> Result<Self, String> {
        let mut shell = Command::new("sh")
            .args(["-c", KEEPER, "keeper", kind.last_signal()])
            .arg(folder)
            .args(command)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (reader, server) = read(kind, shell.stdout.take().unwrap());
        let run = Self { shell, server: server.clone().unwrap_or_default(), reader: Some(reader) };
        match server {
            Ok(_) => Ok(run),
            Err(complaint) => {
                // By a signal, so that the folder stays for the next attempt.
                run.end("KILL");
                Err(complaint)
            }
        }
    }

    /// To the server and the processes that it has started.
    fn signal(&self, signal: &str) {
        output(Command::new("sh").args(["-c", SIGNAL, "signal", signal, &self.server]));
    }

    fn end(mut self, signal: &str) {
        writeln!(self.shell.stdin.take().unwrap(), "{signal}").unwrap();
        self.await_end();
    }

    fn await_end(&mut self) {
        let _ = self.shell.wait();
        self.reader.take().into_iter().for_each(|reader| drop(reader.join()));
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        self.await_end();
    }
}

/// Reads what a server prints, to its end; answers with its id once it is ready, or with what it printed instead.
fn read(kind: Kind, printed: impl Read + Send + 'static) -> (JoinHandle<()>, Result<String, String>) {
    let (ready, is_ready) = mpsc::channel();
    let reader = thread::spawn(move || {
        let (mut id, mut complaint) = (String::new(), String::new());
        for line in BufReader::new(printed).lines().map_while(Result::ok) {
            if let Some(server) = line.strip_prefix("server=") {
                server.clone_into(&mut id);
            } else if line.contains(kind.greeting()) {
                let _ = ready.send(Ok(id.clone()));
            } else if complaint.len() < 4_096 {
                complaint.push_str(&line);
                complaint.push('\n');
            }
        }
        let _ = ready.send(Err(complaint));
    });
    let late = |_| Err("it is not ready after a minute".to_owned());
    (reader, is_ready.recv_timeout(PATIENCE).unwrap_or_else(late))
}

fn answers(server: &Server) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", server.port)).is_ok()
}

#[track_caller]
fn comes_and_goes(kind: Kind) {
    let Some(mut server) = Server::start(kind) else { return };
    assert!(answers(&server));
    server.crash();
    assert!(!answers(&server), "it is gone");
    assert!(server.folder.exists(), "with what it kept");
    server.start_again();
    assert!(answers(&server));
    server.freeze();
    assert!(answers(&server), "the system still accepts for it");
    server.thaw();
    let (port, folder) = (server.port, server.folder.clone());
    drop(server);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(!folder.exists());
}

#[test]
fn a_private_redis_comes_and_goes() {
    comes_and_goes(Kind::Redis);
}

#[test]
fn a_private_postgres_comes_and_goes() {
    comes_and_goes(Kind::Postgres);
}

#[test]
fn the_server_of_this_process_is_started_once() {
    for kind in [Kind::Redis, Kind::Postgres] {
        assert_eq!(shared(kind), shared(kind));
    }
    assert_ne!(unique("a"), unique("a"));
}
