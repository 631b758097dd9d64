//! Cold tokens: all at once, and one ten thousand times.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use crate::counted::{Castle, Hasher, Store};
use crate::generator::{Job, Present};
use crate::table::{Row, row};
use crate::{Size, on_runtime};

const CALLERS: usize = 10_000;

/// 10,000 requests with one cold token; every tenth leaves after it has begun.
pub(crate) fn stampede(size: Size) -> Vec<Row> {
    let repeats = size.of(20, 2);
    let current = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let of_current = (0..repeats).map(|_| current.block_on(one_stampede())).collect();
    let of_many = (0..repeats).map(|_| on_runtime(one_stampede())).collect();
    vec![
        stampede_row("one cold token, 10,000 callers, one thread", of_current),
        stampede_row("one cold token, 10,000 callers, many threads", of_many),
    ]
}

struct Outcome {
    look_ups: usize,
    hashes: usize,
    answered: usize,
}

fn stampede_row(attack: &str, outcomes: Vec<Outcome>) -> Row {
    let exactly_one =
        |outcome: &Outcome| (outcome.look_ups, outcome.hashes, outcome.answered) == (1, 1, CALLERS * 9 / 10);
    let worst = |of: fn(&Outcome) -> usize| outcomes.iter().map(of).max().unwrap_or_default();
    let measured = format!(
        "{} times: at most {} look-up, {} argon2; at least {} answered 200",
        outcomes.len(),
        worst(|outcome| outcome.look_ups),
        worst(|outcome| outcome.hashes),
        outcomes.iter().map(|outcome| outcome.answered).min().unwrap_or_default(),
    );
    let held = outcomes.iter().all(exactly_one);
    row(attack, "each time 1 look-up, 1 argon2; the 9,000 who stay get 200", measured, held)
}

async fn one_stampede() -> Outcome {
    let castle = Castle::new(Store::new(Duration::ZERO), Hasher::real());
    let token: Arc<str> = castle.token().await.expose().into();
    castle.store.close();
    let begun = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..CALLERS)
        .map(|at| {
            let (castle, token, begun) = (castle.clone(), Arc::clone(&token), Arc::clone(&begun));
            tokio::spawn(async move {
                let mut call = Box::pin(castle.get(&token));
                let first = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
                begun.fetch_add(1, Ordering::SeqCst);
                match first {
                    Poll::Ready(status) => Some(status),
                    // Leaves once all are there, before there is an answer.
                    Poll::Pending if at % 10 == 0 => {
                        all_there(&begun).await;
                        None
                    }
                    Poll::Pending => Some(call.await),
                }
            })
        })
        .collect();
    all_there(&begun).await;
    let (leaving, staying): (Vec<_>, Vec<_>) = callers.into_iter().enumerate().partition(|(at, _)| at % 10 == 0);
    for (_, caller) in leaving {
        assert_eq!(caller.await.unwrap(), None, "left before there was an answer");
    }
    castle.store.open();
    let mut answered = 0;
    for (_, caller) in staying {
        answered += usize::from(caller.await.unwrap() == Some(200));
    }
    let (look_ups, hashes) = castle.counts();
    Outcome { look_ups, hashes, answered }
}

async fn all_there(begun: &AtomicUsize) {
    while begun.load(Ordering::SeqCst) < CALLERS {
        tokio::task::yield_now().await;
    }
}

/// As after a restart: everybody comes at once, and comes again when told to.
pub(crate) fn a_thousand_cold_tokens(size: Size) -> Vec<Row> {
    let count = size.of(1_000, 100);
    let castle = Castle::new(Store::new(Duration::from_millis(1)), Hasher::real());
    let answers = on_runtime(async {
        let tokens = castle.tokens(count).await;
        let address = castle.serve().await;
        Job { retry: true, ..Job::new(Present::Tokens(tokens), count, 200) }.send(address).await
    });
    let hashes = castle.hasher.verifications();
    let held = answers.of(200) == count && answers.statuses.keys().all(|status| [200, 503].contains(status));
    let measured = format!("{}; {hashes} argon2", answers.told());
    vec![row(
        format!("{count} valid tokens cold at once, retrying"),
        "all in, one argon2 each, 503 at worst, never a 401",
        measured,
        held && hashes == count,
    )]
}
