//! What clients see while the server is away, and after it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::{join, try_join_all};
use tokio::task::yield_now;
use tower_token_auth::test_util::draft_with;
use tower_token_auth::{Argon2Hasher, FeedState, PlaintextToken, Prefix, Scope, TokenRegistry, TokenStore};

use super::{Database, Gate, OWNER, TTL, eventually, revoke};
use crate::servers::Server;

const HOT: usize = 10;
/// Requests of the same token at once.
const CLIENTS: usize = 4;

/// Tokens by what the server knows of them.
struct Clients<S> {
    gate: Gate<S>,
    hot: Vec<PlaintextToken>,
    revoked: PlaintextToken,
    stranger: PlaintextToken,
    /// How often those who ask on were told of the outage.
    outages: AtomicUsize,
    done: AtomicBool,
}

async fn argon2(store: &impl TokenRegistry) -> PlaintextToken {
    let (token, record) = draft_with(&Argon2Hasher::new(), &Prefix::default(), OWNER, Scope::ReadOnly).unwrap();
    store.insert(record).await.unwrap();
    token
}

impl<S: TokenRegistry + Clone + 'static> Clients<S> {
    async fn of(database: &impl Database<Store = S>) -> Self {
        let store = database.open().await;
        let (mut hot, revoked) = (Vec::new(), argon2(&store).await);
        for _ in 0..HOT {
            hot.push(argon2(&store).await);
        }
        let gate = Gate::with(store, |gate| gate.hasher(Argon2Hasher::new()));
        let stranger = PlaintextToken::generate(&Prefix::default()).unwrap();
        Self { gate, hot, revoked, stranger, outages: AtomicUsize::new(0), done: AtomicBool::new(false) }
    }

    /// What each kind of token is answered.
    async fn ask(&self) -> Statuses {
        let others = join(self.gate.status(&self.revoked), self.gate.status(&self.stranger));
        let (hot, (revoked, stranger)) = join(self.gate.statuses(&self.hot), others).await;
        Statuses { hot: hot.into_iter().collect(), revoked: [revoked].into(), stranger: [stranger].into() }
    }

    async fn ask_on(self: Arc<Self>) -> Statuses {
        let mut seen = Statuses::default();
        while !self.done.load(Ordering::SeqCst) {
            let now = self.ask().await;
            self.outages.fetch_add(usize::from(now.hot.contains(&503)), Ordering::SeqCst);
            seen.hot.extend(now.hot);
            seen.revoked.extend(now.revoked);
            seen.stranger.extend(now.stranger);
            yield_now().await;
        }
        seen
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Statuses {
    hot: HashSet<u16>,
    revoked: HashSet<u16>,
    stranger: HashSet<u16>,
}

impl Statuses {
    fn of(hot: &[u16], revoked: &[u16], stranger: &[u16]) -> Self {
        let set = |statuses: &[u16]| statuses.iter().copied().collect();
        Self { hot: set(hot), revoked: set(revoked), stranger: set(stranger) }
    }

    fn are_among(&self, others: &Self) -> bool {
        let among = |these: &HashSet<u16>, others| these.is_subset(others);
        among(&self.hot, &others.hot)
            && among(&self.revoked, &others.revoked)
            && among(&self.stranger, &others.stranger)
    }
}

/// The gate and its clients live through it all.
pub(super) async fn a_crash_of_the_server_is_503_and_no_storm_of_hashes<D: Database>(mut server: Server, database: &D) {
    let clients = Arc::new(Clients::of(database).await);
    let (gate, desk) = (&clients.gate, database.open().await);
    let following = gate.follow(database.feed(&gate.store)).await;
    assert_eq!(gate.status(&clients.revoked).await, 200);
    revoke(&desk, &clients.revoked).await;
    eventually(|| async { gate.status(&clients.revoked).await == 401 }).await;
    assert_eq!(clients.ask().await, Statuses::of(&[200], &[401], &[401]));
    let last = argon2(&desk).await;
    assert_eq!(gate.status(&last).await, 200);
    let hashes = gate.hashes();
    assert_eq!(hashes, HOT as u64 + 2);
    let asking: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(Arc::clone(&clients).ask_on())).collect();

    server.crash();
    gate.reach(FeedState::Interrupted).await;
    assert_eq!(clients.ask().await, Statuses::of(&[200], &[401], &[401]), "what is fresh needs no server");
    gate.clock.advance(TTL);
    assert_eq!(clients.ask().await, Statuses::of(&[503], &[503], &[503]));

    eventually(|| async { clients.outages.load(Ordering::SeqCst) >= 2 * CLIENTS }).await;

    server.start_again();
    eventually(|| async { clients.ask().await == Statuses::of(&[200], &[401], &[401]) }).await;
    clients.done.store(true, Ordering::SeqCst);
    for seen in try_join_all(asking).await.unwrap() {
        assert!(seen.are_among(&Statuses::of(&[200, 503], &[401, 503], &[401, 503])), "{seen:?}");
    }
    // Where the feed's own user has to be made anew.
    drop(database.open().await);
    gate.reconnect().await;
    assert_eq!(clients.ask().await, Statuses::of(&[200], &[401], &[401]));
    eventually(|| async { desk.find(&last.id()).await.is_ok() }).await;
    revoke(&desk, &last).await;
    eventually(|| async { gate.status(&last).await == 401 }).await;
    assert!(!following.is_finished());
    assert_eq!(gate.hashes(), hashes, "what was proved is not proved again");
}
