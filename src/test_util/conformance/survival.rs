//! What is to be there after a disaster.

use super::Store;
use super::broken::{Verdict, same, same_record};
use super::sample::{at, find, full, insert, list, owned_by, record, sorted, used};
use crate::store::{Change, TokenFilter};
use crate::token::TokenRecord;

const MANY: usize = 100;

fn inserted() -> Verdict<Vec<TokenRecord>> {
    let mut records = vec![full(0)?, owned_by(1, "bob")?];
    for number in records.len()..MANY {
        records.push(record(number)?);
    }
    Ok(records)
}

fn revoke() -> Change {
    Change::Revoke { at: at(70) }
}

/// The records as they are to be found: every second one of alice's revoked, the first used, bob barred.
fn expected() -> Verdict<Vec<TokenRecord>> {
    let mut records = Vec::new();
    for (number, record) in inserted()?.into_iter().enumerate() {
        records.push(match number {
            0 => record.with_last_used(Some(used(60)?)),
            1 => record.with_owner_barred(true),
            _ if number % 2 == 0 => revoke().apply(record)?,
            _ => record,
        });
    }
    Ok(records)
}

pub(super) async fn fill(store: Store<'_>) -> Verdict {
    let records = inserted()?;
    insert(store, &records).await?;
    for (number, record) in records.iter().enumerate() {
        match number {
            0 => store.touch(&[(record.id(), used(60)?)]).await?,
            1 => store.bar_owner(record.owner()).await?,
            _ if number % 2 == 0 => drop(store.update(&record.id(), record.revision(), revoke()).await?),
            _ => {}
        }
    }
    Ok(())
}

pub(super) async fn is_whole(store: Store<'_>) -> Verdict {
    let expected = expected()?;
    for record in &expected {
        same_record("found", &find(store, record.id()).await?, record)?;
    }
    same("listed", &sorted(&list(store, &TokenFilter::all()).await?), &sorted(&expected))
}
