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
    AuditHistory, AuthenticatedToken, CacheConfig, FanOut, IssuePolicy, JsonLinesSink, MemoryStore, OwnerDirectory,
    OwnerId, QueuedSink, Sha256Hasher, SharedPolicy, StoreError, TokenAuthLayer, TokenIssuer, Unflushed, who_am_i,
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
        let audit = FanOut::default().and(history.clone()).and(lines);

        let configured = || {
            TokenAuthLayer::builder(store.clone())
                .policy_at_use(policy.clone())
                .owners(staff.clone())
                .audit(audit.clone())
                .hasher(Sha256Hasher::new())
                .clock(clock.clone())
                .client_address(|head| head.extensions.get().map(|peer: &ConnectInfo<SocketAddr>| peer.0.ip()))
        };
        let gate = configured().token_headers().build()?;
        // A desk tells its own gate of each change, and writes there when tokens were used. This gate has no desk: it
        // asks the store each time, and has to be given one to write to.
        let trial = configured()
            .insecure_report_only_policy()
            .insecure_report_only_scope()
            .cache(CacheConfig::default().ttl(Duration::ZERO))
            .upkeep(store.clone())
            .build()?;
        let desk = gate.issuer(store, policy);
        Ok(Self { gate, trial, desk, history, staff, clock })
    }

    /// What both gates do beside the requests, such as to write when tokens were last used.
    pub(crate) fn background(&self) -> impl Future<Output = ()> + Send + 'static {
        let (gate, trial) = (self.gate.background(), self.trial.background());
        async move {
            tokio::join!(gate, trial);
        }
    }

    /// Writes what waits: last uses to the store, events to the file. The gates go on judging.
    pub(crate) async fn shutdown(&self) -> Result<(), Unflushed> {
        for gate in [&self.gate, &self.trial] {
            gate.handle().shutdown(Duration::from_secs(5)).await?;
        }
        Ok(())
    }

    pub(crate) fn router(&self) -> Router {
        let tracker = Router::new().route("/issues", issues()).route("/whoami", get(who_am_i));
        let trial = Router::new().route("/trial", issues());
        tracker.route_layer(self.gate.clone()).merge(trial.route_layer(self.trial.clone()))
    }
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
