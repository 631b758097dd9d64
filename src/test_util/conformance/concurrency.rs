//! Writers who meet. They are futures of one task, so they meet wherever a store awaits.

use futures_util::future::{join, join_all, try_join_all};

use super::Store;
use super::broken::{Verdict, broken, ensure, same, same_record};
use super::sample::{at, find, insert, list, record, used};
use crate::id::Label;
use crate::store::{Change, InsertError, TokenFilter, UpdateError};
use crate::token::{Revision, TokenRecord, TokenState};

const WRITERS: usize = 12;
const ROUNDS: usize = 4;
/// More than a writer is beaten to it.
const MOST_TRIES: usize = 1_000;

pub(super) async fn inserts(store: Store<'_>) -> Verdict {
    let mut records = Vec::new();
    for number in 0..WRITERS {
        records.push(record(1)?.with_label(Label::new(format!("writer {number}"))?));
    }
    let outcomes = join_all(records.iter().map(|record| store.insert(record.clone()))).await;
    let mut winners = Vec::new();
    for (record, outcome) in records.iter().zip(outcomes) {
        match outcome {
            Ok(()) => winners.push(record),
            Err(InsertError::Taken) => {}
            Err(error) => return Err(error.into()),
        }
    }
    only(&winners, &find(store, record(1)?.id()).await?)?;
    same("listed", &list(store, &TokenFilter::all()).await?.len(), &1)
}

pub(super) async fn changes(store: Store<'_>) -> Verdict {
    let first = record(1)?;
    insert(store, [&first]).await?;
    let mut changes = Vec::new();
    for number in 0..WRITERS {
        changes.push(Change::Label(Label::new(format!("writer {number}"))?));
    }
    let id = first.id();
    let outcomes = join_all(changes.into_iter().map(|change| store.update(&id, first.revision(), change))).await;
    let mut winners = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(record) => winners.push(record),
            Err(UpdateError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    only(&winners.iter().collect::<Vec<_>>(), &find(store, id).await?)
}

fn only(winners: &[&TokenRecord], found: &TokenRecord) -> Verdict {
    match winners {
        [winner] => same_record("found", found, winner),
        winners => broken(format!("{} writers won", winners.len())),
    }
}

pub(super) async fn retries(store: Store<'_>) -> Verdict {
    insert(store, &[record(1)?]).await?;
    try_join_all((0..WRITERS).map(|_| change_several_times(store))).await?;
    let expected = Revision::new((WRITERS * ROUNDS) as u64 + 1);
    same("the revision in the end", &find(store, record(1)?.id()).await?.revision(), &expected)
}

async fn change_several_times(store: Store<'_>) -> Verdict {
    let mut changed = 0;
    for _ in 0..MOST_TRIES {
        if changed == ROUNDS {
            return Ok(());
        }
        let current = find(store, record(1)?.id()).await?;
        match store.update(&current.id(), current.revision(), Change::Pause).await {
            Ok(_) => changed += 1,
            Err(UpdateError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    broken(format!("a writer did not get through in {MOST_TRIES} tries"))
}

pub(super) async fn revocations(store: Store<'_>) -> Verdict {
    let mut records = Vec::new();
    for number in 0..32 {
        records.push(record(number)?);
    }
    insert(store, &records).await?;
    try_join_all(records.iter().map(|record| revoke_beside_a_reader(store, record))).await?;
    Ok(())
}

/// The reader makes it tempting to answer from a cache.
async fn revoke_beside_a_reader(store: Store<'_>, record: &TokenRecord) -> Verdict {
    let id = record.id();
    let (before, revoked) =
        join(store.find(&id), store.update(&id, record.revision(), Change::Revoke { at: at(1) })).await;
    ensure(before?.is_some(), || "the record is gone while it is revoked".to_owned())?;
    same_record("found", &find(store, id).await?, &revoked?)?;
    same("the state", &find(store, id).await?.state(), &TokenState::Revoked)
}

pub(super) async fn changes_and_uses(store: Store<'_>) -> Verdict {
    let first = record(1)?;
    let id = first.id();
    insert(store, [&first]).await?;
    let mut revision = first.revision();
    for round in 1..20 {
        let uses = [(id, used(round)?)];
        let (changed, noted) = join(store.update(&id, revision, Change::Pause), store.touch(&uses)).await;
        (revision, ()) = (changed?.revision(), noted?);
        let found = find(store, id).await?;
        same("the change", &(found.revision(), found.state()), &(revision, TokenState::Paused))?;
        same("the use", &found.last_used(), &Some(&used(round)?))?;
    }
    Ok(())
}

pub(super) async fn uses(store: Store<'_>) -> Verdict {
    let id = record(1)?.id();
    insert(store, &[record(1)?]).await?;
    let mut batches = Vec::new();
    // The latest is neither the first nor the last to come.
    for millis in [4, 2, 8, 6, 1, 9, 3, 7, 5] {
        batches.push([(id, used(millis)?)]);
    }
    try_join_all(batches.iter().map(|batch| store.touch(batch))).await?;
    same("the latest use", &find(store, id).await?.last_used(), &Some(&used(9)?))
}
