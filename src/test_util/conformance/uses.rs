//! Last uses.

use super::Store;
use super::broken::{Verdict, same, same_record};
use super::sample::{at, find, full, id, insert, list, record, used};
use crate::store::{Change, TokenFilter};
use crate::token::LastUsed;

/// More than a statement with a parameter per value takes in any database.
const MANY: usize = 20_000;

pub(super) async fn noted(store: Store<'_>) -> Verdict {
    let records = [full(1)?, record(2)?, record(3)?];
    insert(store, &records).await?;
    let [first, second, untouched] = &records;
    store.touch(&[]).await?;
    store.touch(&[(first.id(), used(50)?), (second.id(), used(60)?)]).await?;
    let first = first.clone().with_last_used(Some(used(50)?));
    let second = second.clone().with_last_used(Some(used(60)?));
    for expected in [&first, &second, untouched] {
        same_record("found", &find(store, expected.id()).await?, expected)?;
    }
    for listed in list(store, &TokenFilter::all()).await? {
        same_record("listed", &listed, &find(store, listed.id()).await?)?;
    }
    let revoke = Change::Revoke { at: at(70) };
    let revoked = store.update(&second.id(), second.revision(), revoke.clone()).await?;
    same_record("changed after a use", &revoked, &revoke.apply(second)?)?;
    store.touch(&[(revoked.id(), used(80)?)]).await?;
    let expected = revoked.with_last_used(Some(used(80)?));
    same_record("a use of a revoked token", &find(store, expected.id()).await?, &expected)
}

fn some_uses() -> Verdict<[LastUsed; 4]> {
    let bare = LastUsed::new(at(200));
    let wrote_late = LastUsed::new(at(150)).with_last_write(Some(at(149))).with_user_agent(Some("late".to_owned()));
    // At the same instant as another: whoever comes later stands.
    let tie = LastUsed::new(at(200)).with_client_address(Some("192.0.2.7".parse()?));
    Ok([used(100)?, bare, wrote_late, tie])
}

pub(super) async fn merged(store: Store<'_>) -> Verdict {
    let uses = some_uses()?;
    for (number, order) in orders().into_iter().enumerate() {
        let (apart, together) = (record(number * 2)?, record(number * 2 + 1)?);
        insert(store, [&apart, &together]).await?;
        let in_order: Vec<_> = order.into_iter().filter_map(|at| uses.get(at).cloned()).collect();
        let mut expected: Option<LastUsed> = None;
        for used in &in_order {
            store.touch(&[(apart.id(), used.clone())]).await?;
            expected = Some(expected.map_or_else(|| used.clone(), |known| known.merged(used)));
            let found = find(store, apart.id()).await?;
            same(&format!("after uses {order:?}, one at a time"), &found.last_used(), &expected.as_ref())?;
        }
        store.touch(&in_order.iter().map(|used| (together.id(), used.clone())).collect::<Vec<_>>()).await?;
        let found = find(store, together.id()).await?;
        same(&format!("after uses {order:?}, in one batch"), &found.last_used(), &expected.as_ref())?;
    }
    Ok(())
}

/// All 24 orders of four.
fn orders() -> Vec<[usize; 4]> {
    let digits = |number: usize| [number / 64 % 4, number / 16 % 4, number / 4 % 4, number % 4];
    let differ = |order: &[usize; 4]| (0..4).all(|digit| order.contains(&digit));
    (0..256).map(digits).filter(differ).collect()
}

pub(super) async fn unknown(store: Store<'_>) -> Verdict {
    let known = [record(0)?, record(MANY / 2)?, record(MANY - 1)?];
    insert(store, &known).await?;
    let mut batch = Vec::new();
    for number in 0..MANY {
        batch.push((id(number)?, used(number as u64)?));
    }
    store.touch(&batch).await?;
    for (record, number) in known.into_iter().zip([0, MANY / 2, MANY - 1]) {
        let expected = record.with_last_used(Some(used(number as u64)?));
        same_record("found", &find(store, expected.id()).await?, &expected)?;
    }
    same("an unknown token", &store.find(&id(1)?).await?, &None)?;
    same("listed", &list(store, &TokenFilter::all()).await?.len(), &3)
}
