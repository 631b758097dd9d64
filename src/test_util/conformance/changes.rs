//! Changes: compare and set, and what a record does not allow.

use super::Store;
use super::broken::{Verdict, broken, same, same_record};
use super::sample::{at, find, full, hash, id, insert, list, record};
use crate::id::Label;
use crate::scope::Scope;
use crate::store::{Change, ChangeError, TokenFilter, UpdateError};
use crate::token::{RetiringSecret, Revision, TokenRecord, TokenState};

/// Every kind of change, in an order in which a full record takes them all; the last one is final.
fn kinds() -> Verdict<Vec<Change>> {
    let retiring = RetiringSecret::new(hash(51)?, at(60_000));
    let secret = hash(52)?;
    let rotated = |retiring| Change::Secrets { secret: secret.clone(), retiring };
    Ok(vec![
        Change::Pause,
        Change::Resume,
        Change::Label(Label::new("renamed \u{1f980}")?),
        Change::Expiry(None),
        Change::Expiry(Some(at(70_000))),
        rotated(None),
        rotated(Some(retiring.clone())),
        rotated(Some(retiring.with_successor_used(true))),
        rotated(None),
        Change::Scope(Scope::ReadOnly),
        Change::Pause,
        Change::Revoke { at: at(80_000) },
    ])
}

pub(super) async fn every_kind(store: Store<'_>) -> Verdict {
    for first in [full(1)?, record(2)?] {
        insert(store, [&first]).await?;
        let mut expected = first;
        for change in kinds()? {
            let what = format!("{change:?}");
            let revision = expected.revision();
            expected = change.clone().apply(expected)?;
            let answer = store.update(&expected.id(), revision, change).await?;
            same_record(&format!("{what} is answered with"), &answer, &expected)?;
            same_record(&format!("{what} is found"), &find(store, expected.id()).await?, &expected)?;
        }
        let listed = list(store, &TokenFilter::all().state(TokenState::Revoked)).await?;
        let listed = listed.iter().find(|record| record.id() == expected.id());
        listed.map_or_else(|| broken("not listed as revoked"), |record| same_record("listed", record, &expected))?;
    }
    Ok(())
}

pub(super) async fn stale(store: Store<'_>) -> Verdict {
    let (untouched, first) = (record(1)?, record(2)?);
    insert(store, [&untouched, &first]).await?;
    let paused = store.update(&first.id(), first.revision(), Change::Pause).await?;
    for revision in [0, 1, 3, u64::MAX >> 1].map(Revision::new) {
        match store.update(&first.id(), revision, Change::Revoke { at: at(1) }).await {
            Err(UpdateError::Conflict) => {}
            other => return broken(format!("{other:?} instead of `UpdateError::Conflict` for {revision:?}")),
        }
        same_record("found", &find(store, first.id()).await?, &paused)?;
    }
    let resumed = store.update(&first.id(), paused.revision(), Change::Resume).await?;
    same("the revision after two changes", &resumed.revision(), &Revision::new(3))?;
    same_record("another token", &find(store, untouched.id()).await?, &untouched)
}

pub(super) async fn missing(store: Store<'_>) -> Verdict {
    insert(store, &[record(1)?]).await?;
    match store.update(&id(2)?, Revision::FIRST, Change::Pause).await {
        Err(UpdateError::Missing) => {}
        other => return broken(format!("{other:?} instead of `UpdateError::Missing`")),
    }
    same("find", &store.find(&id(2)?).await?, &None)?;
    same("listed", &list(store, &TokenFilter::all()).await?.len(), &1)
}

pub(super) async fn widened(store: Store<'_>) -> Verdict {
    let narrow = record(1)?.with_scope(Scope::ReadOnly);
    insert(store, [&narrow]).await?;
    rejects(store, &narrow, Change::Scope(Scope::ReadWrite), ChangeError::Widens).await
}

pub(super) async fn revoked_for_good(store: Store<'_>) -> Verdict {
    let first = full(1)?;
    insert(store, [&first]).await?;
    let revoked = store.update(&first.id(), first.revision(), Change::Revoke { at: at(1) }).await?;
    same("revoked at", &revoked.revoked_at(), &Some(at(1)))?;
    for change in kinds()? {
        rejects(store, &revoked, change, ChangeError::Revoked).await?;
    }
    Ok(())
}

async fn rejects(store: Store<'_>, record: &TokenRecord, change: Change, why: ChangeError) -> Verdict {
    let what = format!("{change:?}");
    match store.update(&record.id(), record.revision(), change).await {
        Err(UpdateError::Rejected(error)) if error == why => {}
        other => return broken(format!("{what}: {other:?} instead of `UpdateError::Rejected({why:?})`")),
    }
    same_record(&what, &find(store, record.id()).await?, record)
}
