//! The gate at work: an axum server that asks itself, over real HTTP, every question of the status table.
//!
//! ```text
//! cargo run --example quickstart                              asks, shows every answer and its audit event, and exits
//! cargo run --example quickstart -- --serve 127.0.0.1:8080    keeps serving, for you to ask with curl
//! ```
//! The first exits with 1, and names the rows, when any answer differs from what the status table promises.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a demonstration talks to whoever started it")]

use std::error::Error;
use std::io::IsTerminal;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tower_token_auth::{
    Actor, AuthenticatedToken, IssuePolicy, IssuedToken, MemoryStore, NewToken, Scope, TokenAuthLayer, TokenIssuer,
    TracingSink,
};
use tracing_subscriber::EnvFilter;

use self::demo::Demo;
use self::log::Log;

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

const USAGE: &str = "usage: quickstart [--serve <address>:<port>]";

/// The application: two handlers, and the one line that guards them.
fn app(auth: TokenAuthLayer) -> Router {
    let issues = get(read).options(read).post(write).put(write).delete(write);
    Router::new().route("/issues", issues).route_layer(auth)
}

async fn read(token: AuthenticatedToken) -> String {
    format!("the issues of {}, read with \"{}\" ({})\n", token.owner(), token.label(), token.scope())
}

async fn write(token: AuthenticatedToken) -> String {
    format!("changed for {}, with \"{}\" ({})\n", token.owner(), token.label(), token.scope())
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let finished = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => run_demo().await,
        ["--serve", address] => match address.parse() {
            Ok(address) => serve(address).await,
            Err(_) => return misused(),
        },
        _ => return misused(),
    };
    finished.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

fn misused() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

/// Asks everything, then shows the answers and the audit trail.
async fn run_demo() -> Fallible<ExitCode> {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .compact()
        .with_ansi(false)
        .without_time()
        .with_env_filter(audit_filter())
        .with_writer(move || writer.clone())
        .init();

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let mut demo = Demo::new(address, log.clone())?;
    let server = tokio::spawn(axum::serve(listener, app(demo.gate())).into_future());
    let asked = demo.ask_everything().await;
    server.abort();
    asked?;

    println!("\nAn axum server on http://{address}, guarded by TokenAuthLayer, asked over HTTP:");
    demo.answers().print();
    println!("\nThe audit trail, as the application's tracing shows it:\n");
    for line in log.text().lines() {
        println!("  {line}");
    }
    Ok(demo.answers().conclude())
}

/// Keeps serving, with tokens to try by hand.
async fn serve(address: SocketAddr) -> Fallible<ExitCode> {
    let ansi = std::io::stdout().is_terminal();
    tracing_subscriber::fmt().compact().with_ansi(ansi).with_env_filter(audit_filter()).init();

    let listener = TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let url = format!("http://{}/issues", listener.local_addr()?);
    let store = MemoryStore::new();
    let auth = TokenAuthLayer::new(store.clone());
    let desk = auth.issuer(store, IssuePolicy::default());

    let read_only = issue(&desk, Scope::ReadOnly).await?;
    let read_write = issue(&desk, Scope::ReadWrite).await?;

    println!("\nServing {url}. The tokens below are for this demonstration only: they live in this");
    println!("process's memory and end with it. A real service shows a token once, to its owner alone.");
    for issued in [read_only, read_write] {
        let (token, scope) = (issued.plaintext().expose(), issued.summary().scope);
        println!("\n# {scope}");
        println!("curl -i -H 'Authorization: Bearer {token}' {url}");
        println!("curl -i -H 'Authorization: Bearer {token}' -X POST {url}");
    }
    println!("\n# without a token\ncurl -i {url}\n\nAudit events follow; Ctrl-C ends it.\n");
    axum::serve(listener, app(auth)).await?;
    Ok(ExitCode::SUCCESS)
}

async fn issue(desk: &TokenIssuer, scope: Scope) -> Fallible<IssuedToken> {
    let new = NewToken::new("alice", format!("{scope} token"), scope);
    Ok(desk.issue(&Actor::system("quickstart"), new).await?)
}

/// Warnings of everything, and the whole audit trail: a filter such as `warn` alone would hide the admitted requests.
fn audit_filter() -> EnvFilter {
    EnvFilter::new(format!("warn,{}=info", TracingSink::TARGET))
}

/// What is asked, in which order, and what the status table promises.
mod demo {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use reqwest::header::{AUTHORIZATION, CONNECTION, UPGRADE};
    use reqwest::{Client, Method, RequestBuilder};
    use tower_token_auth::test_util::ManualClock;
    use tower_token_auth::{
        Actor, Argon2Hasher, Change, Clock, IssuePolicy, IssuedToken, MemoryStore, NewToken, PlaintextToken, Prefix,
        Scope, Scratch, SecretHasher, StoreError, TokenAuthLayer, TokenId, TokenIssuer, TokenRecord, TokenRegistry,
        TokenSecret, TokenStore,
    };

    use super::Fallible;
    use super::answers::{Answers, Expected};
    use super::log::Log;

    /// A store with a switch, to show what a gate does when its database is gone.
    #[derive(Debug, Clone, Default)]
    struct SwitchStore {
        store: MemoryStore,
        down: Arc<AtomicBool>,
    }

    impl TokenStore for SwitchStore {
        async fn find(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
            if self.down.load(Ordering::Relaxed) {
                return Err(StoreError::new("connection refused"));
            }
            self.store.find(id).await
        }
    }

    /// The server's side (gate, desk, store, clock) and the client's (the rest).
    pub(super) struct Demo {
        gate: TokenAuthLayer,
        desk: TokenIssuer,
        store: SwitchStore,
        clock: ManualClock,
        client: Client,
        url: String,
        answers: Answers,
    }

    impl Demo {
        pub(super) fn new(address: SocketAddr, log: Log) -> Fallible<Self> {
            let store = SwitchStore::default();
            let clock = ManualClock::default();
            let gate = TokenAuthLayer::builder(store.clone()).clock(clock.clone()).build()?;
            let desk = gate.issuer(store.store.clone(), IssuePolicy::default());
            // No proxy: an `HTTP_PROXY` of the environment has no business between this process and itself.
            let client = Client::builder().user_agent("quickstart").no_proxy().build()?;
            let url = format!("http://{address}/issues");
            Ok(Self { gate, desk, store, clock, client, url, answers: Answers::new(log) })
        }

        pub(super) fn gate(&self) -> TokenAuthLayer {
            self.gate.clone()
        }

        pub(super) fn answers(&self) -> &Answers {
            &self.answers
        }

        pub(super) async fn ask_everything(&mut self) -> Fallible<()> {
            let read_only = self.issue(NewToken::new("alice", "dashboard", Scope::ReadOnly)).await?;
            let read_write = self.issue(NewToken::new("alice", "importer", Scope::ReadWrite)).await?;
            self.without_a_token().await?;
            self.with_a_wrong_token(&read_only).await?;
            self.with_scope("A read-only token", &read_only, Expected::Forbidden).await?;
            self.with_scope("A read-write token", &read_write, Expected::Admitted).await?;
            self.until_it_expires().await?;
            self.until_it_is_revoked().await?;
            self.while_it_is_paused().await?;
            self.while_its_owner_is_barred().await?;
            self.while_the_store_is_down(&read_only).await
        }

        async fn issue(&self, new: NewToken) -> Fallible<IssuedToken> {
            Ok(self.desk.issue(&Actor::system("quickstart"), new).await?)
        }

        async fn without_a_token(&mut self) -> Fallible<()> {
            use Expected::{Malformed, Missing};
            self.answers.section("No token");
            let get = self.request(Method::GET);
            self.answers.ask("no Authorization", get, Missing).await?;
            for (value, expected) in
                [("", Missing), ("Basic YWxpY2U6MTIz", Missing), ("Bearer", Malformed), ("Bearer two words", Malformed)]
            {
                let get = self.request(Method::GET).header(AUTHORIZATION, value);
                self.answers.ask(format!("Authorization: {value}"), get, expected).await?;
            }
            let twice = self.request(Method::GET).header(AUTHORIZATION, "Bearer a").header(AUTHORIZATION, "Bearer a");
            self.answers.ask("two Authorization lines", twice, Malformed).await
        }

        async fn with_a_wrong_token(&mut self, good: &IssuedToken) -> Fallible<()> {
            self.answers.section("A wrong token");
            let foreign = self.request(Method::GET).bearer_auth("eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl");
            self.answers.ask("another issuer's token", foreign, Expected::Invalid("bad_format")).await?;

            let mut mistyped = good.plaintext().expose().to_owned();
            let digit = if mistyped.pop() == Some('0') { '1' } else { '0' };
            mistyped.push(digit);
            let mistyped = self.request(Method::GET).bearer_auth(mistyped);
            self.answers.ask("one digit mistyped: bad checksum", mistyped, Expected::Invalid("bad_format")).await?;

            let unknown = PlaintextToken::generate(&Prefix::default())?;
            let unknown = self.presenting(&unknown, Method::GET);
            self.answers.ask("unknown id", unknown, Expected::Invalid("unknown")).await?;

            let guess = self.guess_at_a_known_id().await?;
            let guess = self.presenting(&guess, Method::GET);
            self.answers.ask("known id, wrong secret", guess, Expected::Invalid("mismatch")).await
        }

        /// A well-formed token whose id is on record under another secret, as a guesser would make one.
        async fn guess_at_a_known_id(&self) -> Fallible<PlaintextToken> {
            let guess = PlaintextToken::generate(&Prefix::default())?;
            let id = guess.id();
            let secret = TokenSecret::generate()?;
            let hash = Argon2Hasher::new().hash(&secret, &mut Scratch::new())?.with_precheck(&id, &secret);
            let (owner, label) = ("alice".parse()?, "guessed at".parse()?);
            let record = TokenRecord::new(id, owner, label, Scope::ReadWrite, hash, self.clock.wall());
            self.store.store.insert(record).await?;
            Ok(guess)
        }

        /// Reads are admitted under either scope; `write` is what becomes of the rest.
        async fn with_scope(&mut self, title: &'static str, token: &IssuedToken, write: Expected) -> Fallible<()> {
            self.answers.section(title);
            for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
                self.answers.ask("", self.with(token, method), Expected::Admitted).await?;
            }
            for method in [Method::POST, Method::PUT, Method::DELETE] {
                self.answers.ask("", self.with(token, method), write).await?;
            }
            for (protocol, expected) in [("websocket", write), ("h2c", Expected::Admitted)] {
                let upgrade = self.with(token, Method::GET).header(CONNECTION, "upgrade").header(UPGRADE, protocol);
                self.answers.ask(format!("Upgrade: {protocol}"), upgrade, expected).await?;
            }
            let overridden = self.with(token, Method::GET).header("X-HTTP-Method-Override", "DELETE");
            self.answers.ask("X-HTTP-Method-Override: DELETE", overridden, write).await
        }

        async fn until_it_expires(&mut self) -> Fallible<()> {
            self.answers.section("A token that lives for a minute");
            let life = Duration::from_secs(60);
            let new = NewToken::new("alice", "one-off export", Scope::ReadOnly).expires_in(life);
            let token = self.issue(new).await?;
            self.answers.ask("in its minute", self.with(&token, Method::GET), Expected::Admitted).await?;
            self.clock.advance(life);
            self.answers.ask("when it is over", self.with(&token, Method::GET), Expected::Invalid("expired")).await
        }

        async fn until_it_is_revoked(&mut self) -> Fallible<()> {
            self.answers.section("A token that is revoked");
            let token = self.issue(NewToken::new("alice", "old laptop", Scope::ReadWrite)).await?;
            self.answers.ask("before", self.with(&token, Method::GET), Expected::Admitted).await?;
            self.desk.revoke(&Actor::system("laptop lost"), &token.plaintext().id()).await?;
            self.answers
                .ask("the very next request", self.with(&token, Method::GET), Expected::Invalid("revoked"))
                .await
        }

        async fn while_it_is_paused(&mut self) -> Fallible<()> {
            self.answers.section("A token that is paused");
            let token = self.issue(NewToken::new("alice", "nightly job", Scope::ReadWrite)).await?;
            self.change(&token.plaintext().id(), Change::Pause).await?;
            self.answers.ask("paused", self.with(&token, Method::GET), Expected::Invalid("paused")).await?;
            self.change(&token.plaintext().id(), Change::Resume).await?;
            self.answers.ask("resumed", self.with(&token, Method::GET), Expected::Admitted).await
        }

        /// Changes a record past the desk, as another process would, and tells the gate.
        async fn change(&self, id: &TokenId, change: Change) -> Fallible<()> {
            let registry = &self.store.store;
            let record = registry.find(id).await?.ok_or("the token has just been issued")?;
            registry.update(id, record.revision(), change).await?;
            self.gate.handle().invalidate(id);
            Ok(())
        }

        async fn while_its_owner_is_barred(&mut self) -> Fallible<()> {
            self.answers.section("A token whose owner is barred");
            let token = self.issue(NewToken::new("bob", "backup", Scope::ReadWrite)).await?;
            let bob = "bob".parse()?;
            self.store.store.bar_owner(&bob).await?;
            self.gate.handle().invalidate_owner(&bob);
            self.answers.ask("barred", self.with(&token, Method::GET), Expected::Invalid("owner_barred")).await?;
            self.store.store.lift_owner(&bob).await?;
            self.gate.handle().invalidate_owner(&bob);
            self.answers.ask("the bar is lifted", self.with(&token, Method::GET), Expected::Admitted).await
        }

        async fn while_the_store_is_down(&mut self, token: &IssuedToken) -> Fallible<()> {
            self.answers.section("The token store goes down");
            self.answers.ask("before", self.with(token, Method::GET), Expected::Admitted).await?;
            self.store.down.store(true, Ordering::Relaxed);
            self.answers.ask("down, token in the cache", self.with(token, Method::GET), Expected::Admitted).await?;
            self.gate.handle().invalidate_all();
            self.answers.ask("down, cache invalidated", self.with(token, Method::GET), Expected::Unavailable).await?;
            self.store.down.store(false, Ordering::Relaxed);
            self.answers.ask("back", self.with(token, Method::GET), Expected::Admitted).await
        }

        fn request(&self, method: Method) -> RequestBuilder {
            self.client.request(method, &self.url)
        }

        fn presenting(&self, token: &PlaintextToken, method: Method) -> RequestBuilder {
            self.request(method).bearer_auth(token.expose())
        }

        fn with(&self, token: &IssuedToken, method: Method) -> RequestBuilder {
            self.presenting(token.plaintext(), method)
        }
    }
}

/// What came back, beside what was promised.
mod answers {
    use std::fmt;
    use std::process::ExitCode;

    use reqwest::header::{RETRY_AFTER, WWW_AUTHENTICATE};
    use reqwest::{Method, RequestBuilder, Response};
    use tower_token_auth::TracingSink;

    use super::Fallible;
    use super::log::Log;

    /// A row of the status table; invalid tokens look alike to their client and differ in the audit trail.
    #[derive(Debug, Clone, Copy)]
    pub(super) enum Expected {
        Admitted,
        Missing,
        Malformed,
        Invalid(&'static str),
        Forbidden,
        Unavailable,
    }

    impl Expected {
        fn answer(self) -> Answer {
            let (status, challenge) = match self {
                Self::Admitted => (200, ""),
                Self::Missing => (401, r#"Bearer realm="api""#),
                Self::Malformed => (400, r#"Bearer realm="api", error="invalid_request""#),
                Self::Invalid(_) => (401, r#"Bearer realm="api", error="invalid_token""#),
                Self::Forbidden => (403, r#"Bearer realm="api", error="insufficient_scope", scope="read-write""#),
                Self::Unavailable => (503, ""),
            };
            let retry_after = if status == 503 { "1" } else { "" };
            Answer { status, challenge: challenge.to_owned(), retry_after: retry_after.to_owned() }
        }

        /// A field of the one audit event that the request leaves.
        fn audit_field(self) -> String {
            let reason = match self {
                Self::Admitted => return r#"outcome="allowed""#.to_owned(),
                Self::Missing => "missing",
                Self::Malformed => "malformed",
                Self::Invalid(reason) => reason,
                Self::Forbidden => "forbidden",
                Self::Unavailable => "store_failed",
            };
            format!("reason=\"{reason}\"")
        }
    }

    #[derive(Debug, PartialEq, Eq)]
    struct Answer {
        status: u16,
        challenge: String,
        retry_after: String,
    }

    impl Answer {
        fn of(response: &Response) -> Self {
            let headers = response.headers();
            let text = |name| headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
            Self {
                status: response.status().as_u16(),
                challenge: text(WWW_AUTHENTICATE).collect::<Vec<_>>().join(" + "),
                retry_after: text(RETRY_AFTER).collect(),
            }
        }
    }

    /// The challenge, or what stands in its place.
    impl fmt::Display for Answer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match (self.challenge.as_str(), self.retry_after.as_str()) {
                ("", "") => f.write_str("–"),
                ("", seconds) => write!(f, "– (Retry-After: {seconds})"),
                (challenge, "") => f.write_str(challenge),
                (challenge, seconds) => write!(f, "{challenge} (Retry-After: {seconds})"),
            }
        }
    }

    struct Row {
        section: &'static str,
        method: Method,
        what: String,
        expected: Answer,
        got: Answer,
        /// What is wrong with the audit trail, where something is.
        unaudited: Option<String>,
    }

    impl Row {
        fn is_as_promised(&self) -> bool {
            self.expected == self.got && self.unaudited.is_none()
        }

        fn print(&self) {
            let mark = if self.is_as_promised() { '✓' } else { '✗' };
            let (method, what) = (&self.method, &self.what);
            let (expected, got) = (self.expected.status, self.got.status);
            println!("  {mark} {:<8}{what:<33}{expected:>8}  {got:>4}   {}", method.as_str(), self.got);
            if self.expected != self.got {
                println!("    expected: {} {}", self.expected.status, self.expected);
            }
            if let Some(complaint) = &self.unaudited {
                println!("    {complaint}");
            }
        }
    }

    impl fmt::Display for Row {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let (section, method, what) = (self.section, &self.method, &self.what);
            write!(f, "{section}: {method} {what}")?;
            write!(f, " (expected {} {}, got {} {})", self.expected.status, self.expected, self.got.status, self.got)?;
            self.unaudited.as_ref().map_or(Ok(()), |_| f.write_str("; its audit event differs"))
        }
    }

    /// Every answer so far.
    pub(super) struct Answers {
        log: Log,
        section: &'static str,
        rows: Vec<Row>,
    }

    impl Answers {
        pub(super) fn new(log: Log) -> Self {
            Self { log, section: "", rows: Vec::new() }
        }

        pub(super) fn section(&mut self, title: &'static str) {
            self.section = title;
        }

        /// Sends a request, and keeps its answer beside the expected one.
        pub(super) async fn ask(
            &mut self,
            what: impl Into<String>,
            request: RequestBuilder,
            expected: Expected,
        ) -> Fallible<()> {
            let (client, request) = request.build_split();
            let request = request?;
            let method = request.method().clone();
            let before = self.log.text().len();
            let got = Answer::of(&client.execute(request).await?);
            // The event is recorded before the answer is sent, so it is there by now.
            let written = self.log.text().split_off(before);
            let unaudited = audit_complaint(&written, &expected.audit_field());
            let (section, what, expected) = (self.section, what.into(), expected.answer());
            self.rows.push(Row { section, method, what, expected, got, unaudited });
            Ok(())
        }

        pub(super) fn print(&self) {
            println!("\n    {:<41}{:>8}  {:>4}   challenge", "request", "expected", "got");
            let mut section = "";
            for row in &self.rows {
                if row.section != section {
                    section = row.section;
                    println!("\n  {section}");
                }
                row.print();
            }
        }

        /// The last words, and the exit code.
        pub(super) fn conclude(&self) -> ExitCode {
            let differing: Vec<&Row> = self.rows.iter().filter(|row| !row.is_as_promised()).collect();
            if differing.is_empty() {
                println!("\n{} requests, each answered as promised and audited once.", self.rows.len());
                return ExitCode::SUCCESS;
            }
            eprintln!("\n{} of {} answers differ:", differing.len(), self.rows.len());
            for row in differing {
                eprintln!("  {row}");
            }
            ExitCode::FAILURE
        }
    }

    /// One decision is one event; anything else is a complaint.
    fn audit_complaint(written: &str, field: &str) -> Option<String> {
        let events: Vec<&str> = written.lines().filter(|line| line.contains(TracingSink::TARGET)).collect();
        match events.as_slice() {
            [event] if event.contains(field) => None,
            [event] => Some(format!("the audit event does not say {field}: {event}")),
            events => Some(format!("{} audit events in place of one", events.len())),
        }
    }
}

/// What `tracing` writes, kept until it is shown.
mod log {
    use std::io;
    use std::sync::{Arc, Mutex, PoisonError};

    #[derive(Debug, Clone, Default)]
    pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        pub(super) fn text(&self) -> String {
            let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8_lossy(&bytes).into_owned()
        }
    }

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
