//! A sink that is slow, fails or panics, behind a queue: nothing waits, and every decision is accounted for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use axum::body::Body;
use futures_util::FutureExt;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use proptest::prelude::*;
use tower::{Layer, ServiceExt, service_fn};
use tower_token_auth::test_util::{CheapHasher, ManualClock, RecordingSink, ScriptedStore, draft_with};
use tower_token_auth::{
    Action, Actor, AuditError, AuditEvent, AuditSink, AuditTally, BuildError, FanOut, IssuePolicy, NewToken, NoAudit,
    OnAuditFailure, Outcome, Prefix, QueuedSink, Scope, TokenAuthLayer, TokenRegistry, TracingSink,
};

/// A sink that stands still while its door is closed.
#[derive(Clone, Default)]
struct Doored {
    within: RecordingSink,
    door: Arc<(Mutex<bool>, Condvar)>,
    arrived: Arc<AtomicUsize>,
}

impl Doored {
    fn closed() -> Self {
        let doored = Self::default();
        doored.set(true);
        doored
    }

    fn set(&self, closed: bool) {
        *self.door.0.lock().unwrap() = closed;
        self.door.1.notify_all();
    }

    fn open(&self) {
        self.set(false);
    }

    /// Waits until the queue's thread stands at the door.
    fn await_arrival(&self) {
        while self.arrived.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
    }

    fn reasons(&self) -> Vec<(Action, Outcome, u64)> {
        self.within.events().iter().map(|event| (event.action, event.outcome, event.count)).collect()
    }

    fn of(&self, outcome: Outcome) -> usize {
        self.within.events().iter().filter(|event| event.outcome == outcome).count()
    }
}

impl AuditSink for Doored {
    fn record(&self, event: &AuditEvent<'_>) -> Result<(), AuditError> {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        let closed = self.door.0.lock().unwrap();
        drop(self.door.1.wait_while(closed, |closed| *closed).unwrap());
        self.within.record(event)
    }
}

/// A gate whose events go through a queue, and what to send it.
struct Bench {
    sink: Doored,
    queue: QueuedSink,
    auth: TokenAuthLayer,
    token: String,
    served: Arc<AtomicUsize>,
}

async fn bench(sink: Doored, capacity: usize, noise: usize, policy: OnAuditFailure) -> Bench {
    let queue = QueuedSink::builder(sink.clone()).capacity(capacity).noise(noise).build().unwrap();
    bench_of(sink, queue.clone(), queue, policy).await
}

async fn bench_of(sink: Doored, queue: QueuedSink, audit: impl AuditSink, policy: OnAuditFailure) -> Bench {
    let (store, hasher) = (ScriptedStore::default(), CheapHasher::new().inline());
    let (token, record) = draft_with(&hasher, &Prefix::default(), "alice", Scope::ReadOnly).unwrap();
    store.insert(record).await.unwrap();
    let builder = TokenAuthLayer::builder(store).hasher(hasher).audit(audit).on_audit_failure(policy);
    let (auth, served) = (builder.build().unwrap(), Arc::default());
    Bench { sink, queue, auth, token: token.expose().to_owned(), served }
}

impl Bench {
    async fn send(&self, authorization: Option<String>) -> u16 {
        self.send_to("/", authorization).await
    }

    async fn send_to(&self, path: &str, authorization: Option<String>) -> u16 {
        let served = Arc::clone(&self.served);
        let inner = service_fn(move |_: Request<Body>| {
            served.fetch_add(1, Ordering::SeqCst);
            async { Ok::<_, std::convert::Infallible>(Response::new(Body::empty())) }
        });
        let mut request = Request::get(path).body(Body::empty()).unwrap();
        if let Some(value) = authorization {
            request.headers_mut().insert(AUTHORIZATION, value.parse().unwrap());
        }
        self.auth.layer(inner).oneshot(request).await.unwrap().status().as_u16()
    }

    fn credentials(&self) -> Option<String> {
        Some(format!("Bearer {}", self.token))
    }

    async fn proved(&self) -> u16 {
        self.send(self.credentials()).await
    }

    async fn noise(&self) -> u16 {
        self.send(None).await
    }

    fn tally(&self) -> AuditTally {
        self.queue.tally().unwrap()
    }

    async fn flushed(&self) -> AuditTally {
        self.queue.flush().await;
        self.tally()
    }
}

fn tally(written: u64, coalesced: u64, lost: u64, queued: u64) -> AuditTally {
    let mut tally = AuditTally::new();
    (tally.written, tally.coalesced, tally.lost, tally.queued) = (written, coalesced, lost, queued);
    tally
}

#[tokio::test]
async fn events_arrive_in_order_and_whole() {
    // More noise than there are places: what is summed up must not come before what is not.
    let bench = bench(Doored::closed(), 100, 10, OnAuditFailure::Continue).await;
    let paths = |kind: &str, count: usize| (0..count).map(|at| format!("/{kind}/{at}")).collect::<Vec<_>>();
    for (proved, noise) in paths("proved", 80).iter().zip(paths("noise", 80)) {
        assert_eq!(bench.send_to(proved, bench.credentials()).await, 200);
        assert_eq!(bench.send_to(&noise, None).await, 401);
    }
    bench.sink.open();
    assert_eq!(bench.flushed().await, tally(90, 70, 0, 0));
    let events = bench.sink.within.events();
    let arrived = |outcome| {
        let of_it = events.iter().filter(move |event| event.outcome == outcome);
        of_it.filter_map(|event| event.path.clone()).collect::<Vec<_>>()
    };
    assert_eq!(arrived(Outcome::Allowed), paths("proved", 80));
    assert_eq!(arrived(Outcome::Refused), paths("noise", 10));
    let last = events.last().unwrap();
    assert_eq!((last.outcome, last.count, last.path.as_deref()), (Outcome::Refused, 70, None));
    assert_eq!((events[0].method.as_deref(), events[0].owner.as_deref()), (Some("GET"), Some("alice")));
}

#[tokio::test]
async fn noise_beyond_its_places_is_summed_up_exactly_and_costs_no_proved_event() {
    let bench = bench(Doored::closed(), 100, 10, OnAuditFailure::Refuse).await;
    for at in 0..10_000 {
        let authorization = (at % 2 == 0).then(|| "Bearer nonsense".to_owned());
        assert_eq!(bench.send(authorization).await, 401);
    }
    for _ in 0..50 {
        assert_eq!(bench.proved().await, 200, "noise never uses up what proved events need");
    }
    assert_eq!(bench.tally(), tally(0, 0, 0, 10_050));
    bench.sink.open();
    let tally = bench.flushed().await;
    assert_eq!((tally.lost, tally.queued, tally.written + tally.coalesced), (0, 0, 10_050));
    assert_eq!(bench.sink.of(Outcome::Allowed), 50);
    let counted: u64 = bench.sink.within.events().iter().map(|event| event.count).sum();
    assert_eq!(counted, 10_050);
    assert!(bench.sink.within.events().len() < 200, "the rest came as summaries");
}

#[tokio::test]
async fn a_full_queue_refuses_what_must_be_on_record_before_it_happens() {
    for (policy, status) in [(OnAuditFailure::Refuse, 503), (OnAuditFailure::Continue, 200)] {
        let bench = bench(Doored::closed(), 12, 2, policy).await;
        for _ in 0..10 {
            assert_eq!(bench.proved().await, 200);
        }
        assert_eq!(bench.proved().await, status);
        assert_eq!(bench.served.load(Ordering::SeqCst), if status == 503 { 10 } else { 11 });
        assert_eq!(bench.noise().await, 401, "a refusal stays one");
        bench.sink.open();
        assert_eq!(bench.flushed().await, tally(11, 0, 1, 0));
        assert_eq!(bench.proved().await, 200, "there is room again");
    }
}

#[tokio::test]
async fn the_desk_obeys_a_full_queue() {
    let bench = bench(Doored::closed(), 2, 1, OnAuditFailure::Refuse).await;
    let desk = bench.auth.issuer(ScriptedStore::default(), IssuePolicy::default());
    let new = || NewToken::new("alice", "one", Scope::ReadOnly);
    assert!(desk.issue(&Actor::system("test"), new()).await.is_ok());
    assert!(desk.issue(&Actor::system("test"), new()).await.is_err(), "the act cannot be put on record");
    bench.sink.open();
    bench.queue.flush().await;
    assert!(desk.issue(&Actor::system("test"), new()).await.is_ok());
}

#[tokio::test]
async fn a_loss_is_reported_with_its_number_once_the_sink_writes_again() {
    let bench = bench(Doored::closed(), 12, 2, OnAuditFailure::Continue).await;
    for _ in 0..17 {
        assert_eq!(bench.proved().await, 200);
    }
    assert_eq!(bench.tally(), tally(0, 0, 7, 10));
    bench.sink.open();
    assert_eq!(bench.flushed().await, tally(10, 0, 7, 0));
    let reports: Vec<_> =
        bench.sink.reasons().into_iter().filter(|(action, ..)| *action == Action::ReportLoss).collect();
    assert_eq!(reports, [(Action::ReportLoss, Outcome::Unavailable, 7)]);
}

#[tokio::test]
async fn a_sink_that_fails_or_panics_loses_what_it_was_given_and_nothing_else() {
    let bench = bench(Doored::default(), 100, 10, OnAuditFailure::Continue).await;
    for (set, before) in [(RecordingSink::fail_all as fn(&RecordingSink, bool), 0), (RecordingSink::panic_all, 1)] {
        set(&bench.sink.within, true);
        for _ in 0..4 {
            assert_eq!(bench.proved().await, 200);
        }
        bench.flushed().await;
        set(&bench.sink.within, false);
        assert_eq!(bench.proved().await, 200, "found out by the fifth that is lost");
        assert_eq!(bench.flushed().await, tally(before, 0, 5 * (before + 1), 0));
        assert_eq!(bench.proved().await, 200);
        assert_eq!(bench.flushed().await, tally(before + 1, 0, 5 * (before + 1), 0));
    }
    let reported: u64 = bench
        .sink
        .within
        .events()
        .iter()
        .filter(|event| event.action == Action::ReportLoss)
        .map(|event| event.count)
        .sum();
    assert_eq!(reported, 10);
}

#[tokio::test]
async fn while_the_sink_within_fails_nothing_is_admitted_that_must_be_on_record() {
    for (policy, status) in [(OnAuditFailure::Refuse, 503), (OnAuditFailure::Continue, 200)] {
        let bench = bench(Doored::default(), 100, 10, policy).await;
        assert_eq!(bench.proved().await, 200);
        bench.queue.flush().await;
        bench.sink.within.fail_all(true);
        assert_eq!(bench.proved().await, 200, "taken in, as far as anybody knows");
        bench.queue.flush().await;
        for _ in 0..10 {
            assert_eq!(bench.proved().await, status);
            assert_eq!(bench.noise().await, 401, "a refusal stays one");
            bench.queue.flush().await;
        }
        assert_eq!(bench.served.load(Ordering::SeqCst), if status == 503 { 2 } else { 12 });
        bench.sink.within.fail_all(false);
        assert_eq!(bench.proved().await, status, "it is only found out by this one");
        bench.queue.flush().await;
        for _ in 0..10 {
            assert_eq!(bench.proved().await, 200);
        }
        assert_eq!(bench.flushed().await, tally(11, 0, 22, 0));
        let reports = bench.sink.reasons().into_iter().filter(|(action, ..)| *action == Action::ReportLoss);
        assert_eq!(reports.map(|(.., count)| count).sum::<u64>(), 22);
    }
}

#[tokio::test]
async fn the_desk_obeys_a_sink_that_fails_behind_its_queue() {
    let bench = bench(Doored::default(), 100, 10, OnAuditFailure::Refuse).await;
    let desk = bench.auth.issuer(ScriptedStore::default(), IssuePolicy::default());
    let new = || NewToken::new("alice", "one", Scope::ReadOnly);
    bench.sink.within.fail_all(true);
    assert!(desk.issue(&Actor::system("test"), new()).await.is_ok(), "nobody knows it yet");
    bench.queue.flush().await;
    assert!(desk.issue(&Actor::system("test"), new()).await.is_err());
    bench.sink.within.fail_all(false);
    bench.noise().await;
    bench.queue.flush().await;
    assert!(desk.issue(&Actor::system("test"), new()).await.is_ok(), "any event shows that it is well");
}

#[tokio::test]
async fn a_shutdown_waits_for_the_sink_and_no_longer_than_its_deadline() {
    let (sink, clock) = (Doored::closed(), ManualClock::default());
    let queue = QueuedSink::builder(sink.clone()).clock(clock.clone()).build().unwrap();
    let bench = bench_of(sink, queue.clone(), queue, OnAuditFailure::Continue).await;
    for _ in 0..3 {
        bench.proved().await;
    }
    let mut late = Box::pin(bench.queue.shutdown(Duration::from_secs(5)));
    assert!(late.as_mut().now_or_never().is_none());
    clock.advance(Duration::from_secs(5));
    let unflushed = late.await.unwrap_err();
    assert_eq!((unflushed.events(), unflushed.to_string().contains("3 audit events")), (3, true));
    let in_time = bench.queue.shutdown(Duration::from_secs(5));
    bench.sink.open();
    assert_eq!(in_time.await, Ok(()));
    assert_eq!(bench.tally(), tally(3, 0, 0, 0));
}

#[tokio::test]
async fn the_gates_own_shutdown_flushes_and_ends_the_background() {
    let bench = bench(Doored::default(), 100, 10, OnAuditFailure::Continue).await;
    let background = tokio::spawn(bench.auth.background());
    bench.proved().await;
    assert_eq!(bench.auth.handle().shutdown(Duration::from_secs(60)).await, Ok(()));
    background.await.unwrap();
    assert_eq!(bench.sink.of(Outcome::Allowed), 1);
    let stats = bench.auth.handle().stats().audit;
    assert_eq!((stats.events, stats.unheard, stats.written, stats.lost, stats.queued), (1, 0, 1, 0, 0));
    assert_eq!(bench.proved().await, 200, "the gate goes on judging");
}

#[tokio::test]
async fn what_is_queued_outlives_the_last_handle() {
    let bench = bench(Doored::closed(), 100, 10, OnAuditFailure::Continue).await;
    for _ in 0..5 {
        bench.proved().await;
    }
    let Bench { sink, queue, auth, .. } = bench;
    drop((queue, auth));
    sink.open();
    while sink.within.events().len() < 5 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_fan_out_with_a_queue_can_be_required_and_flushed() {
    let sink = Doored::default();
    let queue = QueuedSink::new(sink.clone()).unwrap();
    let both = FanOut::new([Arc::new(queue.clone()) as Arc<dyn AuditSink>, Arc::new(TracingSink::new())]);
    assert!(both.can_fail());
    let bench = bench_of(sink, queue, both, OnAuditFailure::Refuse).await;
    assert_eq!(bench.proved().await, 200);
    assert_eq!(bench.auth.handle().shutdown(Duration::from_secs(60)).await, Ok(()));
    assert_eq!(bench.sink.of(Outcome::Allowed), 1);
    assert_eq!(bench.auth.handle().stats().audit.written, 1);
}

#[test]
fn a_queue_without_room_is_a_build_error() {
    for (capacity, noise) in [(0, 0), (1, 0), (10, 10), (10, 11)] {
        let built = QueuedSink::builder(NoAudit::new()).capacity(capacity).noise(noise).build();
        let error = built.unwrap_err();
        assert!(matches!(error, BuildError::AuditQueue), "{capacity}, {noise}: {error}");
        assert!(error.to_string().contains("set the capacity to at least 2"));
    }
    assert!(QueuedSink::builder(NoAudit::new()).capacity(2).noise(1).build().is_ok());
}

#[test]
fn a_queue_can_be_required_to_record_where_the_sink_within_can() {
    let required = |sink: QueuedSink| {
        TokenAuthLayer::builder(ScriptedStore::default()).audit(sink).on_audit_failure(OnAuditFailure::Refuse).build()
    };
    for deaf in [QueuedSink::new(TracingSink::new()), QueuedSink::new(NoAudit::new())] {
        let error = required(deaf.unwrap()).unwrap_err();
        assert!(matches!(error, BuildError::AuditCannotFail), "{error}");
    }
    assert!(required(QueuedSink::new(RecordingSink::new()).unwrap()).is_ok());
    let optional = TokenAuthLayer::builder(ScriptedStore::default());
    assert!(optional.audit(QueuedSink::new(TracingSink::new()).unwrap()).build().is_ok());
}

#[tokio::test]
async fn a_client_that_leaves_before_the_decision_is_on_record() {
    let (store, sink) = (ScriptedStore::default(), RecordingSink::new());
    let (token, record) = draft_with(&CheapHasher::new(), &Prefix::default(), "alice", Scope::ReadOnly).unwrap();
    store.insert(record).await.unwrap();
    let auth = TokenAuthLayer::builder(store.clone()).hasher(CheapHasher::new()).audit(sink.clone()).build().unwrap();
    let inner =
        || service_fn(|_: Request<Body>| async { Ok::<_, std::convert::Infallible>(Response::new(Body::empty())) });
    let request =
        || Request::get("/a?b").header(AUTHORIZATION, format!("Bearer {}", token.expose())).body(Body::empty());
    store.hang();
    for polled in [true, false] {
        let mut pending = Box::pin(auth.layer(inner()).oneshot(request().unwrap()));
        assert!(pending.as_mut().now_or_never().is_none());
        assert!(polled || sink.events().is_empty());
        drop(pending);
        let events = sink.take();
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].outcome, events[0].reason), (Outcome::Abandoned, None));
        assert_eq!((events[0].claimed_id, events[0].token_id), (Some(token.id()), None));
        assert_eq!(events[0].path.as_deref(), Some("/a"));
    }
    store.work();
    assert_eq!(auth.layer(inner()).oneshot(request().unwrap()).await.unwrap().status(), 200);
    assert_eq!(sink.take().len(), 1, "one decision, one event");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_thousand_decisions_from_many_threads_are_all_accounted_for() {
    const EACH: usize = 12_500;
    let sink = Doored::closed();
    let queue = QueuedSink::builder(sink.clone()).capacity(20_000).noise(1_000).build().unwrap();
    let bench = Arc::new(bench_of(sink, queue.clone(), queue, OnAuditFailure::Continue).await);
    bench.proved().await;
    bench.sink.await_arrival();
    let callers: Vec<_> = (0..8)
        .map(|at| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move {
                for _ in 0..EACH {
                    if at % 2 == 0 {
                        bench.proved().await
                    } else {
                        bench.noise().await
                    };
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    // 19,000 places for proved events; noise took none of them.
    assert_eq!(bench.tally(), tally(0, 0, 50_001 - 19_000, 50_000 + 19_000));
    bench.sink.open();
    let end = bench.flushed().await;
    assert_eq!(end.written + end.coalesced + end.lost, 100_001);
    assert_eq!((end.lost, bench.sink.of(Outcome::Allowed)), (31_001, 19_000));
}

#[tokio::test]
async fn an_outage_of_the_sink_is_logged_at_once_and_at_each_doubling() {
    let (sink, queue) = (Doored::default(), QueuedSink::new(NoAudit::new()).unwrap());
    let bench = bench_of(sink.clone(), queue, sink.within.clone(), OnAuditFailure::Continue).await;
    let captured = crate::tower_contract::Captured::default();
    let _listening = captured.listen();
    let told = || captured.text().matches("an audit event was not recorded").count();
    for at in 0..100 {
        sink.within.fail_all(true);
        if at % 2 == 0 {
            bench.proved().await
        } else {
            bench.noise().await
        };
        sink.within.fail_all(false);
        bench.proved().await;
        bench.noise().await;
    }
    assert_eq!(told(), 7, "1, 2, 4, 8, 16, 32, 64");
    for (successes, logged) in [(900, 7), (1_000, 8)] {
        for _ in 0..successes {
            bench.proved().await;
        }
        sink.within.fail_all(true);
        bench.proved().await;
        sink.within.fail_all(false);
        assert_eq!(told(), logged, "another outage begins after 1,000 successes in a row");
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Proved,
    Noise,
    Close,
    Open,
    Fail(bool),
    Panic(bool),
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Proved),
        4 => Just(Step::Noise),
        1 => Just(Step::Close),
        1 => Just(Step::Open),
        1 => any::<bool>().prop_map(Step::Fail),
        1 => any::<bool>().prop_map(Step::Panic),
        1 => Just(Step::Flush),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_accounts_add_up(steps in prop::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let bench = bench(Doored::default(), 8, 2, OnAuditFailure::Continue).await;
            let (mut told, mut closed) = (0, false);
            for step in steps {
                match step {
                    Step::Proved => { bench.proved().await; told += 1; }
                    Step::Noise => { bench.noise().await; told += 1; }
                    Step::Close => { bench.sink.set(true); closed = true; }
                    Step::Open => { bench.sink.open(); closed = false; }
                    Step::Fail(fails) => bench.sink.within.fail_all(fails),
                    Step::Panic(panics) => bench.sink.within.panic_all(panics),
                    Step::Flush if closed => {}
                    Step::Flush => bench.queue.flush().await,
                }
            }
            bench.sink.open();
            let end = bench.flushed().await;
            assert_eq!((end.written + end.coalesced + end.lost, end.queued), (told, 0));
            let reached: u64 = bench.sink.within.events().iter()
                .filter(|event| event.action != Action::ReportLoss).map(|event| event.count).sum();
            assert_eq!(reached, end.written + end.coalesced);
        });
    }
}
