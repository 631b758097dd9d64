//! Listings: complete, without doubles, whatever happens meanwhile.

use super::Store;
use super::broken::{Verdict, broken, same, same_record};
use super::sample::{Listing, at, find, hash, id, ids, insert, list, owned_by, record, sorted, used};
use crate::id::{Label, OwnerId};
use crate::scope::Scope;
use crate::store::{Change, Cursor, TokenFilter};
use crate::token::{CreatedBy, LastUsed, TokenRecord, TokenState};

const POPULATION: usize = 48;

/// Records that differ in everything a filter looks at, inserted in another order than that of their ids.
fn population() -> Verdict<Vec<TokenRecord>> {
    (0..POPULATION).map(|number| member(number * 5 % POPULATION)).collect()
}

fn member(number: usize) -> Verdict<TokenRecord> {
    let owner = OwnerId::new(format!("owner {}", number % 3))?;
    let scope = [Scope::ReadOnly, Scope::ReadWrite].into_iter().cycle().nth(number).unwrap_or(Scope::ReadOnly);
    let state = [TokenState::Active, TokenState::Paused, TokenState::Revoked].into_iter().cycle().nth(number / 2);
    let creator = match number % 4 {
        0 => CreatedBy::User(owner.clone()),
        1 => CreatedBy::User(OwnerId::new("creator")?),
        2 => CreatedBy::Token(id(1)?),
        _ => CreatedBy::System(Label::new("creator")?),
    };
    let last_used = match number % 5 {
        0 => None,
        1 => Some(used(number as u64)?),
        _ => Some(LastUsed::new(at(number as u64 * 20))),
    };
    let expiry = (number % 3 > 0).then(|| at(number as u64 * 1_000));
    Ok(TokenRecord::new(id(number)?, owner, Label::new("l")?, scope, hash(number)?, at(number as u64 * 10))
        .with_created_by(creator)
        .with_state(state.unwrap_or(TokenState::Active))
        .with_expiry(expiry)
        .with_last_used(last_used))
}

/// Each filter alone, at the instants of some records; some together; one that lets nothing through.
fn various() -> Verdict<Vec<TokenFilter>> {
    let (all, owner) = (TokenFilter::all, OwnerId::new("owner 1")?);
    Ok(vec![
        all(),
        all().owner(owner.clone()),
        all().owner(OwnerId::new("nobody")?),
        all().scope(Scope::ReadOnly),
        all().scope(Scope::ReadWrite),
        all().state(TokenState::Active),
        all().state(TokenState::Paused),
        all().state(TokenState::Revoked),
        all().created_by(CreatedBy::User(OwnerId::new("creator")?)),
        all().created_by(CreatedBy::System(Label::new("creator")?)),
        all().created_by(CreatedBy::Token(id(1)?)),
        all().created_before(at(200)),
        all().expires_before(at(20_000)),
        all().unused_since(at(400)),
        all().never_wrote(),
        all().live_at(at(20_000)),
        all().owner(owner.clone()).scope(Scope::ReadOnly).state(TokenState::Active),
        all().owner(owner).created_before(at(400)).expires_before(at(40_000)).unused_since(at(700)).never_wrote(),
    ])
}

pub(super) async fn empty(store: Store<'_>) -> Verdict {
    for filter in various()? {
        same(&format!("{filter:?}"), &list(store, &filter).await?, &vec![])?;
    }
    Ok(())
}

pub(super) async fn filters(store: Store<'_>) -> Verdict {
    let population = population()?;
    insert(store, &population).await?;
    for filter in various()? {
        let matching = sorted(population.iter().filter(|record| filter.matches(record)));
        for page_size in [3, matching.len().max(1), POPULATION - 1, POPULATION, POPULATION + 1, usize::MAX] {
            let filter = filter.clone().page_size(page_size);
            let listed = list(store, &filter).await?;
            same(&format!("{filter:?}"), &sorted(&listed), &matching)?;
            for record in &listed {
                same_record("listed", record, &find(store, record.id()).await?)?;
            }
        }
    }
    Ok(())
}

pub(super) async fn order(store: Store<'_>) -> Verdict {
    insert(store, &population()?).await?;
    let once = list(store, &TokenFilter::all()).await?;
    for page_size in [1, 7, POPULATION] {
        let again = list(store, &TokenFilter::all().page_size(page_size)).await?;
        same(&format!("the order in pages of {page_size}"), &ids(&again), &ids(&once))?;
    }
    Ok(())
}

pub(super) async fn while_inserting(store: Store<'_>) -> Verdict {
    let population = population()?;
    insert(store, &population).await?;
    let filter = TokenFilter::all().page_size(5);
    let (mut listing, mut fresh) = (Listing::new(&filter), 0..POPULATION);
    while listing.next(store).await?.is_some() {
        // Before, among and after those that are there, in whatever order they stand.
        for number in fresh.by_ref().take(3) {
            let id = ["0", "5", "z"].into_iter().cycle().nth(number).unwrap_or("0").repeat(14);
            let (plain, id) = (record(number)?, format!("{id}{number:02}").parse()?);
            let (owner, label) = (plain.owner().clone(), plain.label().clone());
            let created = at(number as u64 * 10 + 1);
            let record = TokenRecord::new(id, owner, label, Scope::ReadOnly, hash(number)?, created);
            match store.find(&id).await? {
                Some(_) => {}
                None => store.insert(record).await?,
            }
        }
    }
    let seen = |record: &&TokenRecord| listing.seen.iter().any(|seen| seen.id() == record.id());
    same("not listed", &ids(population.iter().filter(|record| !seen(record))), &vec![])
}

pub(super) async fn while_changing(store: Store<'_>) -> Verdict {
    let mut records = Vec::new();
    for number in 0..20 {
        records.push(record(number)?);
    }
    insert(store, &records).await?;
    let filter = TokenFilter::all().state(TokenState::Active).page_size(6);
    let mut listing = Listing::new(&filter);
    while let Some(page) = listing.next(store).await? {
        for record in page {
            store.update(&record.id(), record.revision(), Change::Revoke { at: at(1) }).await?;
        }
    }
    same("listed", &sorted(&listing.seen), &sorted(&records))?;
    same("listed afterwards", &list(store, &filter).await?.len(), &0)
}

pub(super) async fn while_pruning(store: Store<'_>) -> Verdict {
    let mut records = Vec::new();
    for number in 0..20 {
        records.push(owned_by(number, "alice")?);
    }
    insert(store, &records).await?;
    let filter = TokenFilter::all().page_size(6);
    let mut listing = Listing::new(&filter);
    while let Some(page) = listing.next(store).await? {
        for record in page {
            store.update(&record.id(), record.revision(), Change::Expiry(Some(at(0)))).await?;
        }
        // A store may be unable to.
        let _ = store.prune(at(1)).await;
    }
    same("listed", &sorted(&listing.seen), &sorted(&records))
}

pub(super) async fn unknown_cursor(store: Store<'_>) -> Verdict {
    insert(store, &population()?).await?;
    for text in ["no cursor of any store \u{1f980}", "", "'", "-1"] {
        if let Ok(page) = store.list(&TokenFilter::all(), Some(&Cursor::new(text))).await {
            return broken(format!("the cursor {text:?} is answered with {} records", page.records.len()));
        }
    }
    Ok(())
}
