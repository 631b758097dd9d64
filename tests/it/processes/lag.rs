//! How long a revoked token is still accepted by gates that are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use tokio::task::yield_now;
use tower_token_auth::PlaintextToken;

use super::{Database, Gate, PATIENCE, WRITERS, mint_many, revoke};

const GATES: usize = 3;
const REVOCATIONS: usize = 1_000;
/// Of 99 in a hundred, where it is measured.
const TARGET: Duration = Duration::from_millis(100);

/// A token, and what has become of it.
struct Hot {
    token: PlaintextToken,
    /// Its revocation has been asked for.
    revoking: AtomicBool,
    /// Every gate has refused it.
    refused: AtomicBool,
}

struct Cluster<S> {
    gates: Vec<Gate<S>>,
    tokens: Vec<Hot>,
    done: AtomicBool,
}

impl<S: tower_token_auth::TokenRegistry + Clone + 'static> Cluster<S> {
    async fn of(database: &impl Database<Store = S>) -> Self {
        let tokens = mint_many(&database.open().await, REVOCATIONS).await;
        let hot = |token| Hot { token, revoking: AtomicBool::new(false), refused: AtomicBool::new(false) };
        let mut gates = Vec::new();
        for _ in 0..GATES {
            let gate = Gate::over(database.open().await);
            gate.follow(database.feed(&gate.store)).await;
            gates.push(gate);
        }
        Self { gates, tokens: tokens.into_iter().map(hot).collect(), done: AtomicBool::new(false) }
    }

    /// Uses every token at a gate, over and over: accepted until it is being revoked, never again once it was refused.
    async fn load(self: Arc<Self>, gate: usize) -> usize {
        let mut requests = 0;
        while !self.done.load(Ordering::SeqCst) {
            for hot in &self.tokens {
                let was_refused = hot.refused.load(Ordering::SeqCst);
                let status = self.gates[gate].status(&hot.token).await;
                match status {
                    200 => assert!(!was_refused, "it was revived"),
                    _ => assert!(status == 401 && hot.revoking.load(Ordering::SeqCst), "{status}: it was not revoked"),
                }
                requests += 1;
                yield_now().await;
            }
        }
        requests
    }

    /// Revokes tokens in turn, and answers how long after each revocation had returned each gate last accepted it.
    async fn revoke_every(self: Arc<Self>, desk: S, first: usize) -> Vec<Duration> {
        let mut lags = Vec::new();
        for hot in self.tokens.iter().skip(first).step_by(WRITERS) {
            hot.revoking.store(true, Ordering::SeqCst);
            revoke(&desk, &hot.token).await;
            let returned = now();
            lags.extend(join_all(self.gates.iter().map(|gate| last_accept(gate, &hot.token, returned))).await);
            hot.refused.store(true, Ordering::SeqCst);
        }
        lags
    }
}

/// Whether figures are not only printed.
pub(super) fn is_measuring() -> bool {
    std::env::var_os("MEASURE").is_some()
}

#[expect(clippy::disallowed_methods, reason = "what is measured is how much time passes")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Nothing but the feed ends this: the gate's clock stands still.
async fn last_accept<S: tower_token_auth::TokenStore + Clone + 'static>(
    gate: &Gate<S>,
    token: &PlaintextToken,
    returned: Instant,
) -> Duration {
    let mut last = Duration::ZERO;
    while gate.status(token).await == 200 {
        last = now().duration_since(returned);
        assert!(last < PATIENCE, "nobody tells the gate");
        yield_now().await;
    }
    last
}

/// `MEASURE=1 cargo test --all-features --test it revoked_on_one -- --nocapture --test-threads 1` prints the figures, and
/// asserts them.
pub(super) async fn revoked_on_one_is_refused_on_all<D: Database>(name: &str, database: &D) {
    let (desk, cluster) = (database.open().await, Arc::new(Cluster::of(database).await));
    for gate in &cluster.gates {
        let statuses = join_all(cluster.tokens.iter().map(|hot| gate.status(&hot.token))).await;
        assert!(statuses.iter().all(|status| *status == 200), "all are hot");
    }
    let load: Vec<_> = (0..GATES).map(|gate| tokio::spawn(Arc::clone(&cluster).load(gate))).collect();
    let revoker = |first| tokio::spawn(Arc::clone(&cluster).revoke_every(desk.clone(), first));
    let lags = try_join_all((0..WRITERS).map(revoker)).await.unwrap();
    cluster.done.store(true, Ordering::SeqCst);
    let requests: usize = try_join_all(load).await.unwrap().into_iter().sum();
    let mut lags: Vec<_> = lags.into_iter().flatten().collect();
    assert_eq!(lags.len(), GATES * REVOCATIONS);
    for (gate, hot) in cluster.gates.iter().flat_map(|gate| cluster.tokens.iter().map(move |hot| (gate, hot))) {
        assert_eq!(gate.status(&hot.token).await, 401);
    }
    report(name, &mut lags, requests);
}

#[expect(clippy::print_stdout, reason = "figures are for people")]
fn report(name: &str, lags: &mut [Duration], requests: usize) {
    lags.sort_unstable();
    let [half, most, all] = [50, 99, 100].map(|percent| lags[(lags.len() * percent / 100).min(lags.len() - 1)]);
    println!(
        "{name}: p50 {half:.1?}, p99 {most:.1?}, max {all:.1?} over {} refusals beside {requests} requests",
        lags.len()
    );
    assert!(!is_measuring() || most < TARGET, "{most:?}");
}
