//! Barred owners.

use super::Store;
use super::broken::{Verdict, same, same_record};
use super::sample::{find, full, insert, list, owned_by, record};
use crate::store::{Change, TokenFilter};
use crate::token::TokenRecord;

/// What the store says of the bar, in `find` and in `list`.
async fn same_bars(store: Store<'_>, records: &[TokenRecord], barred: &[bool]) -> Verdict {
    let listed = list(store, &TokenFilter::all()).await?;
    for (record, barred) in records.iter().zip(barred) {
        let expected = record.clone().with_owner_barred(*barred);
        same_record("found", &find(store, record.id()).await?, &expected)?;
        let listed = listed.iter().filter(|listed| listed.id() == record.id());
        same("listed as barred", &listed.map(TokenRecord::owner_barred).collect(), &vec![*barred])?;
    }
    Ok(())
}

pub(super) async fn barred(store: Store<'_>) -> Verdict {
    let records = [full(1)?, record(2)?, owned_by(3, "bob")?];
    insert(store, &records).await?;
    let [alices, _, bobs] = &records;
    let (alice, bob) = (alices.owner().clone(), bobs.owner().clone());
    same_bars(store, &records, &[false, false, false]).await?;
    store.bar_owner(&alice).await?;
    same_bars(store, &records, &[true, true, false]).await?;
    store.bar_owner(&bob).await?;
    store.lift_owner(&alice).await?;
    same_bars(store, &records, &[false, false, true]).await?;
    let answer = store.update(&bobs.id(), bobs.revision(), Change::Pause).await?;
    let paused = Change::Pause.apply(bobs.clone())?;
    same_record("update is answered with", &answer, &paused.clone().with_owner_barred(true))?;
    store.lift_owner(&bob).await?;
    same_bars(store, &[alices.clone(), paused], &[false, false]).await
}

pub(super) async fn twice(store: Store<'_>) -> Verdict {
    let records = [record(1)?];
    let alice = record(1)?.owner().clone();
    insert(store, &records).await?;
    store.lift_owner(&alice).await?;
    same_bars(store, &records, &[false]).await?;
    store.bar_owner(&alice).await?;
    store.bar_owner(&alice).await?;
    same_bars(store, &records, &[true]).await?;
    store.lift_owner(&alice).await?;
    same_bars(store, &records, &[false]).await?;
    store.lift_owner(&alice).await?;
    store.bar_owner(&alice).await?;
    same_bars(store, &records, &[true]).await
}

pub(super) async fn barred_before(store: Store<'_>) -> Verdict {
    store.bar_owner(record(1)?.owner()).await?;
    // Whether an owner is barred is the store's to say, not the record's.
    let records = [record(1)?, owned_by(2, "bob")?.with_owner_barred(true)];
    insert(store, &records).await?;
    same_bars(store, &records, &[true, false]).await
}

pub(super) async fn byte_by_byte(store: Store<'_>) -> Verdict {
    let names = ["alice", "Alice", "alice ", " alice", "al\u{ed}ce", "ali\u{301}ce", "alicE", "alic_", "alic%"];
    let mut records = Vec::new();
    for (number, name) in names.into_iter().enumerate() {
        records.push(owned_by(number, name)?);
    }
    insert(store, &records).await?;
    for (number, record) in records.iter().enumerate() {
        let listed = list(store, &TokenFilter::all().owner(record.owner().clone())).await?;
        same("tokens of one owner", &listed, &vec![record.clone()])?;
        store.bar_owner(record.owner()).await?;
        same_bars(store, &records, &(0..records.len()).map(|other| other == number).collect::<Vec<_>>()).await?;
        store.lift_owner(record.owner()).await?;
    }
    Ok(())
}
