//! What a gate remembers, for how long, and what ends it: counted in look-ups and hashes, through the whole layer.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use tower_token_auth::test_util::{CheapHasher, ManualClock, ScriptedStore, draft, draft_with};
use tower_token_auth::{
    Access, CacheConfig, Change, Clock, LookupLimits, OwnerId, PlaintextToken, Prefix, RetiringSecret, Scope, Scratch,
    SecretHash, SecretHasher, Sha256Hasher, StoreError, TokenAuthBuilder, TokenAuthLayer, TokenId, TokenRecord,
    TokenRegistry, TokenState, TokenStore, VerifyLimits,
};

use bench::{Bench, forge, status};

/// A gate with everything that can be counted, held or turned, and the requests to send it.
pub(crate) mod bench {
    use std::convert::Infallible;

    use axum::body::Body;
    use http::header::AUTHORIZATION;
    use http::{Method, Request, Response};
    use tower::{Layer, ServiceExt, service_fn};
    use tower_token_auth::test_util::{CheapHasher, ManualClock, RecordingSink, ScriptedStore, draft_with};
    use tower_token_auth::{
        Change, Clock, PlaintextToken, Prefix, Reason, Scope, Scratch, SecretHasher, TokenAuthBuilder, TokenAuthLayer,
        TokenId, TokenRecord, TokenRegistry, TokenStore,
    };

    pub(crate) struct Bench {
        pub(crate) store: ScriptedStore,
        pub(crate) clock: ManualClock,
        pub(crate) hasher: CheapHasher,
        pub(crate) sink: RecordingSink,
        pub(crate) auth: TokenAuthLayer,
    }

    impl Bench {
        pub(crate) fn new() -> Self {
            Self::with(|builder| builder)
        }

        pub(crate) fn with(configure: impl FnOnce(TokenAuthBuilder) -> TokenAuthBuilder) -> Self {
            let (store, clock) = (ScriptedStore::default(), ManualClock::default());
            let (hasher, sink) = (CheapHasher::new(), RecordingSink::new());
            let builder =
                TokenAuthLayer::builder(store.clone()).clock(clock.clone()).hasher(hasher.clone()).audit(sink.clone());
            let auth = configure(builder).build().unwrap();
            Self { store, clock, hasher, sink, auth }
        }

        /// A token and its record, in no store yet.
        pub(crate) fn draft(&self, scope: Scope) -> (PlaintextToken, TokenRecord) {
            draft_with(&self.hasher, &Prefix::default(), "alice", scope).unwrap()
        }

        /// A token in the store, which the gate has not met.
        pub(crate) async fn token(&self, scope: Scope) -> PlaintextToken {
            let (token, record) = self.draft(scope);
            self.store.insert(record).await.unwrap();
            token
        }

        /// A token the gate has proved and remembers.
        pub(crate) async fn hot(&self, scope: Scope) -> PlaintextToken {
            let token = self.token(scope).await;
            assert_eq!(self.status(&token).await, 200);
            token
        }

        /// A token that is in no store.
        pub(crate) fn stranger(&self) -> PlaintextToken {
            PlaintextToken::generate(&Prefix::default()).unwrap()
        }

        /// Puts the record of a token that was made elsewhere into the store.
        pub(crate) async fn keep(&self, token: &PlaintextToken, scope: Scope) {
            let (_, made) = self.draft(scope);
            let hash = self.hasher.hash(token.secret(), &mut Scratch::new()).unwrap();
            let (owner, label) = (made.owner().clone(), made.label().clone());
            let record = TokenRecord::new(token.id(), owner, label, scope, hash, made.created_at());
            self.store.insert(record).await.unwrap();
        }

        pub(crate) async fn record(&self, token: &PlaintextToken) -> TokenRecord {
            self.store.inner().find(&token.id()).await.unwrap().unwrap()
        }

        /// Changes the record behind the gate's back.
        pub(crate) async fn change(&self, token: &PlaintextToken, change: Change) {
            let revision = self.record(token).await.revision();
            self.store.update(&token.id(), revision, change).await.unwrap();
        }

        /// Revokes behind the gate's back.
        pub(crate) async fn revoke(&self, token: &PlaintextToken) {
            self.change(token, Change::Revoke { at: self.clock.wall() }).await;
        }

        pub(crate) fn invalidate(&self, id: &TokenId) {
            self.auth.handle().invalidate(id);
        }

        pub(crate) async fn status(&self, token: &PlaintextToken) -> u16 {
            status(&self.auth, token.expose()).await
        }

        /// Look-ups and verifications so far.
        pub(crate) fn counts(&self) -> (usize, usize) {
            (self.store.finds(), self.hasher.verifications())
        }

        /// Every event so far: its outcome, and its reason where it has one.
        pub(crate) fn outcomes(&self) -> Vec<String> {
            let tell = |outcome: &str, reason: Option<Reason>| {
                reason.map_or_else(|| outcome.to_owned(), |reason| format!("{outcome} {reason}"))
            };
            self.sink.events().iter().map(|event| tell(event.outcome.as_str(), event.reason)).collect()
        }

        #[track_caller]
        pub(crate) fn assert_last(&self, expected: &str) {
            assert_eq!(self.outcomes().last().map(String::as_str), Some(expected));
        }
    }

    pub(crate) fn bearer(token: &PlaintextToken) -> Request<Body> {
        bearer_text(Method::GET, token.expose())
    }

    fn bearer_text(method: Method, text: &str) -> Request<Body> {
        let request = Request::builder().method(method).header(AUTHORIZATION, format!("Bearer {text}"));
        request.body(Body::empty()).unwrap()
    }

    /// The status of one GET.
    pub(crate) async fn status(auth: &TokenAuthLayer, text: &str) -> u16 {
        status_of(auth, Method::GET, text).await
    }

    /// The status of one request.
    pub(crate) async fn status_of(auth: &TokenAuthLayer, method: Method, text: &str) -> u16 {
        let inner = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
        auth.layer(inner).oneshot(bearer_text(method, text)).await.unwrap().status().as_u16()
    }

    /// A well-formed token of this id with another secret, as somebody would guess it.
    pub(crate) fn forge(id: &TokenId, secret: &PlaintextToken) -> String {
        const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut text = format!("tta_{id}_{}", secret.secret().expose());
        let checksum = crc32fast::hash(text.as_bytes());
        let digit = |place: u32| char::from(DIGITS[(checksum / 62_u32.pow(place) % 62) as usize]);
        text.extend((0..6).rev().map(digit));
        text
    }
}

const TTL: Duration = Duration::from_secs(30);
const NEGATIVE_TTL: Duration = Duration::from_secs(5);
const INSTANT: Duration = Duration::from_millis(1);

/// The answer where there is one on the first poll.
fn at_once(bench: &Bench, token: &PlaintextToken) -> Option<u16> {
    bench.status(token).now_or_never()
}

/// Starts a request and leaves it waiting.
macro_rules! start {
    ($bench:expr, $token:expr) => {{
        let mut request = Box::pin($bench.status($token));
        assert!(request.as_mut().now_or_never().is_none(), "the request waits");
        request
    }};
}

#[tokio::test]
async fn a_hot_token_costs_no_look_up_no_hash_and_no_wait() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    assert_eq!(bench.counts(), (1, 1), "(look-ups, hashes)");
    bench.store.hang();
    let _held = bench.hasher.hold();
    for _ in 0..100 {
        assert_eq!(at_once(&bench, &token), Some(200));
    }
    assert_eq!(bench.counts(), (1, 1), "(look-ups, hashes)");
}

#[tokio::test]
async fn all_clones_and_layers_of_a_gate_share_what_it_remembers() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    for auth in [bench.auth.clone(), bench.auth.requiring(Access::Read)] {
        assert_eq!(status(&auth, token.expose()).now_or_never(), Some(200));
    }
}

/// 2,000 requests with one cold token, all begun before the store answers; every tenth may vanish meanwhile.
async fn stampede(some_vanish: bool) {
    const CALLERS: usize = 2_000;
    let bench = Bench::new();
    let token = Arc::new(bench.token(Scope::ReadOnly).await);
    bench.store.hold();
    let begun = Arc::new(AtomicUsize::new(0));
    let call = || {
        let (auth, token, begun) = (bench.auth.clone(), Arc::clone(&token), Arc::clone(&begun));
        tokio::spawn(async move {
            let mut request = Box::pin(status(&auth, token.expose()));
            let first = poll_fn(|context| Poll::Ready(request.as_mut().poll(context))).await;
            begun.fetch_add(1, Ordering::SeqCst);
            assert!(first.is_pending(), "the store has not answered");
            request.await
        })
    };
    let calls: Vec<_> = (0..CALLERS).map(|_| call()).collect();
    while begun.load(Ordering::SeqCst) < CALLERS {
        tokio::task::yield_now().await;
    }
    let vanishes = |at: usize| some_vanish && at % 10 == 0;
    let mut stayed = Vec::new();
    for (at, call) in calls.into_iter().enumerate() {
        if vanishes(at) {
            call.abort();
            assert!(call.await.is_err(), "vanished");
        } else {
            stayed.push(call);
        }
    }
    bench.store.release();
    for call in stayed {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert_eq!(bench.counts(), (1, 1), "(look-ups, hashes)");
    assert_eq!(bench.status(&token).await, 200);
    assert_eq!(bench.counts(), (1, 1), "(look-ups, hashes)");
}

#[tokio::test]
async fn a_stampede_is_one_look_up_and_one_hash() {
    stampede(false).await;
}

#[tokio::test]
async fn a_stampede_whose_first_caller_vanishes_is_one_look_up_and_one_hash() {
    stampede(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stampede_on_threads_is_one_look_up_and_one_hash() {
    stampede(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stampede_on_threads_whose_callers_vanish_is_one_look_up_and_one_hash() {
    stampede(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stampede_that_nothing_holds_is_one_look_up_and_one_hash() {
    let bench = Bench::new();
    let token = Arc::new(bench.token(Scope::ReadOnly).await);
    let call = |_| {
        let (auth, token) = (bench.auth.clone(), Arc::clone(&token));
        tokio::spawn(async move { status(&auth, token.expose()).await })
    };
    for call in (0..2_000).map(call).collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert_eq!(bench.counts(), (1, 1), "(look-ups, hashes)");
}

#[tokio::test]
async fn wrong_secrets_die_at_the_precheck() {
    let bench = Bench::new();
    let token = bench.token(Scope::ReadOnly).await;
    for _ in 0..50 {
        assert_eq!(status(&bench.auth, &forge(&token.id(), &bench.stranger())).await, 401);
        bench.assert_last("refused mismatch");
    }
    assert_eq!(bench.counts(), (1, 0), "(look-ups, hashes)");
    assert_eq!(bench.status(&token).await, 200, "the holder is not locked out");
    assert_eq!(bench.counts(), (1, 1), "(look-ups, hashes)");
    assert_eq!(status(&bench.auth, &forge(&token.id(), &bench.stranger())).await, 401);
    assert_eq!(at_once(&bench, &token), Some(200), "nor after a guess");
}

/// A token whose stored hash was brought along from elsewhere and has no precheck.
async fn without_precheck(bench: &Bench) -> PlaintextToken {
    let token = bench.stranger();
    bench.keep(&token, Scope::ReadOnly).await;
    token
}

#[tokio::test]
async fn without_a_precheck_a_wrong_secret_is_hashed_once() {
    let bench = Bench::new();
    let token = without_precheck(&bench).await;
    let guess = forge(&token.id(), &bench.stranger());
    for _ in 0..3 {
        assert_eq!(status(&bench.auth, &guess).await, 401);
    }
    assert_eq!(bench.counts(), (1, 1), "(look-ups, hashes)");
    assert_eq!(bench.status(&token).await, 200);
    assert_eq!(bench.counts(), (1, 2), "(look-ups, hashes)");
}

#[tokio::test]
async fn a_guess_at_a_proved_token_is_not_hashed() {
    let bench = Bench::new();
    let token = without_precheck(&bench).await;
    assert_eq!(bench.status(&token).await, 200);
    for _ in 0..3 {
        assert_eq!(status(&bench.auth, &forge(&token.id(), &bench.stranger())).await, 401);
    }
    assert_eq!(bench.counts(), (1, 1), "(look-ups, hashes)");
    assert_eq!(at_once(&bench, &token), Some(200));
}

#[tokio::test]
async fn invalidation_costs_a_look_up_and_no_hash() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    let (handle, owner) = (bench.auth.handle(), bench.record(&token).await.owner().clone());
    let ways: [&dyn Fn(); 3] =
        [&|| handle.invalidate(&token.id()), &|| handle.invalidate_owner(&owner), &|| handle.invalidate_all()];
    for (finds, invalidate) in (2..).zip(ways) {
        invalidate();
        assert_eq!(bench.status(&token).await, 200);
        assert_eq!(bench.counts(), (finds, 1), "(look-ups, hashes)");
        assert_eq!(at_once(&bench, &token), Some(200), "and is hot again");
    }
}

#[tokio::test]
async fn invalidating_another_token_or_owner_costs_nothing() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    bench.auth.handle().invalidate(&bench.stranger().id());
    bench.auth.handle().invalidate_owner(&OwnerId::new("bob").unwrap());
    assert_eq!(at_once(&bench, &token), Some(200));
    assert_eq!(bench.counts(), (1, 1), "(look-ups, hashes)");
}

#[tokio::test]
async fn a_refresh_after_the_ttl_is_a_look_up_and_no_hash() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    bench.clock.advance(TTL - INSTANT);
    assert_eq!(at_once(&bench, &token), Some(200));
    assert_eq!(bench.counts(), (1, 1), "(look-ups, hashes)");
    bench.clock.advance(INSTANT);
    assert_eq!(bench.status(&token).await, 200);
    assert_eq!(bench.counts(), (2, 1), "(look-ups, hashes)");
}

#[tokio::test]
async fn a_changed_hash_ends_the_proof() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    let (_, other) = bench.draft(Scope::ReadOnly);
    bench.change(&token, Change::Secrets { secret: other.secret().clone(), retiring: None }).await;
    bench.invalidate(&token.id());
    assert_eq!(bench.status(&token).await, 401);
    bench.assert_last("refused mismatch");
}

#[tokio::test]
async fn a_revoked_token_is_refused_once_the_gate_is_told() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    bench.revoke(&token).await;
    assert_eq!(at_once(&bench, &token), Some(200), "the gate does not know yet");
    bench.invalidate(&token.id());
    assert_eq!(bench.status(&token).await, 401);
    bench.assert_last("refused revoked");
    assert_eq!(bench.counts(), (2, 1), "(look-ups, hashes)");
}

#[tokio::test]
async fn a_revoked_token_is_refused_after_the_ttl_if_the_gate_is_never_told() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    bench.revoke(&token).await;
    bench.clock.advance(TTL);
    assert_eq!(bench.status(&token).await, 401);
}

#[tokio::test]
async fn a_look_up_in_flight_does_not_outlive_a_revocation() {
    for revoked in [true, false] {
        for hot in [true, false] {
            let bench = Bench::new();
            let token = bench.token(Scope::ReadOnly).await;
            if hot {
                assert_eq!(bench.status(&token).await, 200);
                bench.clock.advance(TTL);
            }
            bench.store.hold();
            let waiting = start!(bench, &token);
            if revoked {
                bench.revoke(&token).await;
            }
            bench.invalidate(&token.id());
            bench.store.release();
            let expected = if revoked { 401 } else { 200 };
            assert_eq!(waiting.await, expected, "revoked {revoked}, hot {hot}: the one that waited");
            assert_eq!(bench.status(&token).await, expected, "revoked {revoked}, hot {hot}: the next");
        }
    }
}

#[tokio::test]
async fn a_look_up_begun_before_a_revocation_is_not_joined() {
    let bench = Bench::new();
    let token = bench.token(Scope::ReadOnly).await;
    bench.store.hold();
    let before = start!(bench, &token);
    bench.revoke(&token).await;
    bench.invalidate(&token.id());
    bench.store.work();
    assert_eq!(bench.status(&token).await, 401, "asks anew while the old look-up hangs");
    bench.store.release();
    assert_eq!(before.await, 401);
    assert_eq!(bench.status(&token).await, 401);
}

#[tokio::test]
async fn a_hash_in_flight_does_not_outlive_a_revocation() {
    for revoked in [true, false] {
        let bench = Bench::with(|builder| builder.verification(VerifyLimits::default().own_workers(1)));
        let token = bench.token(Scope::ReadOnly).await;
        let held = bench.hasher.hold();
        let mut waiting = Box::pin(bench.status(&token));
        while bench.hasher.verifications() == 0 {
            assert!(waiting.as_mut().now_or_never().is_none(), "the hash waits");
            tokio::task::yield_now().await;
        }
        if revoked {
            bench.revoke(&token).await;
        }
        bench.invalidate(&token.id());
        drop(held);
        let expected = if revoked { 401 } else { 200 };
        assert_eq!(waiting.await, expected, "revoked {revoked}: the one that waited");
        assert_eq!(bench.status(&token).await, expected, "revoked {revoked}: the next");
        assert_eq!(bench.hasher.verifications(), 1, "the proof is kept");
    }
}

#[tokio::test]
async fn an_older_revision_never_revives_a_token() {
    for hot in [true, false] {
        let bench = Bench::new();
        let token = bench.token(Scope::ReadOnly).await;
        let lagging = bench.record(&token).await;
        if hot {
            assert_eq!(bench.status(&token).await, 200);
        }
        bench.revoke(&token).await;
        bench.invalidate(&token.id());
        assert_eq!(bench.status(&token).await, 401, "hot {hot}");
        bench.store.answer(Some(lagging));
        for elapsed in [Duration::ZERO, TTL, TTL] {
            bench.clock.advance(elapsed);
            assert_eq!(bench.status(&token).await, 401, "hot {hot}");
            bench.assert_last("refused revoked");
        }
        bench.invalidate(&token.id());
        assert_eq!(bench.status(&token).await, 401, "hot {hot}, after an invalidation");
    }
}

#[tokio::test]
async fn a_newer_revision_replaces_an_older_one() {
    let bench = Bench::new();
    let token = bench.token(Scope::ReadOnly).await;
    bench.change(&token, Change::Pause).await;
    assert_eq!(bench.status(&token).await, 401);
    bench.assert_last("refused paused");
    bench.change(&token, Change::Resume).await;
    bench.clock.advance(TTL);
    assert_eq!(bench.status(&token).await, 200);
}

/// A token that expires `after` from now.
async fn expiring(bench: &Bench, after: Duration) -> PlaintextToken {
    let (token, record) = bench.draft(Scope::ReadOnly);
    bench.store.insert(record.with_expiry(Some(bench.clock.wall() + after))).await.unwrap();
    token
}

#[tokio::test]
async fn expiry_is_judged_on_every_hit() {
    let bench = Bench::new();
    let token = expiring(&bench, Duration::from_secs(10)).await;
    assert_eq!(bench.status(&token).await, 200);
    bench.clock.advance(Duration::from_secs(10) - INSTANT);
    assert_eq!(at_once(&bench, &token), Some(200));
    bench.clock.advance(INSTANT);
    assert_eq!(at_once(&bench, &token), Some(401));
    bench.assert_last("refused expired");
    assert_eq!(bench.counts(), (1, 1), "(look-ups, hashes)");
}

#[tokio::test]
async fn expiry_is_judged_by_the_wall_clock() {
    let bench = Bench::new();
    let token = expiring(&bench, Duration::from_secs(10)).await;
    assert_eq!(bench.status(&token).await, 200);
    let start = bench.clock.wall();
    bench.clock.step_wall(start + Duration::from_secs(10));
    assert_eq!(bench.status(&token).await, 401);
    bench.clock.step_wall(start);
    bench.clock.advance(Duration::from_secs(9));
    assert_eq!(bench.status(&token).await, 200);
}

#[tokio::test]
async fn a_record_is_stale_by_either_clock() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    let start = bench.clock.wall();
    bench.clock.step_wall(start + (TTL - INSTANT));
    assert_eq!(at_once(&bench, &token), Some(200));
    bench.clock.step_wall(start + TTL);
    assert_eq!(bench.status(&token).await, 200);
    assert_eq!(bench.counts(), (2, 1), "stale by the wall clock alone");

    bench.clock.advance(TTL);
    bench.clock.step_wall(start);
    assert_eq!(bench.status(&token).await, 200);
    assert_eq!(bench.counts(), (3, 1), "stale by the monotonic clock alone");
}

#[tokio::test]
async fn the_ttl_counts_from_the_start_of_the_look_up() {
    let slow = Duration::from_secs(20);
    let bench = Bench::with(|builder| builder.lookup(LookupLimits::default().timeout(2 * slow)));
    let token = bench.token(Scope::ReadOnly).await;
    bench.store.delay(slow, bench.clock.clone());
    let waiting = start!(bench, &token);
    bench.clock.advance(slow);
    assert_eq!(waiting.await, 200);
    bench.clock.advance(TTL - slow - INSTANT);
    assert_eq!(at_once(&bench, &token), Some(200));
    bench.clock.advance(INSTANT);
    assert_eq!(at_once(&bench, &token), None);
}

#[tokio::test]
async fn a_store_that_fails_is_503_and_not_remembered() {
    let bench = Bench::new();
    let token = bench.token(Scope::ReadOnly).await;
    for (fault, cause) in [
        (ScriptedStore::fail as fn(&ScriptedStore), "unavailable store_failed"),
        (ScriptedStore::panic, "unavailable store_panicked"),
    ] {
        fault(&bench.store);
        for _ in 0..2 {
            let before = bench.store.finds();
            assert_eq!(bench.status(&token).await, 503);
            bench.assert_last(cause);
            assert_eq!(bench.store.finds(), before + 1, "asked again");
        }
    }
    bench.store.work();
    assert_eq!(bench.status(&token).await, 200, "the first request after the recovery");
}

#[tokio::test]
async fn a_store_that_fails_is_503_for_an_unknown_token_too() {
    let bench = Bench::new();
    let stranger = bench.stranger();
    bench.store.fail();
    assert_eq!(bench.status(&stranger).await, 503);
    bench.store.work();
    assert_eq!(bench.status(&stranger).await, 401);
}

#[tokio::test]
async fn a_store_that_hangs_is_503_after_the_timeout_and_not_remembered() {
    let bench = Bench::new();
    let token = bench.token(Scope::ReadOnly).await;
    bench.store.hang();
    let mut waiting = start!(bench, &token);
    bench.clock.advance(Duration::from_secs(2) - INSTANT);
    assert!(waiting.as_mut().now_or_never().is_none(), "not yet");
    bench.clock.advance(INSTANT);
    assert_eq!(waiting.await, 503);
    bench.assert_last("unavailable store_timed_out");
    assert_eq!(bench.store.in_flight(), 0, "the look-up is given up");
    bench.store.work();
    assert_eq!(bench.status(&token).await, 200, "the first request after the recovery");
}

#[tokio::test]
async fn a_store_that_fails_is_503_for_a_proved_token_that_is_stale() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    bench.store.fail();
    assert_eq!(at_once(&bench, &token), Some(200), "still fresh");
    bench.clock.advance(TTL);
    assert_eq!(bench.status(&token).await, 503);
    bench.store.work();
    assert_eq!(bench.status(&token).await, 200);
    assert_eq!(bench.hasher.verifications(), 1, "the proof is kept");
}

#[tokio::test]
async fn a_hasher_that_fails_is_503_and_not_remembered() {
    let bench = Bench::new();
    let token = bench.token(Scope::ReadOnly).await;
    for order in [CheapHasher::fail_next, CheapHasher::panic_next] {
        order(&bench.hasher);
        assert_eq!(bench.status(&token).await, 503);
        bench.assert_last("unavailable hashing_failed");
    }
    assert_eq!(bench.status(&token).await, 200);
}

#[tokio::test]
async fn a_hasher_that_is_slow_is_503_and_its_answer_is_there_for_the_next_try() {
    let bench = Bench::with(|builder| builder.verification(VerifyLimits::default().own_workers(1)));
    let token = bench.token(Scope::ReadOnly).await;
    let held = bench.hasher.hold();
    let mut waiting = Box::pin(bench.status(&token));
    while bench.hasher.verifications() == 0 {
        assert!(waiting.as_mut().now_or_never().is_none(), "the hash waits");
        tokio::task::yield_now().await;
    }
    bench.clock.advance(Duration::from_secs(2));
    assert_eq!(waiting.await, 503);
    bench.assert_last("unavailable hashing_timed_out");
    drop(held);
    assert_eq!(bench.status(&token).await, 200);
    assert_eq!(bench.hasher.verifications(), 1, "the job that was given up has written the proof");
}

#[tokio::test]
async fn a_record_of_another_token_is_503() {
    let bench = Bench::new();
    let token = bench.token(Scope::ReadOnly).await;
    let (other, record) = bench.draft(Scope::ReadOnly);
    bench.store.answer(Some(record));
    assert_eq!(bench.status(&token).await, 503);
    bench.assert_last("unavailable record_unusable");
    assert_eq!(bench.status(&other).await, 200, "the twin whose record it is");
    bench.store.work();
    assert_eq!(bench.status(&token).await, 200);
}

#[tokio::test]
async fn an_unknown_id_is_remembered_for_the_negative_ttl() {
    let bench = Bench::new();
    let stranger = bench.stranger();
    assert_eq!(bench.status(&stranger).await, 401);
    bench.assert_last("refused unknown");
    bench.clock.advance(NEGATIVE_TTL - INSTANT);
    assert_eq!(at_once(&bench, &stranger), Some(401));
    assert_eq!(bench.store.finds(), 1);
    bench.clock.advance(INSTANT);
    assert_eq!(bench.status(&stranger).await, 401);
    assert_eq!(bench.store.finds(), 2);
}

#[tokio::test]
async fn with_a_negative_ttl_of_zero_an_unknown_id_is_not_remembered() {
    let bench = Bench::with(|builder| builder.cache(CacheConfig::default().negative_ttl(Duration::ZERO)));
    let stranger = bench.stranger();
    for finds in 1..=3 {
        assert_eq!(bench.status(&stranger).await, 401);
        assert_eq!(bench.store.finds(), finds);
    }
}

#[tokio::test]
async fn a_token_that_was_unknown_works_once_the_gate_is_told() {
    let bench = Bench::new();
    let (token, record) = bench.draft(Scope::ReadOnly);
    assert_eq!(bench.status(&token).await, 401);
    bench.store.insert(record).await.unwrap();
    assert_eq!(bench.status(&token).await, 401, "the gate does not know yet");
    bench.invalidate(&token.id());
    assert_eq!(bench.status(&token).await, 200);
}

#[tokio::test]
async fn a_look_up_in_flight_that_finds_nothing_does_not_outlive_the_creation() {
    let bench = Bench::new();
    let (token, record) = bench.draft(Scope::ReadOnly);
    bench.store.hold();
    let waiting = start!(bench, &token);
    bench.store.insert(record).await.unwrap();
    bench.invalidate(&token.id());
    bench.store.release();
    assert_eq!(waiting.await, 200);
    assert_eq!(bench.status(&token).await, 200);
}

#[tokio::test]
async fn with_room_for_two_proved_tokens_five_still_work() {
    let bench = Bench::with(|builder| builder.cache(CacheConfig::default().proved(2).unproved(1).negatives(1)));
    let mut tokens = Vec::new();
    for _ in 0..5 {
        tokens.push(bench.token(Scope::ReadOnly).await);
    }
    for _ in 0..3 {
        for token in &tokens {
            assert_eq!(bench.status(token).await, 200);
            assert_eq!(status(&bench.auth, &forge(&token.id(), &bench.stranger())).await, 401);
        }
    }
    bench.revoke(&tokens[0]).await;
    bench.invalidate(&tokens[0].id());
    assert_eq!(bench.status(&tokens[0]).await, 401);
    assert_eq!(bench.status(&tokens[1]).await, 200);
}

#[tokio::test]
async fn a_token_just_proved_is_hot_though_all_others_are_in_use() {
    let bench = Bench::with(|builder| builder.cache(CacheConfig::default().proved(2)));
    let in_use = [bench.hot(Scope::ReadOnly).await, bench.hot(Scope::ReadOnly).await];
    for token in &in_use {
        assert_eq!(at_once(&bench, token), Some(200));
    }
    let newcomer = bench.hot(Scope::ReadOnly).await;
    assert_eq!(bench.status(&newcomer).await, 200);
    assert_eq!(bench.hasher.verifications(), 3, "each was hashed once");
}

#[tokio::test]
async fn no_flood_evicts_a_proved_token() {
    let bench = Bench::with(|builder| builder.cache(CacheConfig::default().proved(1).unproved(2).negatives(2)));
    let token = bench.hot(Scope::ReadOnly).await;
    for _ in 0..100 {
        let (victim, record) = bench.draft(Scope::ReadOnly);
        bench.store.insert(record).await.unwrap();
        assert_eq!(bench.status(&bench.stranger()).await, 401, "an unknown id");
        assert_eq!(status(&bench.auth, &forge(&victim.id(), &bench.stranger())).await, 401, "a wrong secret");
    }
    bench.store.hang();
    assert_eq!(at_once(&bench, &token), Some(200));
    assert_eq!(bench.hasher.verifications(), 1);
}

/// A record whose secret is being rotated: the new token, the old one, and when that ends.
async fn rotating(bench: &Bench, for_how_long: Duration) -> (String, PlaintextToken) {
    let (old, record) = bench.draft(Scope::ReadOnly);
    let fresh = bench.stranger();
    let retiring = RetiringSecret::new(record.secret().clone(), bench.clock.wall() + for_how_long);
    let secret = hash_of(bench, &fresh).with_precheck(&old.id(), fresh.secret());
    let record = record.with_secret(secret).with_retiring(Some(retiring));
    bench.store.insert(record).await.unwrap();
    (forge(&old.id(), &fresh), old)
}

fn hash_of(bench: &Bench, token: &PlaintextToken) -> SecretHash {
    bench.hasher.hash(token.secret(), &mut Scratch::new()).unwrap()
}

#[tokio::test]
async fn two_secrets_of_a_record_both_work_until_the_old_ones_deadline() {
    let bench = Bench::new();
    let (fresh, old) = rotating(&bench, Duration::from_secs(10)).await;
    for _cold_then_hot in 0..2 {
        assert_eq!(status(&bench.auth, &fresh).await, 200);
        assert_eq!(bench.status(&old).await, 200);
    }
    assert_eq!(bench.counts(), (1, 2), "each secret against its own hash");
    bench.clock.advance(Duration::from_secs(10) - INSTANT);
    assert_eq!(at_once(&bench, &old), Some(200));
    bench.clock.advance(INSTANT);
    assert_eq!(bench.status(&old).await, 401);
    bench.assert_last("refused mismatch");
    assert_eq!(status(&bench.auth, &fresh).now_or_never(), Some(200));
}

#[tokio::test]
async fn a_rotation_keeps_the_proof_of_the_secret_it_retires() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    let (fresh, old_hash) = (bench.stranger(), bench.record(&token).await.secret().clone());
    let secret = hash_of(&bench, &fresh).with_precheck(&token.id(), fresh.secret());
    let until = bench.clock.wall() + Duration::from_secs(10);
    let retiring = Some(RetiringSecret::new(old_hash, until));
    bench.change(&token, Change::Secrets { secret, retiring }).await;
    bench.invalidate(&token.id());
    assert_eq!(bench.status(&token).await, 200);
    assert_eq!(bench.counts(), (2, 1), "(look-ups, hashes)");
    assert_eq!(status(&bench.auth, &forge(&token.id(), &fresh)).await, 200);
    assert_eq!(bench.counts(), (2, 2), "(look-ups, hashes)");
    bench.clock.advance(Duration::from_secs(10));
    assert_eq!(bench.status(&token).await, 401);
    assert_eq!(status(&bench.auth, &forge(&token.id(), &fresh)).await, 200);
}

#[tokio::test]
async fn each_stored_hash_goes_to_the_hasher_that_recognises_it() {
    let (fast, record) = draft("alice", Scope::ReadOnly).unwrap();
    for accepted in [true, false] {
        let accept = |builder: TokenAuthBuilder| builder.also_accept(Sha256Hasher::new());
        let bench = if accepted { Bench::with(accept) } else { Bench::new() };
        bench.store.insert(record.clone()).await.unwrap();
        let cheap = bench.token(Scope::ReadOnly).await;
        assert_eq!(bench.status(&cheap).await, 200);
        assert_eq!(bench.status(&fast).await, if accepted { 200 } else { 503 });
        assert_eq!(bench.hasher.verifications(), 1, "asked about its own hash only");
    }
}

#[tokio::test]
async fn a_dead_record_is_refused_before_any_hash() {
    type Kill = fn(TokenRecord) -> TokenRecord;
    let cases: [(&str, Kill); 5] = [
        ("allowed", |record| record),
        ("refused expired", |record| record.with_expiry(Some(ManualClock::START))),
        ("refused revoked", |record| record.with_state(TokenState::Revoked)),
        ("refused paused", |record| record.with_state(TokenState::Paused)),
        ("refused owner_barred", |record| record.with_owner_barred(true)),
    ];
    for (expected, kill) in cases {
        let bench = Bench::new();
        let (token, record) = bench.draft(Scope::ReadOnly);
        bench.store.answer(Some(kill(record)));
        let alive = expected == "allowed";
        assert_eq!(bench.status(&token).await, if alive { 200 } else { 401 }, "{expected}");
        bench.assert_last(expected);
        assert_eq!(bench.counts(), (1, usize::from(alive)), "{expected}: (look-ups, hashes)");
    }
}

#[tokio::test]
async fn a_barred_owner_is_refused_and_readmitted_without_a_hash() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    let owner = bench.record(&token).await.owner().clone();
    bench.store.bar_owner(&owner).await.unwrap();
    bench.auth.handle().invalidate_owner(&owner);
    assert_eq!(bench.status(&token).await, 401);
    bench.assert_last("refused owner_barred");
    bench.store.lift_owner(&owner).await.unwrap();
    bench.auth.handle().invalidate_owner(&owner);
    assert_eq!(bench.status(&token).await, 200);
    assert_eq!(bench.counts(), (3, 1), "(look-ups, hashes)");
}

#[tokio::test]
async fn with_a_ttl_of_zero_every_request_asks_the_store_and_one_hashes() {
    let bench = Bench::with(|builder| builder.cache(CacheConfig::default().ttl(Duration::ZERO)));
    let token = bench.token(Scope::ReadOnly).await;
    assert_eq!(bench.status(&token).await, 200);
    // A record that was read before a hash is read again after it: nothing remembers that it still holds.
    assert_eq!(bench.counts(), (2, 1), "(look-ups, hashes)");
    for finds in 3..=5 {
        assert_eq!(bench.status(&token).await, 200);
        assert_eq!(bench.counts(), (finds, 1), "(look-ups, hashes)");
    }
    bench.revoke(&token).await;
    assert_eq!(bench.status(&token).await, 401);
}

#[tokio::test]
async fn look_ups_are_bounded_and_proved_tokens_have_a_budget_of_their_own() {
    let limits = LookupLimits::default().in_flight(1).waiting(0).refreshes(1);
    let bench = Bench::with(|builder| builder.lookup(limits));
    let proved = bench.hot(Scope::ReadOnly).await;
    bench.clock.advance(TTL);
    let (first, second) = (bench.stranger(), bench.stranger());
    bench.store.hold();
    let waiting = start!(bench, &first);
    assert_eq!(bench.status(&second).await, 503);
    bench.assert_last("unavailable lookups_busy");
    let refresh = start!(bench, &proved);
    bench.store.release();
    assert_eq!((waiting.await, refresh.await), (401, 200));
    assert_eq!(bench.status(&second).await, 401);
}

/// A store that answers what was pinned last, whatever has happened since.
#[derive(Clone, Default)]
struct Pinned(Arc<Mutex<Option<TokenRecord>>>);

impl TokenStore for Pinned {
    async fn find(&self, _: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        Ok(self.0.lock().unwrap().clone())
    }
}

#[tokio::test]
async fn a_store_of_one_method_is_enough() {
    let (store, hasher) = (Pinned::default(), CheapHasher::new().inline());
    let (token, record) = draft_with(&hasher, &Prefix::default(), "alice", Scope::ReadOnly).unwrap();
    *store.0.lock().unwrap() = Some(record);
    let auth = TokenAuthLayer::builder(Arc::new(store)).hasher(hasher.clone()).build().unwrap();
    for _cold_then_hot in 0..2 {
        assert_eq!(status(&auth, token.expose()).await, 200);
    }
    assert_eq!(hasher.verifications(), 1);
}

#[tokio::test]
async fn a_replica_that_does_not_know_a_token_yet_never_leads_to_its_revival() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    let first = bench.record(&token).await;
    bench.revoke(&token).await;
    bench.invalidate(&token.id());
    assert_eq!(bench.status(&token).await, 401, "the revocation is known");
    bench.store.answer(None);
    bench.invalidate(&token.id());
    assert_eq!(bench.status(&token).await, 401, "a replica from before the creation");
    bench.clock.advance(Duration::from_secs(6));
    bench.store.answer(Some(first));
    assert_eq!(bench.status(&token).await, 401, "a replica from before the revocation");
    assert_eq!(bench.outcomes().iter().filter(|outcome| *outcome == "refused revoked").count(), 2);
}

#[tokio::test]
async fn a_secret_that_a_stepped_back_clock_makes_live_again_is_not_remembered_as_wrong() {
    let bench = Bench::new();
    let (token, old) = (without_precheck(&bench).await, bench.stranger());
    let hash = bench.hasher.hash(old.secret(), &mut Scratch::new()).unwrap();
    let (secret, start) = (bench.record(&token).await.secret().clone(), bench.clock.wall());
    let retiring = Some(RetiringSecret::new(hash, start + Duration::from_secs(20)));
    bench.change(&token, Change::Secrets { secret, retiring }).await;
    let old = forge(&token.id(), &old);
    bench.clock.step_wall(start + Duration::from_secs(30));
    assert_eq!(status(&bench.auth, &old).await, 401, "it has ended");
    bench.clock.step_wall(start);
    assert_eq!(status(&bench.auth, &old).await, 200, "it has not");
}

#[tokio::test]
async fn an_outdated_look_up_that_found_nothing_erases_no_newer_refusal() {
    let bench = Bench::new();
    let stranger = bench.stranger();
    bench.store.hold();
    let outdated = start!(bench, &stranger);
    bench.invalidate(&stranger.id());
    bench.store.work();
    assert_eq!(bench.status(&stranger).await, 401);
    bench.store.release();
    assert_eq!(outdated.await, 401);
    assert_eq!(at_once(&bench, &stranger), Some(401));
    assert_eq!(bench.counts(), (2, 0), "(look-ups, hashes)");
}
