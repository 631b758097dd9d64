//! When tokens were last used: noted in memory, written in batches, and never a request's business.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use futures_util::FutureExt;
use http::header::USER_AGENT;
use http::{HeaderValue, Method, Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_token_auth::test_util::ManualClock;
use tower_token_auth::{
    Access, AuditEvent, CacheConfig, Clock, IssuePolicy, LastUsed, MemoryStore, NoAudit, OnAuditFailure,
    PlaintextToken, Scope, TokenAuthBuilder, TokenAuthLayer, UpkeepStats,
};

use crate::ahead::{settle, with_background};
use crate::cache_rules::bench::{Bench, bearer, status_of};
use crate::tower_contract::Captured;
use ledger::{Ledger, Mood};

/// A registry that keeps book of what is written to it, and misbehaves on request.
pub(crate) mod ledger {
    use std::future::pending;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use tower_token_auth::{
        Change, Cursor, InsertError, LastUsed, MemoryStore, OwnerId, Revision, StoreError, TokenFilter, TokenId,
        TokenPage, TokenRecord, TokenRegistry, TokenStore, UpdateError,
    };

    #[derive(Clone, Default)]
    pub(crate) struct Ledger(Arc<Book>);

    #[derive(Default)]
    struct Book {
        store: MemoryStore,
        mood: Mutex<Mood>,
        /// What happens to a record before it is read, or after.
        meanwhile: Mutex<(Option<Change>, Option<Change>)>,
        batches: Mutex<Vec<Vec<(TokenId, LastUsed)>>>,
        touches: AtomicUsize,
        updates: AtomicUsize,
    }

    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub(crate) enum Mood {
        #[default]
        Works,
        Fails,
        Hangs,
        Panics,
    }

    impl Mood {
        pub(crate) const TROUBLES: [Self; 3] = [Self::Fails, Self::Hangs, Self::Panics];
    }

    impl Ledger {
        pub(crate) fn over(store: MemoryStore) -> Self {
            Self(Arc::new(Book { store, ..Book::default() }))
        }

        pub(crate) fn be(&self, mood: Mood) {
            *self.0.mood.lock().unwrap() = mood;
        }

        /// The next record that is read was changed just before.
        pub(crate) fn change_before_find(&self, change: Change) {
            self.0.meanwhile.lock().unwrap().0 = Some(change);
        }

        /// The next record that is read is changed right after.
        pub(crate) fn change_after_find(&self, change: Change) {
            self.0.meanwhile.lock().unwrap().1 = Some(change);
        }

        /// The batches that were taken.
        pub(crate) fn batches(&self) -> Vec<Vec<(TokenId, LastUsed)>> {
            self.0.batches.lock().unwrap().clone()
        }

        /// The batches that were offered.
        pub(crate) fn touches(&self) -> usize {
            self.0.touches.load(Ordering::SeqCst)
        }

        /// The changes that were asked for.
        pub(crate) fn updates(&self) -> usize {
            self.0.updates.load(Ordering::SeqCst)
        }

        #[expect(clippy::panic, reason = "a registry may")]
        async fn act_out(&self) -> Result<(), StoreError> {
            let mood = *self.0.mood.lock().unwrap();
            match mood {
                Mood::Works => Ok(()),
                Mood::Fails => Err(StoreError::new("on purpose")),
                Mood::Hangs => pending().await,
                Mood::Panics => panic!("on purpose"),
            }
        }

        async fn change(&self, id: &TokenId, change: Option<Change>) {
            if let Some(change) = change {
                let record = self.0.store.find(id).await.unwrap().unwrap();
                self.0.store.update(id, record.revision(), change).await.unwrap();
            }
        }
    }

    impl TokenStore for Ledger {
        async fn find(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
            self.act_out().await?;
            let (before, after) = std::mem::take(&mut *self.0.meanwhile.lock().unwrap());
            self.change(id, before).await;
            let found = self.0.store.find(id).await;
            self.change(id, after).await;
            found
        }
    }

    impl TokenRegistry for Ledger {
        async fn insert(&self, record: TokenRecord) -> Result<(), InsertError> {
            self.0.store.insert(record).await
        }

        async fn update(&self, id: &TokenId, expected: Revision, change: Change) -> Result<TokenRecord, UpdateError> {
            self.0.updates.fetch_add(1, Ordering::SeqCst);
            self.act_out().await?;
            self.0.store.update(id, expected, change).await
        }

        async fn list(&self, filter: &TokenFilter, cursor: Option<&Cursor>) -> Result<TokenPage, StoreError> {
            self.0.store.list(filter, cursor).await
        }

        async fn touch(&self, uses: &[(TokenId, LastUsed)]) -> Result<(), StoreError> {
            self.0.touches.fetch_add(1, Ordering::SeqCst);
            self.act_out().await?;
            self.0.batches.lock().unwrap().push(uses.to_vec());
            self.0.store.touch(uses).await
        }

        async fn bar_owner(&self, owner: &OwnerId) -> Result<(), StoreError> {
            self.0.store.bar_owner(owner).await
        }

        async fn lift_owner(&self, owner: &OwnerId) -> Result<(), StoreError> {
            self.0.store.lift_owner(owner).await
        }
    }
}

const EVERY: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);
const INSTANT: Duration = Duration::from_millis(1);
const TIMEOUT: Duration = Duration::from_secs(2);
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// A bench whose gate writes to a registry over its store.
fn kept() -> (Bench, Ledger) {
    kept_with(|builder| builder)
}

fn kept_with(configure: impl FnOnce(TokenAuthBuilder) -> TokenAuthBuilder) -> (Bench, Ledger) {
    let bench = Bench::with(configure);
    let ledger = Ledger::over(bench.store.inner().clone());
    drop(bench.auth.issuer(ledger.clone(), IssuePolicy::default()));
    (bench, ledger)
}

fn upkeep(bench: &Bench) -> UpkeepStats {
    bench.auth.handle().stats().upkeep
}

async fn send(auth: &TokenAuthLayer, request: Request<Body>) -> u16 {
    let inner = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    auth.layer(inner).oneshot(request).await.unwrap().status().as_u16()
}

async fn write(bench: &Bench, token: &PlaintextToken) -> u16 {
    status_of(&bench.auth, Method::POST, token.expose()).await
}

async fn last_used(bench: &Bench, token: &PlaintextToken) -> Option<LastUsed> {
    bench.record(token).await.last_used().cloned()
}

async fn pass(bench: &Bench, time: Duration) {
    bench.clock.advance(time);
    settle().await;
}

#[tokio::test]
async fn a_hundred_thousand_requests_are_one_row_a_token_in_one_batch_a_flush() {
    const TOKENS: usize = 1_000;
    const ROUNDS: usize = 100;
    let (bench, ledger) = kept();
    let _background = with_background(&bench).await;
    let mut tokens = Vec::new();
    for _ in 0..TOKENS {
        tokens.push(bench.token(Scope::ReadWrite).await);
    }
    for round in 1..=ROUNDS {
        for token in &tokens {
            let method = if round == 50 { Method::POST } else { Method::GET };
            assert_eq!(status_of(&bench.auth, method, token.expose()).await, 200);
        }
        if round < ROUNDS {
            pass(&bench, SECOND).await;
        }
        assert_eq!((ledger.touches(), ledger.updates()), (round.min(ROUNDS - 1) / 30, 0), "round {round}");
    }
    bench.auth.handle().shutdown(SECOND).await.unwrap();
    assert_eq!(ledger.touches(), 4, "after 30, 60 and 90 seconds, and at the end");
    for batch in ledger.batches() {
        let mut ids: Vec<_> = batch.iter().map(|(id, _)| *id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!((ids.len(), batch.len()), (TOKENS, TOKENS), "one row a token");
    }
    let (now, wrote) = (bench.clock.wall(), ManualClock::START + SECOND * 49);
    for token in &tokens {
        let used = last_used(&bench, token).await.unwrap();
        assert_eq!((used.at, used.last_write), (now, Some(wrote)));
    }
    let stats = bench.auth.handle().stats();
    assert_eq!((stats.audit.events, stats.audit.written), (100_000, 100_000));
    assert_eq!(bench.sink.events().len(), 100_000);
    assert_eq!((stats.upkeep.flushed, stats.upkeep.waiting, stats.upkeep.dropped), (4_000, 0, 0));
}

#[tokio::test]
async fn a_token_is_noted_once_a_second_and_once_more_when_it_first_writes_in_it() {
    let (bench, _ledger) = kept();
    let token = bench.hot(Scope::ReadWrite).await;
    for (wait, writes, noted) in [
        (Duration::ZERO, false, 1),
        (INSTANT, false, 1),
        (INSTANT, true, 2),
        (INSTANT, true, 2),
        (INSTANT, false, 2),
        (SECOND, true, 3),
        (Duration::ZERO, false, 3),
        (SECOND, false, 4),
    ] {
        bench.clock.advance(wait);
        let status = if writes { write(&bench, &token).await } else { bench.status(&token).await };
        assert_eq!((status, upkeep(&bench).noted), (200, noted));
    }
    bench.auth.handle().shutdown(SECOND).await.unwrap();
    let used = last_used(&bench, &token).await.unwrap();
    let now = bench.clock.wall();
    assert_eq!(now.since(used.at), Duration::ZERO);
    assert_eq!(now.since(used.last_write.unwrap()), SECOND);
}

/// An address, and how often it was asked for.
fn addressed(builder: TokenAuthBuilder, asked: &Arc<AtomicUsize>) -> TokenAuthBuilder {
    let asked = Arc::clone(asked);
    builder.client_address(move |_| {
        asked.fetch_add(1, Ordering::SeqCst);
        Some(ADDRESS)
    })
}

#[tokio::test]
async fn the_address_is_asked_for_once_a_request_and_without_an_audit_trail_once_a_note() {
    for audited in [true, false] {
        let asked = Arc::default();
        let (bench, _ledger) = kept_with(|builder| {
            let builder = addressed(builder, &asked);
            if audited { builder } else { builder.audit(NoAudit::new()) }
        });
        let token = bench.hot(Scope::ReadWrite).await;
        for _ in 0..9 {
            assert_eq!(bench.status(&token).await, 200);
        }
        assert_eq!(asked.load(Ordering::SeqCst), if audited { 10 } else { 1 });
        bench.auth.handle().shutdown(SECOND).await.unwrap();
        assert_eq!(last_used(&bench, &token).await.unwrap().client_address, Some(ADDRESS));
    }
}

#[tokio::test]
async fn user_agents_are_cleaned_and_capped() {
    let long = "x".repeat(10_000);
    let hostile: [(&[u8], String); 4] = [
        (b"curl/8.5", "curl/8.5".to_owned()),
        (b"a\tb\xff", "a\u{FFFD}b\u{FFFD}".to_owned()),
        ("\u{202E}evil".as_bytes(), "\u{FFFD}evil".to_owned()),
        (long.as_bytes(), format!("{}…", "x".repeat(AuditEvent::MAX_USER_AGENT_LEN - "…".len()))),
    ];
    let (bench, _ledger) = kept();
    let token = bench.token(Scope::ReadOnly).await;
    for (agent, expected) in hostile {
        let mut request = bearer(&token);
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_bytes(agent).unwrap());
        assert_eq!(send(&bench.auth, request).await, 200);
        bench.auth.handle().shutdown(SECOND).await.unwrap();
        assert_eq!(last_used(&bench, &token).await.unwrap().user_agent, Some(expected));
        bench.clock.advance(SECOND);
    }
    assert_eq!(bench.status(&token).await, 200);
    bench.auth.handle().shutdown(SECOND).await.unwrap();
    assert_eq!(last_used(&bench, &token).await.unwrap().user_agent, None, "of the last use, not of one before");
}

#[tokio::test]
async fn a_registry_in_trouble_fails_no_request_and_loses_nothing() {
    for trouble in Mood::TROUBLES {
        let (bench, ledger) = kept();
        let _background = with_background(&bench).await;
        let (one, two) = (bench.hot(Scope::ReadWrite).await, bench.token(Scope::ReadOnly).await);
        assert_eq!(write(&bench, &one).await, 200);
        let wrote = bench.clock.wall();
        ledger.be(trouble);
        pass(&bench, EVERY).await;
        assert_eq!(bench.status(&one).now_or_never(), Some(200), "{trouble:?}");
        assert_eq!(bench.status(&two).await, 200);
        pass(&bench, TIMEOUT).await;
        assert_eq!((ledger.touches(), upkeep(&bench).flushes_failed, upkeep(&bench).flushed), (1, 1, 0));
        assert_eq!(upkeep(&bench).waiting, 2);
        ledger.be(Mood::Works);
        pass(&bench, EVERY).await;
        let batches = ledger.batches();
        assert_eq!((batches.len(), batches[0].len()), (1, 2), "{trouble:?}: one batch, one row a token");
        let used = last_used(&bench, &one).await.unwrap();
        assert_eq!((used.at, used.last_write), (wrote + EVERY, Some(wrote)), "{trouble:?}: both uses as one");
        assert!(last_used(&bench, &two).await.is_some());
        assert_eq!((upkeep(&bench).waiting, upkeep(&bench).dropped), (0, 0));
    }
}

#[tokio::test]
async fn a_shutdown_writes_what_waits_whether_or_not_a_background_runs() {
    for background in [true, false] {
        let (bench, ledger) = kept();
        let background = if background { Some(with_background(&bench).await) } else { None };
        let token = bench.hot(Scope::ReadOnly).await;
        assert_eq!((ledger.touches(), upkeep(&bench).waiting), (0, 1));
        bench.auth.handle().shutdown(Duration::ZERO).await.unwrap();
        assert_eq!((ledger.batches().len(), upkeep(&bench).waiting), (1, 0));
        assert!(last_used(&bench, &token).await.is_some());
        if let Some(background) = background {
            background.await.unwrap();
        }
        assert_eq!(ledger.touches(), 1, "nothing is written twice");
    }
}

#[tokio::test]
async fn a_shutdown_tells_how_many_uses_it_left_and_can_be_tried_again() {
    for trouble in Mood::TROUBLES {
        let (bench, ledger) = kept();
        let token = bench.hot(Scope::ReadOnly).await;
        ledger.be(trouble);
        let handle = bench.auth.handle();
        let mut shutdown = Box::pin(handle.shutdown(SECOND));
        let answer = (&mut shutdown).now_or_never();
        assert_eq!(answer.is_none(), trouble == Mood::Hangs);
        bench.clock.advance(SECOND);
        let unflushed = match answer {
            Some(answer) => answer.unwrap_err(),
            None => shutdown.as_mut().await.unwrap_err(),
        };
        assert_eq!((unflushed.events(), unflushed.uses()), (0, 1), "{trouble:?}");
        assert_eq!(unflushed.to_string(), "the last uses of 1 tokens were not written");
        drop(shutdown);
        ledger.be(Mood::Works);
        handle.shutdown(SECOND).await.unwrap();
        assert!(last_used(&bench, &token).await.is_some());
    }
}

#[tokio::test]
async fn a_shutdown_takes_over_from_a_flush_that_hangs() {
    let (bench, ledger) = kept();
    let background = with_background(&bench).await;
    let token = bench.hot(Scope::ReadOnly).await;
    ledger.be(Mood::Hangs);
    pass(&bench, EVERY).await;
    assert_eq!(ledger.touches(), 1, "it hangs");
    ledger.be(Mood::Works);
    bench.auth.handle().shutdown(SECOND).await.unwrap();
    assert!(last_used(&bench, &token).await.is_some());
    background.await.unwrap();
}

#[tokio::test]
async fn a_background_that_is_dropped_loses_nothing() {
    let (bench, ledger) = kept();
    let background = with_background(&bench).await;
    let token = bench.hot(Scope::ReadOnly).await;
    ledger.be(Mood::Hangs);
    pass(&bench, EVERY).await;
    background.abort();
    assert!(background.await.is_err());
    ledger.be(Mood::Works);
    let _another = with_background(&bench).await;
    pass(&bench, EVERY).await;
    assert!(last_used(&bench, &token).await.is_some());
}

#[tokio::test]
async fn the_background_writes_once_more_when_the_gate_is_gone() {
    let (bench, ledger) = kept();
    let background = with_background(&bench).await;
    bench.hot(Scope::ReadOnly).await;
    drop(bench);
    background.await.unwrap();
    assert_eq!(ledger.batches().len(), 1);
}

#[tokio::test]
async fn without_a_registry_or_an_interval_nothing_is_collected() {
    let never = |builder: TokenAuthBuilder| builder.upkeep(MemoryStore::new()).flush_last_used(Duration::ZERO);
    for (bench, noted) in
        [(Bench::new(), 0), (Bench::with(never), 0), (Bench::with(|builder| builder.upkeep(MemoryStore::new())), 1)]
    {
        bench.hot(Scope::ReadOnly).await;
        assert_eq!(upkeep(&bench).noted, noted);
    }
}

#[tokio::test]
async fn the_first_registry_is_kept() {
    let first = Ledger::default();
    let bench = Bench::with(|builder| builder.upkeep(first.clone()));
    let second = Ledger::default();
    drop(bench.auth.issuer(second.clone(), IssuePolicy::default()));
    bench.hot(Scope::ReadOnly).await;
    bench.auth.handle().shutdown(SECOND).await.unwrap();
    assert_eq!((first.touches(), second.touches()), (1, 0));
}

#[tokio::test]
async fn only_what_is_admitted_is_a_use() {
    let (bench, _ledger) = kept_with(|builder| builder.on_audit_failure(OnAuditFailure::Refuse));
    let token = bench.token(Scope::ReadOnly).await;
    assert_eq!(write(&bench, &token).await, 403);
    bench.sink.fail_all(true);
    assert_eq!(bench.status(&token).await, 503);
    bench.sink.fail_all(false);
    assert_eq!(upkeep(&bench).noted, 0);
    assert_eq!(bench.status(&token).await, 200);
    assert_eq!(upkeep(&bench).noted, 1);
}

#[tokio::test]
async fn what_an_inner_layer_declares_a_write_is_noted_as_one() {
    for (declared, wrote) in [(Access::Write, true), (Access::Read, false)] {
        let (bench, _ledger) = kept();
        let token = bench.token(Scope::ReadWrite).await;
        let inner = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
        let service = bench.auth.layer(bench.auth.requiring(declared).layer(inner));
        assert_eq!(service.oneshot(bearer(&token)).await.unwrap().status(), 200);
        bench.auth.handle().shutdown(SECOND).await.unwrap();
        assert_eq!(last_used(&bench, &token).await.unwrap().last_write.is_some(), wrote);
    }
}

#[tokio::test]
async fn what_has_no_place_is_dropped_and_counted() {
    let (bench, ledger) = kept_with(|builder| builder.cache(CacheConfig::default().proved(2)));
    for _ in 0..5 {
        bench.hot(Scope::ReadOnly).await;
    }
    assert_eq!((upkeep(&bench).noted, upkeep(&bench).dropped), (2, 3));
    bench.auth.handle().shutdown(SECOND).await.unwrap();
    assert_eq!(ledger.batches()[0].len(), 2);
}

/// How often the log names the line that is missing, after two uses that are so far apart.
async fn told_of_the_missing_line(bench: &Bench, apart: Duration) -> usize {
    let captured = Captured::default();
    let listening = captured.listen();
    let token = bench.hot(Scope::ReadOnly).await;
    for _ in 0..2 {
        bench.clock.advance(apart);
        assert_eq!(bench.status(&token).await, 200);
    }
    drop(listening);
    captured.text().matches("add `tokio::spawn(layer.background())`").count()
}

#[tokio::test]
async fn who_runs_no_background_is_told_once_when_a_flush_is_overdue() {
    assert_eq!(told_of_the_missing_line(&kept().0, EVERY).await, 1);
    assert_eq!(told_of_the_missing_line(&kept().0, EVERY / 2 - INSTANT).await, 0, "nothing is overdue");
    assert_eq!(told_of_the_missing_line(&Bench::new(), EVERY).await, 0, "nothing is kept");
    let both = kept_with(|builder| builder.cache(CacheConfig::default().refresh_ahead(SECOND * 5))).0;
    assert_eq!(told_of_the_missing_line(&both, SECOND * 26).await, 1, "once for both purposes");
    let (running, _ledger) = kept();
    let _background = with_background(&running).await;
    assert_eq!(told_of_the_missing_line(&running, EVERY).await, 0);
    let shut = kept().0;
    shut.auth.handle().shutdown(SECOND).await.unwrap();
    assert_eq!(told_of_the_missing_line(&shut, EVERY).await, 0);
}
