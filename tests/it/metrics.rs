//! What the `metrics` feature publishes, and what it never says.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit, with_local_recorder};
use tower_token_auth::{MemoryStore, Scope, VerifyLimits};

use crate::cache_rules::bench::{Bench, forge, status};

/// Keeps every metric by its name and labels.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>);

impl Kept {
    fn of(&self, key: &Key) -> Arc<AtomicU64> {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{} {}", key.name(), labels.join(" "));
        Arc::clone(self.0.lock().unwrap().entry(name).or_default())
    }

    /// By name, and labels but for the gate's number.
    fn read(&self) -> BTreeMap<String, u64> {
        let without_gate = |name: &str| {
            name.split(' ').filter(|word| !word.starts_with("gate=") && !word.is_empty()).collect::<Vec<_>>().join(" ")
        };
        let kept = self.0.lock().unwrap();
        kept.iter().map(|(name, value)| (without_gate(name), value.load(Ordering::SeqCst))).collect()
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.of(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.of(key))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

fn gauge(value: f64) -> u64 {
    value.to_bits()
}

#[tokio::test]
async fn the_numbers_of_a_gate_are_published_under_stable_names() {
    let bench = Bench::with(|builder| builder.realm("issues").upkeep(MemoryStore::new()));
    let token = bench.hot(Scope::ReadOnly).await;
    assert_eq!(bench.status(&token).await, 200);
    assert_eq!(status(&bench.auth, &forge(&token.id(), &bench.stranger())).await, 401);
    assert_eq!(bench.status(&bench.stranger()).await, 401);
    let kept = Kept::default();
    with_local_recorder(&kept, || bench.auth.handle().publish_metrics());
    let read = kept.read();
    let expected = [
        ("cache_hits_total", "", 2),
        ("cache_misses_total", "", 2),
        ("cache_negative_hits_total", "", 0),
        ("cache_excused_total", "", 0),
        ("cache_entries", " map=proved", gauge(1.0)),
        ("cache_entries", " map=unproved", gauge(0.0)),
        ("cache_entries", " map=negatives", gauge(1.0)),
        ("cache_evictions_total", " map=proved", 0),
        ("cache_evictions_total", " map=unproved", 0),
        ("cache_evictions_total", " map=negatives", 0),
        ("lookups_total", "", 2),
        ("lookups_failed_total", "", 0),
        ("lookups_joined_total", "", 0),
        ("lookups_refused_total", "", 0),
        ("lookups_ahead_total", "", 0),
        ("lookups_in_flight", " kind=cold", gauge(0.0)),
        ("lookups_in_flight", " kind=refresh", gauge(0.0)),
        ("hashes_total", " result=proved", 1),
        ("hashes_total", " result=refuted", 0),
        ("hashes_total", " result=failed", 0),
        ("hashes_total", " result=refused", 0),
        ("hashes_joined_total", "", 0),
        ("hash_waits_timed_out_total", "", 0),
        ("audit_events_total", " result=unheard", 0),
        ("audit_events_total", " result=written", 4),
        ("audit_events_total", " result=coalesced", 0),
        ("audit_events_total", " result=sampled", 0),
        ("audit_events_total", " result=lost", 0),
        ("audit_queued", "", gauge(0.0)),
        ("uses_total", " result=noted", 1),
        ("uses_total", " result=flushed", 0),
        ("uses_total", " result=dropped", 0),
        ("uses_waiting", "", gauge(1.0)),
        ("flushes_failed_total", "", 0),
        ("rehashes_total", " result=done", 0),
        ("rehashes_total", " result=not_done", 0),
        ("successors_total", "", 0),
    ];
    for (name, labels, value) in expected {
        let name = format!("tower_token_auth_{name} realm=issues{labels}");
        assert_eq!(read.get(&name), Some(&value), "{name} of {read:#?}");
    }
    // The crew's two gauges are those of the process, whatever else runs now.
    assert_eq!(read.len(), expected.len() + 2, "{read:#?}");
    let names = format!("{read:?}");
    assert!(!names.contains(token.id().as_str()) && !names.contains("alice"), "no token and no owner: {names}");
}

#[tokio::test]
async fn who_gave_up_waiting_is_counted_apart_from_what_hashes_came_to() {
    let bench = Bench::with(|builder| builder.verification(VerifyLimits::default().own_workers(1)));
    let token = bench.token(Scope::ReadOnly).await;
    let held = bench.hasher.hold();
    let mut late = Box::pin(bench.status(&token));
    assert!((&mut late).now_or_never().is_none());
    bench.clock.advance(Duration::from_secs(2));
    assert_eq!(late.await, 503);
    drop(held);
    while bench.auth.handle().stats().hashes.proved == 0 {
        tokio::task::yield_now().await;
    }
    let kept = Kept::default();
    with_local_recorder(&kept, || bench.auth.handle().publish_metrics());
    let read = kept.read();
    let results = read.iter().filter(|(name, _)| name.starts_with("tower_token_auth_hashes_total"));
    assert_eq!(results.map(|(_, number)| number).sum::<u64>(), 1, "one verification, one result");
    assert_eq!(read["tower_token_auth_hash_waits_timed_out_total realm=api"], 1);
}

#[tokio::test]
async fn the_background_publishes_from_time_to_time() {
    let bench = Bench::new();
    let token = bench.hot(Scope::ReadOnly).await;
    let kept = Kept::default();
    let mut background = bench.auth.background().boxed();
    let poll = |background: &mut BoxFuture<'_, ()>| {
        with_local_recorder(&kept, || assert!(background.now_or_never().is_none()));
    };
    let hits = || kept.read().get("tower_token_auth_cache_hits_total realm=api").copied();
    poll(&mut background);
    assert_eq!(hits(), Some(0));
    assert_eq!(bench.status(&token).await, 200);
    bench.clock.advance(Duration::from_secs(9));
    poll(&mut background);
    assert_eq!(hits(), Some(0));
    bench.clock.advance(Duration::from_secs(1));
    poll(&mut background);
    assert_eq!(hits(), Some(1));
}
