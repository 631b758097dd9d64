//! An owner directory: all tokens of an owner who may not use them stop, and resume.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tower_token_auth::test_util::draft_with;
use tower_token_auth::{
    Change, Label, OwnerId, PlaintextToken, Prefix, Scope, TokenRegistry, TokenState, UnavailableCause,
};

use crate::cache_rules::bench::Bench;
use crate::scripted::{Part, Scripted};

const TTL: Duration = Duration::from_secs(30);
const INSTANT: Duration = Duration::from_millis(1);
const TIMEOUT: Duration = Duration::from_secs(2);

/// A gate whose directory says of alice what it is told, and of bob that he may.
fn with_directory(may_use: bool) -> (Bench, Scripted) {
    let directory = Scripted::new(may_use);
    (Bench::with(|builder| builder.owners(Arc::new(directory.clone()))), directory)
}

async fn token_of(bench: &Bench, owner: &str) -> PlaintextToken {
    let (token, record) = draft_with(&bench.hasher, &Prefix::default(), owner, Scope::ReadWrite).unwrap();
    bench.store.insert(record).await.unwrap();
    token
}

fn alice() -> OwnerId {
    OwnerId::new("alice").unwrap()
}

async fn statuses(bench: &Bench, tokens: &[PlaintextToken]) -> Vec<u16> {
    join_all(tokens.iter().map(|token| bench.status(token))).await
}

#[tokio::test]
async fn all_tokens_of_an_owner_stop_at_once_and_resume() {
    let (bench, directory) = with_directory(true);
    let tokens = [token_of(&bench, "alice").await, token_of(&bench, "alice").await, token_of(&bench, "bob").await];
    assert_eq!(statuses(&bench, &tokens).await, [200, 200, 200]);
    for (may_use, expected) in [(false, [401, 401, 200]), (true, [200, 200, 200]), (false, [401, 401, 200])] {
        directory.answer(may_use);
        bench.auth.handle().invalidate_owner(&alice());
        for _cold_then_hot in 0..2 {
            assert_eq!(statuses(&bench, &tokens).await, expected, "may use: {may_use}");
        }
    }
    let refused = bench.outcomes().into_iter().filter(|outcome| outcome == "refused owner_barred").count();
    assert_eq!(refused, 8);
    assert_eq!(bench.hasher.verifications(), 3, "proofs are kept");
}

#[tokio::test]
async fn a_gate_that_is_not_told_learns_it_at_the_ttl() {
    let (bench, directory) = with_directory(true);
    let token = bench.hot(Scope::ReadOnly).await;
    directory.answer(false);
    bench.clock.advance(TTL - INSTANT);
    assert_eq!(bench.status(&token).await, 200, "not yet");
    bench.clock.advance(INSTANT);
    assert_eq!(bench.status(&token).await, 401);
    bench.assert_last("refused owner_barred");
}

#[tokio::test]
async fn an_owner_has_to_be_free_by_the_store_and_the_directory() {
    for (barred, may_use, expected) in [(false, true, 200), (false, false, 401), (true, true, 401), (true, false, 401)]
    {
        let (bench, _) = with_directory(may_use);
        let token = bench.token(Scope::ReadOnly).await;
        if barred {
            bench.store.bar_owner(&alice()).await.unwrap();
        }
        assert_eq!(bench.status(&token).await, expected, "barred {barred}, may use {may_use}");
    }
}

#[tokio::test]
async fn a_replica_that_lags_behind_lifts_no_bar() {
    use TokenState::{Active, Paused};
    for (may_use, state, expected) in
        [(false, Active, 401), (false, Paused, 401), (true, Active, 200), (true, Paused, 200)]
    {
        let (bench, directory) = with_directory(true);
        let token = bench.token(Scope::ReadOnly).await;
        let older = bench.record(&token).await.with_state(state);
        bench.change(&token, Change::Label(Label::new("renamed").unwrap())).await;
        assert_eq!(bench.status(&token).await, 200);
        directory.answer(may_use);
        bench.store.answer(Some(older));
        bench.auth.handle().invalidate_owner(&alice());
        for _cold_then_hot in 0..2 {
            assert_eq!(bench.status(&token).await, expected, "may use: {may_use}, {state}");
        }
        assert_eq!((directory.asked(), bench.store.finds()), (2, 2));
    }
}

#[tokio::test]
async fn no_secret_of_a_barred_owner_is_hashed() {
    let (bench, directory) = with_directory(false);
    let token = bench.token(Scope::ReadOnly).await;
    assert_eq!((bench.status(&token).await, bench.hasher.verifications()), (401, 0));
    directory.answer(true);
    bench.invalidate(&token.id());
    assert_eq!((bench.status(&token).await, bench.hasher.verifications()), (200, 1), "the twin");
}

#[tokio::test]
async fn the_directory_is_asked_where_its_answer_counts_only() {
    let (bench, directory) = with_directory(true);
    let revoked = bench.token(Scope::ReadOnly).await;
    bench.revoke(&revoked).await;
    assert_eq!(statuses(&bench, &[bench.stranger(), revoked]).await, [401, 401]);
    let barred = bench.token(Scope::ReadOnly).await;
    bench.store.bar_owner(&alice()).await.unwrap();
    assert_eq!((bench.status(&barred).await, directory.asked()), (401, 0));
    let token = token_of(&bench, "bob").await;
    assert_eq!((bench.status(&token).await, directory.asked()), (200, 1), "the twin");
}

#[tokio::test]
async fn requests_that_wait_for_one_token_share_one_question() {
    let (bench, directory) = with_directory(true);
    let token = bench.token(Scope::ReadOnly).await;
    let answers = join_all((0..100).map(|_| bench.status(&token))).await;
    assert!(answers.iter().all(|status| *status == 200));
    assert_eq!((directory.asked(), bench.counts()), (1, (1, 1)));
}

#[tokio::test]
async fn a_hot_token_asks_no_directory_and_waits_for_nothing() {
    let (bench, directory) = with_directory(true);
    let token = bench.hot(Scope::ReadOnly).await;
    directory.play(Part::Hang);
    bench.store.hang();
    for _ in 0..100 {
        assert_eq!(bench.status(&token).now_or_never(), Some(200));
    }
    assert_eq!((directory.asked(), bench.counts()), (1, (1, 1)));
}

#[tokio::test]
async fn a_directory_that_cannot_answer_is_a_503_that_nobody_remembers() {
    for (part, cause) in [
        (Part::Fail, UnavailableCause::OwnersFailed),
        (Part::Panic, UnavailableCause::StorePanicked),
        (Part::Hang, UnavailableCause::StoreTimedOut),
    ] {
        let (bench, directory) = with_directory(true);
        let token = bench.token(Scope::ReadOnly).await;
        for asked in 1..=2 {
            directory.play(part);
            let mut answer = Box::pin(bench.status(&token));
            while matches!(part, Part::Hang) && directory.asked() < asked {
                assert!(answer.as_mut().now_or_never().is_none());
                tokio::task::yield_now().await;
            }
            if matches!(part, Part::Hang) {
                bench.clock.advance(TIMEOUT);
            }
            assert_eq!((answer.await, directory.asked()), (503, asked), "{cause}");
            bench.assert_last(&format!("unavailable {cause}"));
        }
        directory.answer(true);
        assert_eq!((bench.status(&token).await, directory.asked()), (200, 3), "{cause}: it recovers");
    }
}

#[tokio::test]
async fn the_policy_is_not_asked_of_a_barred_owner() {
    let (directory, policy) = (Scripted::new(false), Scripted::new(true));
    // In whichever order they are set.
    for owners_first in [true, false] {
        let bench = Bench::with(|builder| match owners_first {
            true => builder.owners(directory.clone()).policy_at_use(policy.clone()),
            false => builder.policy_at_use(policy.clone()).owners(directory.clone()),
        });
        let token = token_of(&bench, "alice").await;
        assert_eq!((bench.status(&token).await, policy.asked()), (401, 0));
    }
    let bench = Bench::with(|builder| builder.owners(directory).policy_at_use(policy.clone()));
    let token = token_of(&bench, "bob").await;
    assert_eq!((bench.status(&token).await, policy.asked()), (200, 1), "the twin");
}
