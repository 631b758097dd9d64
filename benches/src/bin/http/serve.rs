//! The servers: one route, behind nothing, a gate or a peer. Each prints where it listens and what it admits, and ends
//! when its standard input does.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use benches::Template;
use benches::ours::Ours;
use benches::peers::{self, Peer};
use tokio::net::TcpListener;
use tower_token_auth::{AuditHistory, AuditSink, JsonLinesSink, NoAudit, QueuedSink, Scope, TracingSink};

pub const BARE: &str = "bare";
const NO_AUDIT: &str = "ours: no audit";
const AROUND: &str = "ours: no audit, around the router";
const NOBODY_LISTENS: &str = "ours: audit to tracing, nobody listens";
const PLAIN: &str = "ours: no audit, without extension";
const HISTORY: &str = "ours: audit into the history";
const QUEUED_JSON: &str = "ours: audit in JSON to a file, through a queue";
const DIRECT_JSON: &str = "ours: audit in JSON to a file, on the request's thread";
const QUEUED_TEXT: &str = "ours: audit to tracing, formatted to a file, through a queue";
const DIRECT_TEXT: &str = "ours: audit to tracing, formatted to a file, on the request's thread";
const STATIC: &str = "tower-http static bearer";
const DASHMAP: &str = "AsyncRequireAuthorization, sha256 + dashmap";
const MOKA: &str = "AsyncRequireAuthorization, sha256 + moka";
const JWT: &str = "AsyncRequireAuthorization, HS256 by jsonwebtoken";
const SESSIONS: &str = "tower-sessions, memory store";
const LOGIN: &str = "axum-login, memory store";

/// All servers but the bare one.
pub const NAMES: [&str; 15] = [
    NOBODY_LISTENS,
    AROUND,
    NO_AUDIT,
    PLAIN,
    HISTORY,
    QUEUED_JSON,
    DIRECT_JSON,
    QUEUED_TEXT,
    DIRECT_TEXT,
    STATIC,
    DASHMAP,
    MOKA,
    JWT,
    SESSIONS,
    LOGIN,
];

/// A server, and a request that it admits.
struct Site {
    router: Router,
    template: Template,
    /// What is removed at the end.
    log: Option<PathBuf>,
}

pub fn run(name: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let site = runtime.block_on(site(name));
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let (header, value) = site.template.credentials().expect("every template has credentials");
    println!("{}", listener.local_addr().expect("a listener has an address"));
    println!("{header}\n{}", value.to_str().expect("credentials are visible ASCII"));
    std::thread::spawn(move || {
        // Whoever started this is gone, or has had enough.
        let _read = std::io::stdin().read(&mut [0]);
        site.log.map(std::fs::remove_file);
        std::process::exit(0);
    });
    runtime.block_on(async { axum::serve(listener, site.router).await }).expect("the server serves");
}

async fn site(name: &str) -> Site {
    match name {
        BARE => Site { router: router(), template: Template::bearer("of-no-interest"), log: None },
        NO_AUDIT => audited(NoAudit::new()).await,
        PLAIN => plain().await,
        AROUND => around().await,
        NOBODY_LISTENS => audited(TracingSink::new()).await,
        HISTORY => audited(Arc::new(AuditHistory::new())).await,
        QUEUED_JSON | DIRECT_JSON => json(name == QUEUED_JSON).await,
        QUEUED_TEXT | DIRECT_TEXT => text(name == QUEUED_TEXT).await,
        STATIC => behind(peers::static_bearer()),
        DASHMAP => behind(peers::hand_written_dashmap()),
        MOKA => behind(peers::hand_written_moka()),
        JWT => behind(peers::jwt()),
        SESSIONS => behind(peers::tower_sessions().await),
        LOGIN => behind(peers::axum_login().await),
        other => panic!("{other}: what is that?"),
    }
}

fn router() -> Router {
    Router::new().route("/issues", get(|| async { "[]" }))
}

async fn plain() -> Site {
    let ours = Ours::new(Scope::ReadWrite, |builder| builder.audit(NoAudit::new()).without_extension()).await;
    Site { router: router().route_layer(ours.layer), template: Template::bearer(&ours.token), log: None }
}

async fn audited(sink: impl AuditSink) -> Site {
    let ours = Ours::audited(sink).await;
    Site { router: router().route_layer(ours.layer), template: Template::bearer(&ours.token), log: None }
}

/// Not between the router and its routes, which costs a box for each, but before the router.
async fn around() -> Site {
    let ours = Ours::audited(NoAudit::new()).await;
    let router = Router::new().fallback_service(tower::Layer::layer(&ours.layer, router()));
    Site { router, template: Template::bearer(&ours.token), log: None }
}

async fn json(queued: bool) -> Site {
    let log = log();
    let sink = JsonLinesSink::open(&log).expect("a file for the log");
    let site = if queued { audited(queue(sink)).await } else { audited(sink).await };
    Site { log: Some(log), ..site }
}

async fn text(queued: bool) -> Site {
    let log = log();
    let file = File::create(&log).expect("a file for the log");
    tracing_subscriber::fmt().with_writer(file).with_ansi(false).init();
    let site = if queued { audited(queue(TracingSink::new())).await } else { audited(TracingSink::new()).await };
    Site { log: Some(log), ..site }
}

fn queue(sink: impl AuditSink) -> QueuedSink {
    QueuedSink::new(sink).expect("the system has a thread for the queue")
}

fn log() -> PathBuf {
    std::env::temp_dir().join(format!("bench-audit-{}.log", std::process::id()))
}

/// The router behind a peer.
fn behind<L>(peer: Peer<L>) -> Site
where
    L: tower::Layer<axum::routing::Route> + Clone + Send + Sync + 'static,
    L::Service: tower::Service<axum::extract::Request, Response: axum::response::IntoResponse + 'static>
        + Clone
        + Send
        + Sync
        + 'static,
    <L::Service as tower::Service<axum::extract::Request>>::Error: Into<std::convert::Infallible> + 'static,
    <L::Service as tower::Service<axum::extract::Request>>::Future: Send + 'static,
{
    Site { router: router().route_layer(peer.layer), template: peer.template, log: None }
}
