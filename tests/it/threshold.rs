//! The alarm: one token was refused too often.

use std::time::Duration;

use http::Method;
use tower_token_auth::test_util::{RecordedEvent, RecordingSink};
use tower_token_auth::{Action, AuditSink, Outcome, QueuedSink, Reason, Scope, ThresholdSink};

use crate::cache_rules::bench::{Bench, forge, status, status_of};

fn bench() -> (Bench, RecordingSink, QueuedSink) {
    let written = RecordingSink::new();
    // No place for noise at all: every refusal of a mere claim becomes part of a summary.
    let queue = QueuedSink::builder(written.clone()).noise(0).build().unwrap();
    let threshold = ThresholdSink::new(queue.clone());
    (Bench::with(|builder| builder.audit(threshold)), written, queue)
}

fn reports(written: &RecordingSink) -> Vec<RecordedEvent> {
    written.events().into_iter().filter(|event| event.action == Action::ReportThreshold).collect()
}

#[tokio::test]
async fn fifty_guesses_at_a_token_within_a_minute_are_reported_through_a_queue_full_of_noise() {
    let (bench, written, queue) = bench();
    let token = bench.token(Scope::ReadOnly).await;
    for guess in 1..=120 {
        assert_eq!(status(&bench.auth, &forge(&token.id(), &bench.stranger())).await, 401);
        if guess == 49 {
            queue.flush().await;
            assert!(reports(&written).is_empty());
        }
    }
    queue.flush().await;
    let told = reports(&written);
    assert_eq!(told.len(), 1, "once in a window");
    assert_eq!((told[0].claimed_id, told[0].count), (Some(token.id()), 50));
    assert_eq!((told[0].outcome, told[0].reason), (Outcome::Refused, Some(Reason::Mismatch)));
    let audit = bench.auth.handle().stats().audit;
    assert_eq!(
        (audit.events, audit.coalesced, audit.written, audit.queued),
        (120, 120, 0, 0),
        "a report is no decision"
    );
    bench.clock.advance(Duration::from_secs(60));
    for _ in 0..50 {
        assert_eq!(status(&bench.auth, &forge(&token.id(), &bench.stranger())).await, 401);
    }
    queue.flush().await;
    assert_eq!(reports(&written).len(), 2);
}

#[tokio::test]
async fn a_client_that_goes_on_writing_with_a_read_only_token_is_reported_by_name() {
    let (bench, written, queue) = bench();
    let token = bench.token(Scope::ReadOnly).await;
    for _ in 0..50 {
        assert_eq!(status_of(&bench.auth, Method::POST, token.expose()).await, 403);
        assert_eq!(bench.status(&token).await, 200);
    }
    queue.flush().await;
    let told = reports(&written);
    assert_eq!((told.len(), told[0].token_id, told[0].owner.as_deref()), (1, Some(token.id()), Some("alice")));
    let audit = bench.auth.handle().stats().audit;
    assert_eq!((audit.events, audit.written, audit.coalesced), (100, 100, 0), "a report is no decision");
}

#[tokio::test]
async fn unknown_ids_and_admitted_requests_are_no_alarm() {
    let (bench, written, queue) = bench();
    let (token, stranger) = (bench.token(Scope::ReadOnly).await, bench.stranger());
    for _ in 0..200 {
        assert_eq!(bench.status(&token).await, 200);
        assert_eq!(bench.status(&stranger).await, 401);
        assert_eq!(status(&bench.auth, "nonsense").await, 401);
    }
    queue.flush().await;
    assert!(reports(&written).is_empty());
}
