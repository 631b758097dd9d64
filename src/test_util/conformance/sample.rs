//! Records to fill a store with, and what a store holds.

use super::Store;
use super::broken::{Verdict, broken, ensure};
use crate::clock::Timestamp;
use crate::id::{Label, OwnerId, TokenId};
use crate::scope::Scope;
use crate::secret::SecretHash;
use crate::store::{Cursor, TokenFilter};
use crate::token::{Attributes, CreatedBy, LastUsed, RetiringSecret, Revision, TokenRecord};

/// More pages than any listing here has.
const MAX_PAGES: usize = 10_000;

/// Some milliseconds after an instant that is no whole second.
pub(super) const fn at(millis: u64) -> Timestamp {
    Timestamp::from_unix_millis(1_760_000_000_123 + millis)
}

pub(super) fn id(number: usize) -> Verdict<TokenId> {
    Ok(format!("{number:016}").parse()?)
}

pub(super) fn hash(number: usize) -> Verdict<SecretHash> {
    Ok(SecretHash::parse(&format!("$tta$1a2b3c4d$sha256$v=1${number}"))?)
}

/// An active read-write token of alice.
pub(super) fn record(number: usize) -> Verdict<TokenRecord> {
    owned_by(number, "alice")
}

pub(super) fn owned_by(number: usize, owner: &str) -> Verdict<TokenRecord> {
    let (owner, label) = (OwnerId::new(owner)?, Label::new(format!("token {number}"))?);
    Ok(TokenRecord::new(id(number)?, owner, label, Scope::ReadWrite, hash(number)?, at(0)))
}

/// A record with something in every field.
pub(super) fn full(number: usize) -> Verdict<TokenRecord> {
    let retiring = RetiringSecret::new(hash(number + 1)?, at(9)).with_successor_used(true);
    Ok(record(number)?
        .with_created_by(CreatedBy::System(Label::new("bootstrap")?))
        .with_made_on_behalf_right(true)
        .with_expiry(Some(at(90_000)))
        .with_revision(Revision::new(7))
        .with_retiring(Some(retiring))
        // Not in the order of the alphabet.
        .with_attributes(Attributes::new([("tenant", "acme"), ("plan", "gold"), ("region", "eu")])?)
        .with_last_used(Some(used(5)?)))
}

/// A use with something in every field.
pub(super) fn used(millis: u64) -> Verdict<LastUsed> {
    Ok(LastUsed::new(at(millis))
        .with_client_address(Some("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff".parse()?))
        .with_user_agent(Some(format!("agent/{millis}")))
        .with_last_write(Some(at(millis / 2))))
}

pub(super) async fn insert<'a>(store: Store<'_>, records: impl IntoIterator<Item = &'a TokenRecord>) -> Verdict {
    for record in records {
        store.insert(record.clone()).await?;
    }
    Ok(())
}

pub(super) async fn find(store: Store<'_>, id: TokenId) -> Verdict<TokenRecord> {
    match store.find(&id).await? {
        Some(record) => Ok(record),
        None => broken(format!("{id} is not found")),
    }
}

/// All pages of a listing, each judged: not too long, no record twice, an end.
pub(super) async fn list(store: Store<'_>, filter: &TokenFilter) -> Verdict<Vec<TokenRecord>> {
    let mut listing = Listing::new(filter);
    while listing.next(store).await?.is_some() {}
    Ok(listing.seen)
}

/// A listing, a page at a time.
pub(super) struct Listing<'a> {
    filter: &'a TokenFilter,
    cursor: Option<Cursor>,
    pages: usize,
    pub(super) seen: Vec<TokenRecord>,
}

impl<'a> Listing<'a> {
    pub(super) const fn new(filter: &'a TokenFilter) -> Self {
        Self { filter, cursor: None, pages: 0, seen: Vec::new() }
    }

    /// The next page, `None` after the last.
    pub(super) async fn next(&mut self, store: Store<'_>) -> Verdict<Option<Vec<TokenRecord>>> {
        if self.pages > 0 && self.cursor.is_none() {
            return Ok(None);
        }
        self.pages += 1;
        ensure(self.pages < MAX_PAGES, || format!("{:?} does not end", self.filter))?;
        let page = store.list(self.filter, self.cursor.as_ref()).await?;
        let (length, most) = (page.records.len(), self.filter.page_size);
        ensure(length <= most, || format!("a page of {most} has {length} records"))?;
        for record in &page.records {
            let twice = self.seen.iter().any(|seen| seen.id() == record.id());
            ensure(!twice, || format!("{} is listed twice by {:?}", record.id(), self.filter))?;
            self.seen.push(record.clone());
        }
        self.cursor = page.next;
        Ok(Some(page.records))
    }
}

pub(super) fn ids<'a>(records: impl IntoIterator<Item = &'a TokenRecord>) -> Vec<TokenId> {
    records.into_iter().map(TokenRecord::id).collect()
}

pub(super) fn sorted<'a>(records: impl IntoIterator<Item = &'a TokenRecord>) -> Vec<TokenId> {
    let mut ids = ids(records);
    ids.sort_unstable();
    ids
}
