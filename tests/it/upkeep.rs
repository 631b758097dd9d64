//! What a use shows of a secret: an outdated hash is made anew, a rotation learns that its new secret is in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::yield_now;
use tower_token_auth::{
    Argon2Cost, Argon2Hasher, Change, Clock, HashCost, HashError, IssuePolicy, Label, PlaintextToken, Prefix,
    RetiringSecret, Scope, Scratch, SecretHash, SecretHasher, Sha256Hasher, TokenRecord, TokenRegistry, TokenSecret,
    TokenState, UpkeepStats,
};

use crate::ahead::{settle, with_background};
use crate::cache_rules::bench::{Bench, forge, status};
use crate::last_used::ledger::{Ledger, Mood};

const HOUR: Duration = Duration::from_secs(3_600);
const TIMEOUT: Duration = Duration::from_secs(2);

/// A hasher that is counted, and may disown or panic over what it is asked to call current.
#[derive(Clone)]
struct Watched {
    inner: Arc<dyn SecretHasher>,
    hashes: Arc<AtomicUsize>,
    verifications: Arc<AtomicUsize>,
    disowns: Arc<AtomicBool>,
    panics: Arc<AtomicBool>,
}

impl Watched {
    fn new(inner: impl SecretHasher) -> Self {
        let (hashes, verifications) = (Arc::default(), Arc::default());
        Self { inner: Arc::new(inner), hashes, verifications, disowns: Arc::default(), panics: Arc::default() }
    }

    /// Hashes and verifications so far.
    fn counts(&self) -> (usize, usize) {
        (self.hashes.load(Ordering::SeqCst), self.verifications.load(Ordering::SeqCst))
    }
}

impl SecretHasher for Watched {
    fn recognises(&self, hash: &SecretHash) -> bool {
        self.inner.recognises(hash)
    }

    fn cost(&self) -> HashCost {
        self.inner.cost()
    }

    fn hash(&self, secret: &TokenSecret, scratch: &mut Scratch) -> Result<SecretHash, HashError> {
        self.hashes.fetch_add(1, Ordering::SeqCst);
        self.inner.hash(secret, scratch)
    }

    fn verify(&self, secret: &TokenSecret, hash: &SecretHash, scratch: &mut Scratch) -> Result<bool, HashError> {
        self.verifications.fetch_add(1, Ordering::SeqCst);
        self.inner.verify(secret, hash, scratch)
    }

    fn is_current(&self, hash: &SecretHash) -> bool {
        assert!(!self.panics.load(Ordering::SeqCst), "on purpose");
        !self.disowns.load(Ordering::SeqCst) && self.inner.is_current(hash)
    }
}

fn argon2(memory_kib: u32) -> Argon2Hasher {
    Argon2Hasher::new().with_cost(Argon2Cost::new(memory_kib, 1, 1)).unwrap()
}

fn hash_by(hasher: &dyn SecretHasher, token: &PlaintextToken) -> SecretHash {
    let hash = hasher.hash(token.secret(), &mut Scratch::new()).unwrap();
    hash.with_precheck(&token.id(), token.secret())
}

fn text(hash: &SecretHash) -> String {
    hash.to_text()
}

/// A gate of today's hasher that also knows SHA-256, and the registry it writes to.
struct Yard {
    bench: Bench,
    ledger: Ledger,
    hasher: Watched,
}

fn yard(today: impl SecretHasher) -> Yard {
    let hasher = Watched::new(today);
    let bench = Bench::with(|builder| builder.hasher(hasher.clone()).also_accept(Sha256Hasher::new()));
    let ledger = Ledger::over(bench.store.inner().clone());
    drop(bench.auth.issuer(ledger.clone(), IssuePolicy::default()));
    Yard { bench, ledger, hasher }
}

impl Yard {
    /// A token whose record is made by `record` of one that another hasher has hashed.
    async fn token(
        &self,
        hasher: &dyn SecretHasher,
        record: impl FnOnce(TokenRecord) -> TokenRecord,
    ) -> PlaintextToken {
        let token = PlaintextToken::generate(&Prefix::default()).unwrap();
        let (_, draft) = self.bench.draft(Scope::ReadOnly);
        let (owner, label) = (draft.owner().clone(), draft.label().clone());
        let made =
            TokenRecord::new(token.id(), owner, label, Scope::ReadOnly, hash_by(hasher, &token), draft.created_at());
        self.bench.store.insert(record(made)).await.unwrap();
        token
    }

    fn stats(&self) -> UpkeepStats {
        self.bench.auth.handle().stats().upkeep
    }

    /// Waits until so many re-hashes are over.
    async fn over(&self, rehashes: u64) {
        while self.stats().rehashed + self.stats().not_rehashed < rehashes {
            yield_now().await;
        }
        settle().await;
    }

    #[track_caller]
    fn assert_rehashes(&self, done: u64, not_done: u64) {
        assert_eq!((self.stats().rehashed, self.stats().not_rehashed), (done, not_done), "(done, not done)");
    }

    async fn stored(&self, token: &PlaintextToken) -> String {
        text(self.bench.record(token).await.secret())
    }
}

/// The holder comes once, the hash is made anew, and they are not hashed again.
async fn is_hashed_anew(yard: &Yard, token: &PlaintextToken) -> String {
    let before = yard.bench.record(token).await;
    let _background = with_background(&yard.bench).await;
    assert_eq!(yard.bench.status(token).await, 200);
    yard.over(1).await;
    yard.assert_rehashes(1, 0);
    let after = yard.bench.record(token).await;
    assert_eq!((after.revision(), yard.ledger.updates()), (before.revision().next(), 1));
    assert!(after.secret().to_text().starts_with("$tta$"), "it carries a precheck");
    assert!(yard.hasher.verify(token.secret(), after.secret(), &mut Scratch::new()).unwrap());
    let counts = yard.hasher.counts();
    for _ in 0..3 {
        assert_eq!(yard.bench.status(token).await, 200);
        yard.bench.invalidate(&token.id());
    }
    assert_eq!(yard.hasher.counts(), counts, "the new hash is proved from the first");
    yard.assert_rehashes(1, 0);
    text(after.secret())
}

#[tokio::test]
async fn a_hash_of_other_parameters_is_made_anew() {
    let yard = yard(argon2(16));
    let token = yard.token(&argon2(8), |record| record).await;
    assert!(is_hashed_anew(&yard, &token).await.contains("m=16,"));
}

#[tokio::test]
async fn a_hash_under_an_old_pepper_is_made_anew_under_the_new_one() {
    let old = argon2(8).with_pepper("k1", b"old pepper").unwrap();
    let yard = yard(argon2(8).with_pepper("k2", b"new pepper").unwrap().accepting_pepper("k1", b"old pepper").unwrap());
    let token = yard.token(&old, |record| record).await;
    is_hashed_anew(&yard, &token).await;
    let stored = yard.bench.record(&token).await.secret().clone();
    let only_new = argon2(8).with_pepper("k2", b"new pepper").unwrap();
    assert!(only_new.verify(token.secret(), &stored, &mut Scratch::new()).unwrap(), "the old pepper can go");
}

#[tokio::test]
async fn a_hash_of_another_scheme_is_made_anew() {
    let yard = yard(argon2(8));
    let token = yard.token(&Sha256Hasher::new(), |record| record).await;
    assert!(is_hashed_anew(&yard, &token).await.contains("$argon2id$"));
}

#[tokio::test]
async fn an_inline_hasher_rehashes_too() {
    let yard = yard(Sha256Hasher::new());
    let without = |record: TokenRecord| {
        let hash = SecretHash::parse(record.secret().phc()).unwrap();
        record.with_secret(hash)
    };
    let token = yard.token(&Sha256Hasher::new(), without).await;
    is_hashed_anew(&yard, &token).await;
}

#[tokio::test]
async fn a_hash_without_a_precheck_gets_one_and_stays() {
    let yard = yard(argon2(8));
    let mut phc = String::new();
    let without = |record: TokenRecord| {
        phc = record.secret().phc().to_owned();
        record.with_secret(SecretHash::parse(&phc).unwrap())
    };
    let token = yard.token(&argon2(8), without).await;
    assert!(is_hashed_anew(&yard, &token).await.ends_with(&phc));
    assert_eq!(yard.hasher.counts().0, 0, "nothing is hashed");
}

#[tokio::test]
async fn a_hash_as_it_is_made_today_is_left_alone() {
    let yard = yard(argon2(8));
    let token = yard.token(&argon2(8), |record| record).await;
    let _background = with_background(&yard.bench).await;
    assert_eq!(yard.bench.status(&token).await, 200);
    settle().await;
    yard.assert_rehashes(0, 0);
    assert_eq!((yard.stats().successors, yard.ledger.updates()), (0, 0));
}

#[tokio::test]
async fn only_the_secret_that_was_shown_is_hashed_anew() {
    for (shows_old, used) in [(true, false), (true, true), (false, true)] {
        let yard = yard(argon2(8));
        let (old, until) = (yard.bench.stranger(), yard.bench.clock.wall() + HOUR);
        let mut kept = None;
        let rotated = |record: TokenRecord| {
            let hash = Sha256Hasher::new().hash(old.secret(), &mut Scratch::new()).unwrap();
            let retiring = RetiringSecret::new(hash.with_precheck(&record.id(), old.secret()), until);
            kept = Some(retiring.clone().with_successor_used(used));
            record.with_retiring(kept.clone())
        };
        let token = yard.token(&Sha256Hasher::new(), rotated).await;
        let before = yard.bench.record(&token).await;
        let _background = with_background(&yard.bench).await;
        let shown = if shows_old { &old } else { &token };
        let request = forge(&token.id(), shown);
        assert_eq!(status(&yard.bench.auth, &request).await, 200);
        yard.over(1).await;
        yard.assert_rehashes(1, 0);
        let after = yard.bench.record(&token).await;
        let (was, is) = (before.retiring().unwrap(), after.retiring().unwrap());
        assert_eq!(after.secret() == before.secret(), shows_old, "the current secret");
        assert_eq!(is.secret() == was.secret(), !shows_old, "the retiring secret");
        assert_eq!((is.until(), is.successor_used()), (until, used));
        assert!(if shows_old { is.secret() } else { after.secret() }.to_text().contains("$argon2id$"));
    }
}

#[tokio::test]
async fn a_record_that_changes_meanwhile_is_left_to_the_next_cold_start() {
    let yard = yard(argon2(8));
    let token = yard.token(&Sha256Hasher::new(), |record| record).await;
    yard.ledger.change_after_find(Change::Label(Label::new("renamed").unwrap()));
    let background = with_background(&yard.bench).await;
    assert_eq!(yard.bench.status(&token).await, 200);
    yard.over(1).await;
    yard.assert_rehashes(0, 1);
    assert_eq!(yard.bench.record(&token).await.label().as_str(), "renamed");
    assert!(yard.stored(&token).await.contains("$sha256$"));
    assert_eq!(yard.bench.status(&token).await, 200);
    background.abort();
    let bench =
        Bench::with(|builder| builder.hasher(argon2(8)).also_accept(Sha256Hasher::new()).upkeep(yard.ledger.clone()));
    bench.store.insert(yard.bench.record(&token).await).await.unwrap();
    let _background = with_background(&bench).await;
    assert_eq!(bench.status(&token).await, 200);
    while bench.auth.handle().stats().upkeep.rehashed == 0 {
        yield_now().await;
    }
    assert!(yard.stored(&token).await.contains("$argon2id$"));
}

#[tokio::test]
async fn a_dead_token_and_a_replaced_secret_are_not_hashed_anew() {
    let secret = hash_by(&Sha256Hasher::new(), &yard(argon2(8)).bench.stranger());
    for change in [Change::Pause, Change::Secrets { secret, retiring: None }] {
        let yard = yard(argon2(8));
        let token = yard.token(&Sha256Hasher::new(), |record| record).await;
        yard.ledger.change_before_find(change);
        let _background = with_background(&yard.bench).await;
        assert_eq!(yard.bench.status(&token).await, 200);
        yard.over(1).await;
        yard.assert_rehashes(0, 1);
        assert_eq!((yard.ledger.updates(), yard.hasher.counts().0), (0, 0));
    }
}

#[tokio::test]
async fn a_registry_in_trouble_delays_and_fails_no_request() {
    for trouble in Mood::TROUBLES {
        let yard = yard(argon2(8));
        let (one, two) = (
            yard.token(&Sha256Hasher::new(), |record| record).await,
            yard.token(&Sha256Hasher::new(), |record| record).await,
        );
        let _background = with_background(&yard.bench).await;
        yard.ledger.be(trouble);
        assert_eq!(yard.bench.status(&one).await, 200);
        settle().await;
        assert_eq!(yard.bench.status(&one).await, 200, "{trouble:?}");
        yard.bench.clock.advance(TIMEOUT);
        yard.over(1).await;
        yard.assert_rehashes(0, 1);
        yard.ledger.be(Mood::Works);
        assert_eq!(yard.bench.status(&two).await, 200);
        yard.over(2).await;
        yard.assert_rehashes(1, 1);
    }
}

#[tokio::test]
async fn what_finds_no_place_is_given_up() {
    const QUEUE: u64 = 64;
    let yard = yard(argon2(8));
    let _background = with_background(&yard.bench).await;
    yard.ledger.be(Mood::Hangs);
    for number in 0..QUEUE + 10 {
        let token = yard.token(&Sha256Hasher::new(), |record| record).await;
        assert_eq!(yard.bench.status(&token).await, 200);
        if number == 0 {
            settle().await;
        }
    }
    yard.assert_rehashes(0, 9);
    yard.ledger.be(Mood::Works);
    yard.bench.clock.advance(TIMEOUT);
    yard.over(QUEUE + 10).await;
    yard.assert_rehashes(QUEUE, 10);
}

#[tokio::test]
async fn without_a_background_or_a_registry_nothing_waits() {
    let yard = yard(argon2(8));
    let token = yard.token(&Sha256Hasher::new(), |record| record).await;
    assert_eq!(yard.bench.status(&token).await, 200);
    let _background = with_background(&yard.bench).await;
    assert_eq!(yard.bench.status(&token).await, 200);
    settle().await;
    yard.assert_rehashes(0, 0);
    let bench = Bench::with(|builder| builder.hasher(argon2(8)).also_accept(Sha256Hasher::new()));
    bench.store.insert(yard.bench.record(&token).await).await.unwrap();
    let _background = with_background(&bench).await;
    assert_eq!(bench.status(&token).await, 200);
    settle().await;
    assert_eq!(bench.auth.handle().stats().upkeep, UpkeepStats::default());
}

#[tokio::test]
async fn a_hasher_that_never_calls_its_hashes_current_is_asked_once() {
    let yard = yard(argon2(8));
    yard.hasher.disowns.store(true, Ordering::SeqCst);
    let token = yard.token(&argon2(8), |record| record).await;
    let _background = with_background(&yard.bench).await;
    assert_eq!(yard.bench.status(&token).await, 200);
    yard.over(1).await;
    for _ in 0..3 {
        yard.bench.invalidate(&token.id());
        assert_eq!(yard.bench.status(&token).await, 200);
    }
    settle().await;
    yard.assert_rehashes(0, 1);
    assert_eq!((yard.hasher.counts(), yard.ledger.updates()), ((1, 1), 0));
}

#[tokio::test]
async fn a_hasher_that_panics_over_a_hash_harms_nobody() {
    for offloaded in [true, false] {
        let yard = if offloaded { yard(argon2(8)) } else { yard(Sha256Hasher::new()) };
        yard.hasher.panics.store(true, Ordering::SeqCst);
        let token = yard.token(&*yard.hasher.inner.clone(), |record| record).await;
        let _background = with_background(&yard.bench).await;
        assert_eq!(yard.bench.status(&token).await, 200);
        settle().await;
        yard.assert_rehashes(0, 0);
    }
}

#[tokio::test]
async fn a_gate_that_is_shut_down_rehashes_no_more() {
    let yard = yard(argon2(8));
    let token = yard.token(&Sha256Hasher::new(), |record| record).await;
    let background = with_background(&yard.bench).await;
    yard.bench.auth.handle().shutdown(TIMEOUT).await.unwrap();
    background.await.unwrap();
    assert_eq!(yard.bench.status(&token).await, 200);
    yard.assert_rehashes(0, 0);
}

/// A rotated token whose two hashes are as today, and its old secret.
async fn rotated(yard: &Yard) -> (PlaintextToken, PlaintextToken) {
    let (old, until) = (yard.bench.stranger(), yard.bench.clock.wall() + HOUR);
    let retiring = |record: TokenRecord| {
        let hash = yard.hasher.inner.hash(old.secret(), &mut Scratch::new()).unwrap();
        let hash = hash.with_precheck(&record.id(), old.secret());
        record.with_retiring(Some(RetiringSecret::new(hash, until)))
    };
    let token = yard.token(&*yard.hasher.inner.clone(), retiring).await;
    (token, old)
}

async fn successor_used(yard: &Yard, token: &PlaintextToken) -> bool {
    settle().await;
    yard.bench.record(token).await.retiring().unwrap().successor_used()
}

async fn show(yard: &Yard, token: &PlaintextToken, secret: &PlaintextToken) -> u16 {
    status(&yard.bench.auth, &forge(&token.id(), secret)).await
}

#[tokio::test]
async fn a_rotation_learns_once_that_its_new_secret_is_in_use() {
    let yard = yard(Sha256Hasher::new());
    let (token, old) = rotated(&yard).await;
    let before = yard.bench.record(&token).await;
    let _background = with_background(&yard.bench).await;
    assert_eq!(show(&yard, &token, &old).await, 200);
    assert!(!successor_used(&yard, &token).await, "that was the old one");
    for _ in 0..3 {
        assert_eq!(show(&yard, &token, &token).await, 200);
        assert!(successor_used(&yard, &token).await);
    }
    assert_eq!((yard.ledger.updates(), yard.stats().successors), (1, 1));
    yard.assert_rehashes(0, 0);
    let after = yard.bench.record(&token).await;
    let (was, is) = (before.retiring().unwrap(), after.retiring().unwrap());
    assert_eq!((after.secret(), is.secret(), is.until()), (before.secret(), was.secret(), was.until()));
    assert_eq!(show(&yard, &token, &old).await, 200, "the old one goes on");
}

#[tokio::test]
async fn a_secret_that_is_proved_already_is_told_of_when_it_is_shown() {
    let yard = yard(argon2(8));
    let (token, _) = rotated(&yard).await;
    assert_eq!(yard.bench.status(&token).await, 200);
    let _background = with_background(&yard.bench).await;
    assert_eq!(yard.bench.status(&token).await, 200);
    assert!(!successor_used(&yard, &token).await, "told once for each record that is read");
    yard.bench.clock.advance(Duration::from_secs(24));
    assert_eq!(yard.bench.status(&token).await, 200, "the background looks it up ahead");
    settle().await;
    assert_eq!(yard.bench.status(&token).await, 200, "and a hot request tells");
    assert!(successor_used(&yard, &token).await);
    assert_eq!(yard.hasher.counts().1, 1, "one verification in all");
}

#[tokio::test]
async fn an_overlap_that_is_over_needs_to_learn_nothing() {
    let yard = yard(Sha256Hasher::new());
    let (token, _) = rotated(&yard).await;
    let _background = with_background(&yard.bench).await;
    yard.bench.clock.advance(HOUR);
    assert_eq!(yard.bench.status(&token).await, 200);
    assert!(!successor_used(&yard, &token).await);
    assert_eq!(yard.ledger.updates(), 0);
}

#[tokio::test]
async fn a_new_secret_that_was_replaced_is_not_taken_for_its_replacement() {
    let yard = yard(Sha256Hasher::new());
    let (token, _) = rotated(&yard).await;
    let record = yard.bench.record(&token).await;
    let replacement = hash_by(&Sha256Hasher::new(), &yard.bench.stranger());
    yard.ledger.change_before_find(Change::Secrets { secret: replacement, retiring: record.retiring().cloned() });
    let _background = with_background(&yard.bench).await;
    assert_eq!(yard.bench.status(&token).await, 200);
    assert!(!successor_used(&yard, &token).await);
    assert_eq!(yard.ledger.updates(), 0);
}

#[tokio::test]
async fn a_rotation_and_an_outdated_hash_are_one_change() {
    let yard = yard(argon2(8));
    let (old, until) = (yard.bench.stranger(), yard.bench.clock.wall() + HOUR);
    let retiring = |record: TokenRecord| {
        let hash = Sha256Hasher::new().hash(old.secret(), &mut Scratch::new()).unwrap();
        record.with_retiring(Some(RetiringSecret::new(hash, until)))
    };
    let token = yard.token(&Sha256Hasher::new(), retiring).await;
    let _background = with_background(&yard.bench).await;
    assert_eq!(yard.bench.status(&token).await, 200);
    yard.over(1).await;
    assert!(successor_used(&yard, &token).await);
    assert!(yard.stored(&token).await.contains("$argon2id$"));
    assert_eq!((yard.stats().rehashed, yard.stats().successors, yard.ledger.updates()), (1, 1, 1));
    assert_eq!(yard.bench.record(&token).await.state(), TokenState::Active);
}
