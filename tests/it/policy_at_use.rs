//! The policy at use: what today's policy leaves of tokens that were issued before, through the whole gate.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use futures_util::FutureExt;
use futures_util::future::join_all;
use http::{Method, Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_token_auth::{
    Access, AuthenticatedToken, CacheConfig, Change, Label, Outcome, PlaintextToken, Reason, Scope, TokenAuthLayer,
    TokenRegistry, TokenState, UnavailableCause,
};

use crate::cache_rules::bench::{Bench, bearer, status_of};
use crate::scripted::{Part, Scripted};

const TTL: Duration = Duration::from_secs(30);
const INSTANT: Duration = Duration::from_millis(1);
const TIMEOUT: Duration = Duration::from_secs(2);

/// A gate that applies a policy whose switch is `on`.
fn switched(on: bool) -> (Bench, Scripted) {
    let policy = Scripted::new(on);
    (Bench::with(|builder| builder.policy_at_use(policy.clone())), policy)
}

/// A token in the store, made with or without the right to make others' tokens.
async fn made(bench: &Bench, scope: Scope, on_behalf_right: bool) -> PlaintextToken {
    let (token, record) = bench.draft(scope);
    bench.store.insert(record.with_made_on_behalf_right(on_behalf_right)).await.unwrap();
    token
}

async fn send(bench: &Bench, method: Method, token: &PlaintextToken) -> u16 {
    status_of(&bench.auth, method, token.expose()).await
}

async fn write(bench: &Bench, token: &PlaintextToken) -> u16 {
    send(bench, Method::POST, token).await
}

/// A read and a write.
async fn both(bench: &Bench, token: &PlaintextToken) -> (u16, u16) {
    (bench.status(token).await, write(bench, token).await)
}

#[tokio::test]
async fn the_decision_table() {
    use Reason::{Forbidden, Policy};
    use Scope::{ReadOnly, ReadWrite};
    // switch, made with the on-behalf right, scope, why a write is refused
    for (switch, on_behalf, scope, refusal) in [
        (false, false, ReadOnly, Some(Forbidden)),
        (false, false, ReadWrite, None),
        (false, true, ReadOnly, Some(Forbidden)),
        (false, true, ReadWrite, None),
        (true, false, ReadOnly, Some(Forbidden)),
        (true, false, ReadWrite, Some(Policy)),
        (true, true, ReadOnly, Some(Forbidden)),
        (true, true, ReadWrite, None),
    ] {
        let (bench, _) = switched(switch);
        let token = made(&bench, scope, on_behalf).await;
        let writes =
            [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::TRACE].map(|method| (method, refusal));
        let reads = [Method::GET, Method::HEAD, Method::OPTIONS].map(|method| (method, None));
        for (method, refusal) in writes.into_iter().chain(reads) {
            let case = format!("switch {switch}, on behalf {on_behalf}, {scope}, {method}");
            let (status, outcome) = refusal.map_or((200, Outcome::Allowed), |_| (403, Outcome::Refused));
            bench.sink.take();
            assert_eq!(send(&bench, method, &token).await, status, "{case}");
            let events = bench.sink.take();
            let told: Vec<_> = events.iter().map(|event| (event.outcome, event.reason)).collect();
            assert_eq!(told, [(outcome, refusal)], "{case}");
        }
    }
}

#[tokio::test]
async fn without_the_option_the_switch_limits_no_token() {
    let bench = Bench::new();
    let token = made(&bench, Scope::ReadWrite, false).await;
    assert_eq!(both(&bench, &token).await, (200, 200));
}

#[tokio::test]
async fn a_refusal_by_policy_is_about_a_proved_token() {
    let (bench, _) = switched(true);
    let token = made(&bench, Scope::ReadWrite, false).await;
    assert_eq!(write(&bench, &token).await, 403);
    let event = bench.sink.take().pop().unwrap();
    assert_eq!((event.token_id, event.claimed_id), (Some(token.id()), None));
    assert_eq!((event.scope, event.access), (Some(Scope::ReadOnly), Some(Access::Write)));
}

/// What a handler learns of the token's scopes, and whether it may write.
async fn handled(bench: &Bench, token: &PlaintextToken) -> (Scope, Scope, bool) {
    let seen = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&seen);
    let inner = service_fn(move |request: Request<Body>| {
        *keep.lock().unwrap() = request.extensions().get::<AuthenticatedToken>().cloned();
        async { Ok::<_, Infallible>(Response::new(Body::empty())) }
    });
    bench.auth.layer(inner).oneshot(bearer(token)).await.unwrap();
    let token = seen.lock().unwrap().take().expect("the request was admitted");
    (token.scope(), token.issued_scope(), token.permits(Access::Write))
}

#[tokio::test]
async fn handlers_see_what_is_left_and_what_was_issued() {
    use Scope::{ReadOnly, ReadWrite};
    let (bench, _) = switched(true);
    let (limited, free) = (made(&bench, ReadWrite, false).await, made(&bench, ReadWrite, true).await);
    for _cold_then_hot in 0..2 {
        assert_eq!(handled(&bench, &limited).await, (ReadOnly, ReadWrite, false));
        assert_eq!(handled(&bench, &free).await, (ReadWrite, ReadWrite, true));
    }
    assert_eq!(bench.record(&limited).await.scope(), ReadWrite, "nothing is changed in the store");
}

#[tokio::test]
async fn the_very_next_write_after_the_switch_and_an_invalidation_is_refused() {
    let (bench, policy) = switched(false);
    let token = made(&bench, Scope::ReadWrite, false).await;
    assert_eq!(both(&bench, &token).await, (200, 200));
    for (switch, expected) in [(true, (200, 403)), (false, (200, 200)), (true, (200, 403))] {
        policy.answer(switch);
        bench.auth.handle().invalidate_all();
        assert_eq!(write(&bench, &token).await, expected.1, "switch {switch}");
        assert_eq!(both(&bench, &token).await, expected, "switch {switch}");
    }
    assert_eq!(bench.hasher.verifications(), 1, "proofs are kept");
}

#[tokio::test]
async fn without_an_invalidation_the_switch_holds_at_the_ttl() {
    let (bench, policy) = switched(false);
    let token = made(&bench, Scope::ReadWrite, false).await;
    assert_eq!(write(&bench, &token).await, 200);
    policy.answer(true);
    bench.clock.advance(TTL - INSTANT);
    assert_eq!(write(&bench, &token).await, 200, "not yet");
    bench.clock.advance(INSTANT);
    assert_eq!(write(&bench, &token).await, 403);
}

#[tokio::test]
async fn a_refresh_ahead_of_the_ttl_brings_the_switch() {
    let policy = Scripted::new(false);
    let bench = Bench::with(|builder| builder.policy_at_use(policy.clone()));
    let mut background = Box::pin(bench.auth.background());
    assert!((&mut background).now_or_never().is_none());
    let token = made(&bench, Scope::ReadWrite, false).await;
    assert_eq!(write(&bench, &token).await, 200);
    policy.answer(true);
    bench.clock.advance(TTL - Duration::from_secs(6));
    assert_eq!(write(&bench, &token).await, 200, "still believed, and due");
    while policy.asked() < 2 || bench.store.in_flight() > 0 {
        assert!((&mut background).now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    assert!((&mut background).now_or_never().is_none());
    tokio::task::yield_now().await;
    assert!((&mut background).now_or_never().is_none());
    assert_eq!(write(&bench, &token).now_or_never(), Some(403));
}

#[tokio::test]
async fn a_change_that_was_read_before_the_switch_is_not_believed_after_it() {
    let (bench, policy) = switched(false);
    let token = made(&bench, Scope::ReadWrite, false).await;
    bench.store.hold();
    let mut early = Box::pin(write(&bench, &token));
    assert!(early.as_mut().now_or_never().is_none());
    policy.answer(true);
    bench.auth.handle().invalidate_all();
    bench.store.release();
    assert_eq!(early.await, 403);
}

#[tokio::test]
async fn a_replica_that_lags_behind_loses_no_limit() {
    use TokenState::{Active, Paused};
    for (on, state) in [(true, Active), (true, Paused), (false, Active), (false, Paused)] {
        let (bench, policy) = switched(false);
        let token = made(&bench, Scope::ReadWrite, false).await;
        let older = bench.record(&token).await.with_state(state);
        bench.change(&token, Change::Label(Label::new("renamed").unwrap())).await;
        assert_eq!(write(&bench, &token).await, 200);
        policy.answer(on);
        bench.store.answer(Some(older));
        bench.auth.handle().invalidate_all();
        for _cold_then_hot in 0..2 {
            assert_eq!(both(&bench, &token).await, (200, if on { 403 } else { 200 }), "switch {on}, {state}");
        }
        assert_eq!((policy.asked(), bench.store.finds()), (2, 2));
    }
}

#[tokio::test]
async fn a_hot_token_asks_no_policy_and_waits_for_nothing() {
    let (bench, policy) = switched(true);
    let token = made(&bench, Scope::ReadWrite, false).await;
    assert_eq!(bench.status(&token).await, 200);
    assert_eq!((policy.asked(), bench.counts()), (1, (1, 1)));
    policy.play(Part::Hang);
    bench.store.hang();
    for _ in 0..100 {
        assert_eq!(bench.status(&token).now_or_never(), Some(200));
        assert_eq!(write(&bench, &token).now_or_never(), Some(403));
    }
    assert_eq!((policy.asked(), bench.counts()), (1, (1, 1)));
}

#[tokio::test]
async fn requests_that_wait_for_one_token_share_one_question() {
    let (bench, policy) = switched(true);
    let token = made(&bench, Scope::ReadWrite, false).await;
    let answers = join_all((0..100).map(|_| write(&bench, &token))).await;
    assert!(answers.iter().all(|status| *status == 403));
    assert_eq!((policy.asked(), bench.store.finds()), (1, 1));
}

#[tokio::test]
async fn the_policy_is_asked_of_tokens_it_could_limit_only() {
    let (bench, policy) = switched(true);
    let revoked = made(&bench, Scope::ReadWrite, false).await;
    bench.revoke(&revoked).await;
    for (token, status) in [
        (made(&bench, Scope::ReadOnly, false).await, 200),
        (made(&bench, Scope::ReadWrite, true).await, 200),
        (bench.stranger(), 401),
        (revoked, 401),
    ] {
        assert_eq!(bench.status(&token).await, status);
    }
    let limited = made(&bench, Scope::ReadWrite, false).await;
    assert_eq!(policy.asked(), 0);
    bench.store.bar_owner(bench.record(&limited).await.owner()).await.unwrap();
    assert_eq!((bench.status(&limited).await, policy.asked()), (401, 0));
    bench.store.lift_owner(bench.record(&limited).await.owner()).await.unwrap();
    bench.invalidate(&limited.id());
    assert_eq!((bench.status(&limited).await, policy.asked()), (200, 1), "the twin");
}

#[tokio::test]
async fn a_paused_token_is_resumed_under_the_policy() {
    let (bench, _) = switched(true);
    let token = made(&bench, Scope::ReadWrite, false).await;
    bench.change(&token, Change::Pause).await;
    assert_eq!(both(&bench, &token).await, (401, 401));
    bench.change(&token, Change::Resume).await;
    bench.invalidate(&token.id());
    assert_eq!(bench.record(&token).await.state(), TokenState::Active);
    assert_eq!(both(&bench, &token).await, (200, 403));
}

#[tokio::test]
async fn a_policy_that_cannot_be_told_is_a_503_that_nobody_remembers() {
    for (part, cause) in [
        (Part::Fail, UnavailableCause::PolicyFailed),
        (Part::Panic, UnavailableCause::StorePanicked),
        (Part::Hang, UnavailableCause::StoreTimedOut),
    ] {
        let (bench, policy) = switched(false);
        let token = made(&bench, Scope::ReadWrite, false).await;
        for asked in 1..=2 {
            policy.play(part);
            let mut answer = Box::pin(write(&bench, &token));
            while matches!(part, Part::Hang) && policy.asked() < asked {
                assert!(answer.as_mut().now_or_never().is_none());
                tokio::task::yield_now().await;
            }
            if matches!(part, Part::Hang) {
                bench.clock.advance(TIMEOUT);
            }
            assert_eq!((answer.await, policy.asked()), (503, asked), "{cause}");
            bench.assert_last(&format!("unavailable {cause}"));
        }
        policy.answer(false);
        assert_eq!((write(&bench, &token).await, policy.asked()), (200, 3), "{cause}: it recovers");
    }
}

#[tokio::test]
async fn a_policy_that_fails_is_excused_as_a_store_is() {
    for on in [true, false] {
        let policy = Scripted::new(on);
        let cache = CacheConfig::default().stale_if_error(Duration::from_secs(60));
        let bench = Bench::with(|builder| builder.cache(cache).policy_at_use(policy.clone()));
        let token = made(&bench, Scope::ReadWrite, false).await;
        let limits = both(&bench, &token).await;
        assert_eq!(limits, (200, if on { 403 } else { 200 }));
        policy.play(Part::Fail);
        bench.clock.advance(TTL);
        assert_eq!(both(&bench, &token).await, limits, "as before the failure");
        bench.auth.handle().invalidate_all();
        assert_eq!(both(&bench, &token).await, (503, 503), "never after an invalidation");
    }
}

/// One GET through an outer layer and a route's own, of the same gate.
async fn met_twice(outer: &TokenAuthLayer, inner: &TokenAuthLayer, token: &PlaintextToken) -> u16 {
    let service = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    outer.layer(inner.layer(service)).oneshot(bearer(token)).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_gate_met_twice_judges_by_policy_each_time() {
    let (bench, _) = switched(true);
    let (limited, free) = (made(&bench, Scope::ReadWrite, false).await, made(&bench, Scope::ReadWrite, true).await);
    let writes = bench.auth.requiring(Access::Write);
    for _cold_then_hot in 0..2 {
        bench.sink.take();
        assert_eq!(met_twice(&bench.auth, &writes, &limited).await, 403);
        assert_eq!(bench.outcomes(), ["allowed", "refused policy"]);
        bench.sink.take();
        assert_eq!(met_twice(&bench.auth, &writes, &free).await, 200);
        assert_eq!(met_twice(&bench.auth, &bench.auth, &limited).await, 200);
        assert_eq!(bench.outcomes(), ["allowed", "allowed"]);
    }
}
