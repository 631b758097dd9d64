//! A gate that reads from a replica which lags behind.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tower_token_auth::{
    Actor, IssuePolicy, OwnerId, PlaintextToken, StoreError, TokenFilter, TokenId, TokenRecord, TokenRegistry,
    TokenStore,
};

use super::{Database, Gate, OWNER, TTL, eventually, mint_many, revoke_all};

const TOKENS: usize = 50;

/// Reads as the primary does, or what was there at a time in the past.
#[derive(Clone)]
struct Replica<S> {
    primary: S,
    past: Arc<Mutex<Option<Past>>>,
}

type Past = HashMap<TokenId, TokenRecord>;

impl<S: TokenRegistry> Replica<S> {
    fn of(primary: S) -> Self {
        Self { primary, past: Arc::default() }
    }

    /// What is there now.
    async fn snapshot(&self) -> Past {
        let page = self.primary.list(&TokenFilter::all().page_size(10_000), None).await.unwrap();
        page.records.into_iter().map(|record| (record.id(), record)).collect()
    }

    /// From now on, or no more.
    fn fall_back_to(&self, past: Option<&Past>) {
        *self.past.lock().unwrap() = past.cloned();
    }
}

impl<S: TokenRegistry> TokenStore for Replica<S> {
    async fn find(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        let past = self.past.lock().unwrap().as_ref().map(|past| past.get(id).cloned());
        match past {
            Some(found) => Ok(found),
            None => self.primary.find(id).await,
        }
    }
}

const WAYS: [Way; 6] = [Way::None, Way::Ttl, Way::Feed, Way::Token, Way::Owner, Way::All];

/// What makes a gate ask again.
#[derive(Debug, Clone, Copy)]
enum Way {
    None,
    Ttl,
    Feed,
    Token,
    Owner,
    All,
}

/// A gate over a replica, and the primary it lags behind.
struct Lagging<S> {
    desk: S,
    gate: Gate<Replica<S>>,
    revoked: Vec<PlaintextToken>,
    kept: Vec<PlaintextToken>,
}

impl<S: TokenRegistry + Clone + 'static> Lagging<S> {
    async fn ask_again(&self, way: Way) {
        let (handle, owner) = (self.gate.handle(), OwnerId::new(OWNER).unwrap());
        match way {
            Way::None => {}
            Way::Ttl => self.gate.clock.advance(TTL),
            Way::Feed => self.tell(&owner).await,
            Way::Token => self.revoked.iter().chain(&self.kept).for_each(|token| handle.invalidate(&token.id())),
            Way::Owner => handle.invalidate_owner(&owner),
            Way::All => handle.invalidate_all(),
        }
    }

    /// Bars the owner and lifts the bar; waits each time until the gate asks again because it was told.
    async fn tell(&self, owner: &OwnerId) {
        for bar in [true, false] {
            self.gate.status(&self.kept[0]).await;
            let finds = self.gate.finds();
            match bar {
                true => self.desk.bar_owner(owner).await.unwrap(),
                false => self.desk.lift_owner(owner).await.unwrap(),
            }
            eventually(|| async {
                self.gate.status(&self.kept[0]).await;
                self.gate.finds() > finds
            })
            .await;
        }
    }

    async fn assert_all(&self, tokens: &[PlaintextToken], expected: u16, when: &str) {
        for token in tokens {
            assert_eq!(self.gate.status(token).await, expected, "{when}");
        }
    }
}

/// Some tokens are revoked by another process, some at a desk of this one while the replica lags already; of either kind
/// some were proved here before and some never.
pub(super) async fn a_replica_that_lags_revives_nothing<D: Database>(database: &D) {
    let desk = database.open().await;
    let gate = Gate::over(Replica::of(database.open().await));
    let nothing = gate.store.snapshot().await;
    let (revoked, kept) = (mint_many(&desk, TOKENS).await, mint_many(&desk, 5).await);
    gate.follow(database.feed(&gate.store.primary)).await;
    let lagging = Lagging { desk, gate, revoked, kept };
    for token in lagging.revoked.iter().step_by(2).chain(&lagging.kept) {
        assert_eq!(lagging.gate.status(token).await, 200);
    }
    let before = lagging.gate.store.snapshot().await;
    let (elsewhere, here) = lagging.revoked.split_at(TOKENS / 2);
    revoke_all(&lagging.desk, elsewhere).await;
    for token in elsewhere {
        eventually(|| async { lagging.gate.status(token).await == 401 }).await;
    }
    lagging.gate.store.fall_back_to(Some(&before));
    let own_desk = lagging.gate.auth.issuer(lagging.desk.clone(), IssuePolicy::default());
    for token in here {
        own_desk.revoke(&Actor::system("test"), &token.id()).await.unwrap();
    }
    let hashes = lagging.gate.hashes();
    for (past, kept) in [(&before, 200), (&nothing, 401), (&before, 200)] {
        lagging.gate.store.fall_back_to(Some(past));
        for way in WAYS {
            lagging.ask_again(way).await;
            lagging.assert_all(&lagging.revoked, 401, &format!("{way:?}, where the others are {kept}")).await;
        }
        lagging.assert_all(&lagging.kept, kept, "what was not revoked is as the replica says").await;
    }
    lagging.gate.store.fall_back_to(None);
    lagging.gate.handle().invalidate_all();
    lagging.assert_all(&lagging.revoked, 401, "in the end").await;
    lagging.assert_all(&lagging.kept, 200, "in the end").await;
    assert_eq!(lagging.gate.hashes(), hashes);
}
