//! Sampling: fewer lines of busy tokens, and accounts that still add up to every decision.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tower_token_auth::test_util::RecordingSink;
use tower_token_auth::{
    Actor, AuditHistory, AuditSink, FanOut, IssuePolicy, NewToken, OnAuditFailure, Outcome, QueuedSink, SampledSink,
    Scope,
};

use crate::cache_rules::bench::{Bench, forge, status, status_of};

#[tokio::test]
async fn beside_a_history_and_before_a_queue_every_decision_is_accounted_for_once() {
    let (history, written) = (AuditHistory::new(), RecordingSink::new());
    let sampled = SampledSink::builder(QueuedSink::new(written.clone()).unwrap()).passed_on(3).build();
    let both = FanOut::new([Arc::new(history.clone()) as Arc<dyn AuditSink>, Arc::new(sampled)]);
    let bench = Bench::with(|builder| builder.audit(both));
    let desk = bench.auth.issuer(bench.store.clone(), IssuePolicy::default());
    let tokens = [bench.token(Scope::ReadOnly).await, bench.token(Scope::ReadOnly).await];
    for _minute in 0..2 {
        for token in &tokens {
            for _ in 0..100 {
                assert_eq!(bench.status(token).await, 200);
            }
            for _ in 0..7 {
                assert_eq!(status_of(&bench.auth, Method::POST, token.expose()).await, 403);
                assert_eq!(status(&bench.auth, &forge(&token.id(), &bench.stranger())).await, 401);
                assert_eq!(status(&bench.auth, "nonsense").await, 401);
            }
        }
        desk.issue(&Actor::system("test"), NewToken::new("alice", "one", Scope::ReadOnly)).await.unwrap();
        bench.clock.advance(Duration::from_secs(60));
    }
    bench.auth.handle().shutdown(Duration::from_secs(3600)).await.unwrap();
    let audit = bench.auth.handle().stats().audit;
    let of = |outcome| written.events().iter().filter(|event| event.outcome == outcome).count();
    // Two tokens in two minutes, three events each, and two acts at the desk.
    assert_eq!((of(Outcome::Allowed), of(Outcome::Refused)), (2 * 2 * 3 + 2, 2 * 2 * 21));
    assert_eq!((audit.events, audit.sampled), (2 * 2 * 121 + 2, 2 * 2 * 97));
    assert_eq!((audit.written, audit.coalesced + audit.lost + audit.queued + audit.unheard), (2 * 2 * 24 + 2, 0));
    assert_eq!(audit.written + audit.sampled, audit.events);
    for token in &tokens {
        let seen = history.applications(&token.id()).unwrap();
        assert_eq!((seen.applications[0].allowed, seen.applications[0].forbidden, seen.unproved), (200, 14, 14));
    }
}

#[tokio::test]
async fn without_a_queue_too_what_was_left_out_is_counted() {
    let written = RecordingSink::new();
    let bench = Bench::with(|builder| builder.audit(SampledSink::builder(written.clone()).passed_on(2).build()));
    let token = bench.token(Scope::ReadOnly).await;
    written.fail_all(true);
    assert_eq!(bench.status(&token).await, 200);
    written.fail_all(false);
    for _ in 0..9 {
        assert_eq!(bench.status(&token).await, 200);
    }
    let audit = bench.auth.handle().stats().audit;
    assert_eq!((audit.events, audit.written, audit.sampled, audit.lost), (10, 2, 7, 1));
}

#[tokio::test]
async fn a_request_that_must_be_on_record_is_not_waved_through_because_others_failed() {
    let written = RecordingSink::new();
    let sampled = SampledSink::builder(written.clone()).passed_on(2).build();
    let bench = Bench::with(|builder| builder.audit(sampled).on_audit_failure(OnAuditFailure::Refuse));
    let token = bench.token(Scope::ReadOnly).await;
    written.fail_all(true);
    for _ in 0..10 {
        assert_eq!(bench.status(&token).await, 503);
    }
    written.fail_all(false);
    for _ in 0..10 {
        assert_eq!(bench.status(&token).await, 200);
    }
    assert_eq!(written.events().len(), 2);
}
