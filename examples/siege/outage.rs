//! What happens when everything is distrusted, and when the store is away.

use std::time::Duration;

use futures_util::FutureExt;
use tower_token_auth::LookupLimits;

use crate::counted::{Castle, Hasher, Mood, Store};
use crate::generator::{Job, Present};
use crate::table::{Row, row};
use crate::{Size, on_runtime};

const HOT: usize = 1_000;

pub(crate) fn invalidate_all(_: Size) -> Vec<Row> {
    let castle = Castle::new(Store::new(Duration::from_millis(1)), Hasher::cheap());
    let (before, answers) = on_runtime(async {
        let tokens = castle.tokens(HOT).await;
        let address = castle.serve().await;
        let all = Job::new(Present::Tokens(tokens), HOT, 200);
        Job { retry: true, ..all.clone() }.send(address).await;
        let before = castle.counts();
        castle.auth.handle().invalidate_all();
        (before, Job { requests: HOT * 3, ..all }.send(address).await)
    });
    let after = castle.counts();
    let (look_ups, hashes) = (after.0 - before.0, after.1 - before.1);
    vec![row(
        "invalidate_all with 1,000 hot tokens",
        "one look-up each, 0 argon2, 0 refusals",
        format!("{look_ups} look-ups, {hashes} argon2; {}", answers.told()),
        (look_ups, hashes, answers.of(200)) == (HOT, 0, HOT * 3),
    )]
}

pub(crate) fn store_trouble(_: Size) -> Vec<Row> {
    [(Mood::Fails, "fails"), (Mood::Hangs, "hangs"), (Mood::Panics, "panics")]
        .map(|(mood, name)| trouble(mood, name))
        .into()
}

fn trouble(mood: Mood, name: &str) -> Row {
    let limits = LookupLimits::default().timeout(Duration::from_millis(200));
    let castle = Castle::with(Store::new(Duration::ZERO), Hasher::cheap(), |builder| builder.lookup(limits));
    on_runtime(async {
        let (hot, cold) = (castle.tokens(50).await, castle.tokens(50).await);
        for token in &hot {
            assert_eq!(castle.get(token).await, 200);
        }
        let address = castle.serve().await;
        castle.store.set(mood);
        let away = Job::new(Present::Tokens(cold.clone()), 500, 50).send(address).await;
        let unaffected = hot.iter().all(|token| castle.get(token).now_or_never() == Some(200));
        let negatives = castle.auth.handle().stats().cache.negatives;
        castle.store.set(Mood::Works);
        let back = Job::new(Present::Tokens(cold), 50, 50).send(address).await;
        row(
            format!("the store {name}, then is back"),
            "503, never 401; hot tokens unaffected; back: 200 at first try",
            format!("away {}; hot {}; back {}", away.told(), if unaffected { "200" } else { "refused" }, back.told()),
            away.of(503) == 500 && unaffected && negatives == 0 && back.of(200) == 50,
        )
    })
}
