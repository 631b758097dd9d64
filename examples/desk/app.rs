//! The application: one API, the gate before it, and the desk that issues its tokens.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::{MethodRouter, get};
use tower_token_auth::test_util::ManualClock;
use tower_token_auth::{
    AuditHistory, AuditSink, AuthenticatedToken, CacheConfig, FanOut, IssuePolicy, JsonLinesSink, MemoryStore,
    OwnerDirectory, OwnerId, QueuedSink, Sha256Hasher, SharedPolicy, StoreError, TokenAuthBuilder, TokenAuthLayer,
    TokenIssuer, who_am_i,
};

use super::Fallible;

pub(crate) struct App {
    pub(crate) gate: TokenAuthLayer,
    /// A second gate over the same tokens, which only reports what it would forbid.
    trial: TokenAuthLayer,
    pub(crate) desk: TokenIssuer,
    pub(crate) history: AuditHistory,
    pub(crate) staff: Staff,
    pub(crate) clock: ManualClock,
}

impl App {
    pub(crate) fn new(file: &Path) -> Fallible<Self> {
        let (store, policy) = (MemoryStore::new(), SharedPolicy::new(IssuePolicy::default()));
        let (staff, clock, history) = (Staff::default(), ManualClock::default(), AuditHistory::new());
        // For people, the recent past in memory; for the record, lines in a file, behind a queue.
        let lines = QueuedSink::new(JsonLinesSink::open(file)?)?;
        let audit = Arc::new(FanOut::new([Arc::new(history.clone()) as Arc<dyn AuditSink>, Arc::new(lines)]));

        let configured = || {
            TokenAuthLayer::builder(store.clone())
                .policy_at_use(policy.clone())
                .owners(staff.clone())
                .audit(Arc::clone(&audit))
                .hasher(Sha256Hasher::new())
                .clock(clock.clone())
        };
        let gate = with_address(configured()).token_headers().build()?;
        // The desk tells its own gate of each change. This one is told by nobody, so it asks the store each time.
        let trial = configured()
            .insecure_report_only_policy()
            .insecure_report_only_scope()
            .cache(CacheConfig::default().ttl(Duration::ZERO))
            .build()?;
        let desk = gate.issuer(store, policy);
        Ok(Self { gate, trial, desk, history, staff, clock })
    }

    pub(crate) fn router(&self) -> Router {
        let tracker = Router::new().route("/issues", issues()).route("/whoami", get(who_am_i));
        let trial = Router::new().route("/trial", issues());
        tracker.route_layer(self.gate.clone()).merge(trial.route_layer(self.trial.clone()))
    }
}

fn with_address(builder: TokenAuthBuilder) -> TokenAuthBuilder {
    let peer = |peer: &ConnectInfo<SocketAddr>| peer.0.ip();
    builder.client_address(move |head| head.extensions.get().map(peer))
}

fn issues() -> MethodRouter {
    let read = |token: AuthenticatedToken| async move { format!("the issues of {}", token.owner()) };
    let write = |token: AuthenticatedToken| async move { format!("created for {}", token.owner()) };
    get(read).post(write)
}

/// Where the application keeps its users: here only who is away. Its word counts beside the store's own.
#[derive(Clone, Default)]
pub(crate) struct Staff(Arc<Mutex<BTreeSet<OwnerId>>>);

impl Staff {
    pub(crate) fn leaves(&self, owner: &OwnerId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(owner.clone());
    }

    pub(crate) fn returns(&self, owner: &OwnerId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(owner);
    }
}

impl OwnerDirectory for Staff {
    async fn may_use(&self, owner: &OwnerId) -> Result<bool, StoreError> {
        Ok(!self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(owner))
    }
}
