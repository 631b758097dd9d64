//! What is inserted is found, exactly; what is dead can be forgotten.

use super::Store;
use super::broken::{Verdict, broken, ensure, same, same_record};
use super::sample::{at, find, full, hash, id, insert, list, record, sorted, used};
use crate::clock::Timestamp;
use crate::id::{Label, OwnerId, TokenId};
use crate::scope::Scope;
use crate::secret::SecretHash;
use crate::store::{InsertError, TokenFilter};
use crate::token::{Attributes, CreatedBy, LastUsed, RetiringSecret, Revision, TokenRecord, TokenState};

pub(super) async fn unknown_is_none(store: Store<'_>) -> Verdict {
    same("find in an empty store", &store.find(&id(1)?).await?, &None)?;
    insert(store, &[record(2)?]).await?;
    same("find of another id", &store.find(&id(1)?).await?, &None)
}

async fn round_trip(store: Store<'_>, records: &[TokenRecord]) -> Verdict {
    insert(store, records).await?;
    for record in records {
        same_record("found", &find(store, record.id()).await?, record)?;
    }
    let listed = list(store, &TokenFilter::all()).await?;
    same("listed", &sorted(&listed), &sorted(records))?;
    for found in &listed {
        let inserted = records.iter().find(|record| record.id() == found.id());
        inserted.map_or(Ok(()), |record| same_record("listed", found, record))?;
    }
    Ok(())
}

pub(super) async fn every_field(store: Store<'_>) -> Verdict {
    round_trip(store, &[record(1)?, full(2)?]).await
}

pub(super) async fn every_value(store: Store<'_>) -> Verdict {
    let records = [
        record(1)?.with_created_by(CreatedBy::User(OwnerId::new("bob:with:colons")?)),
        record(2)?.with_created_by(CreatedBy::Token(id(1)?)),
        record(3)?.with_created_by(CreatedBy::System(Label::new("bootstrap")?)),
        record(4)?.with_scope(Scope::ReadOnly).with_state(TokenState::Paused),
        revoked(5)?,
        revoked(6)?.with_revoked_at(Some(at(1))),
        record(7)?.with_retiring(Some(RetiringSecret::new(hash(8)?, at(1)))),
        // More than a double holds exactly; all that a signed 64-bit column holds.
        record(8)?.with_revision(Revision::new((1 << 53) + 1)),
        record(9)?.with_revision(Revision::new(i64::MAX.unsigned_abs() - 1)),
        record(10)?.with_last_used(Some(LastUsed::new(at(1)))),
        record(11)?.with_last_used(Some(used(1)?.with_client_address(Some("192.0.2.1".parse()?)))),
        // An address that has two readings keeps the one it had.
        record(12)?.with_last_used(Some(used(1)?.with_client_address(Some("::ffff:192.0.2.1".parse()?)))),
    ];
    round_trip(store, &records).await
}

const HOSTILE: [&str; 16] = [
    "'; DROP TABLE tokens; --",
    "\" ` $(id) ${id} \\",
    "\\' \\\" \\\\ \\n \\u0000 \\x00",
    "%_*?[a-z]",
    "{tag}:{tag} %s {} {0}",
    "NULL",
    "null",
    "0",
    "-1",
    "1e999",
    "true",
    " spaces around ",
    "a:b,c|d;e=f&g\u{a0}#",
    "[{\"json\":null}]",
    "Gru\u{df} Gr\u{fc}n e\u{301} \u{e9} \u{fb03} \u{130}i",
    "\u{1f980} \u{10ffff} \u{fffd} \u{65e5}\u{672c}",
];

pub(super) async fn any_text(store: Store<'_>) -> Verdict {
    let mut records = vec![longest(100)?];
    for (number, text) in HOSTILE.into_iter().enumerate() {
        let (owner, label) = (OwnerId::new(text)?, Label::new(text)?);
        let record = TokenRecord::new(id(number)?, owner, label.clone(), Scope::ReadOnly, hash(number)?, at(0))
            .with_created_by(CreatedBy::System(label))
            .with_attributes(Attributes::new([(text, text), ("other", text)])?)
            .with_last_used(Some(used(1)?.with_user_agent(Some(text.to_owned()))));
        records.push(record);
    }
    records.push(record(101)?.with_last_used(Some(used(1)?.with_user_agent(Some(String::new())))));
    round_trip(store, &records).await
}

/// As long as everything may be, in characters of four bytes, which some columns count as one and some as two.
fn longest(number: usize) -> Verdict<TokenRecord> {
    let crabs = |bytes: usize| "\u{1f980}".repeat(bytes / 4);
    let owner = OwnerId::new(crabs(OwnerId::MAX_LEN))?;
    let attributes = (0..Attributes::MAX_COUNT).map(|count| {
        let name = format!("{count:04}{}", crabs(Attributes::MAX_NAME_LEN - 4));
        (name, crabs(Attributes::MAX_VALUE_LEN))
    });
    let hash = |digit: &str| SecretHash::parse(&format!("$a${}", digit.repeat(SecretHash::MAX_LEN - 3)));
    Ok(TokenRecord::new(
        id(number)?,
        owner.clone(),
        Label::new(crabs(Label::MAX_LEN))?,
        Scope::ReadOnly,
        hash("1")?,
        at(0),
    )
    .with_created_by(CreatedBy::User(owner))
    .with_retiring(Some(RetiringSecret::new(hash("2")?, at(1))))
    .with_attributes(Attributes::new(attributes)?)
    .with_last_used(Some(used(1)?.with_user_agent(Some(crabs(256))))))
}

pub(super) async fn clock_edges(store: Store<'_>) -> Verdict {
    let mut records = Vec::new();
    for (number, edge) in [0, 1, 999, Timestamp::MAX.unix_millis() - 1, u64::MAX].into_iter().enumerate() {
        let edge = Timestamp::from_unix_millis(edge);
        let plain = record(number)?;
        let (owner, label) = (plain.owner().clone(), plain.label().clone());
        let record = TokenRecord::new(plain.id(), owner, label, Scope::ReadOnly, hash(number)?, edge)
            .with_expiry(Some(edge))
            .with_state(TokenState::Revoked)
            .with_revoked_at(Some(edge))
            .with_retiring(Some(RetiringSecret::new(hash(number + 1)?, edge)))
            .with_last_used(Some(LastUsed::new(edge).with_last_write(Some(edge))));
        records.push(record);
    }
    round_trip(store, &records).await
}

pub(super) async fn taken(store: Store<'_>) -> Verdict {
    let (first, second) = (record(1)?, full(1)?);
    insert(store, [&first]).await?;
    for again in [second, first.clone()] {
        match store.insert(again).await {
            Err(InsertError::Taken) => {}
            other => return broken(format!("{other:?} instead of `InsertError::Taken`")),
        }
        same_record("found", &find(store, first.id()).await?, &first)?;
    }
    same("listed", &sorted(&list(store, &TokenFilter::all()).await?), &vec![first.id()])
}

pub(super) async fn letter_case(store: Store<'_>) -> Verdict {
    let mut records = Vec::new();
    for (number, id) in ["abcdefghijklmnop", "ABCDEFGHIJKLMNOP", "Abcdefghijklmnop"].into_iter().enumerate() {
        let (id, plain) = (id.parse::<TokenId>()?, record(number)?);
        let (owner, label) = (plain.owner().clone(), plain.label().clone());
        records.push(TokenRecord::new(id, owner, label, Scope::ReadOnly, hash(number)?, at(0)));
    }
    round_trip(store, &records).await?;
    same("find in another case", &store.find(&"aBCDEFGHIJKLMNOP".parse()?).await?, &None)
}

pub(super) async fn pruned(store: Store<'_>) -> Verdict {
    let dead = [
        record(1)?.with_expiry(Some(at(99))),
        revoked(2)?.with_revoked_at(Some(at(99))),
        full(3)?.with_expiry(Some(at(0))),
    ];
    let kept = [
        record(11)?,
        record(12)?.with_expiry(Some(at(100))),
        record(13)?.with_expiry(Some(at(101))),
        record(14)?.with_state(TokenState::Paused),
        revoked(15)?.with_revoked_at(Some(at(100))),
        revoked(16)?,
    ];
    insert(store, &dead).await?;
    insert(store, &kept).await?;
    let remaining = match store.prune(at(100)).await {
        Ok(count) => {
            same("pruned", &count, &(dead.len() as u64))?;
            same("pruned again", &store.prune(at(100)).await?, &0)?;
            kept.to_vec()
        }
        // A store may be unable to.
        Err(_) => [dead.as_slice(), kept.as_slice()].concat(),
    };
    same("listed", &sorted(&list(store, &TokenFilter::all()).await?), &sorted(&remaining))?;
    for record in dead.iter().chain(&kept) {
        let kept = remaining.contains(record);
        let found = store.find(&record.id()).await?;
        ensure(found.is_some() == kept, || format!("find of {}: {found:?}", record.id()))?;
    }
    Ok(())
}

fn revoked(number: usize) -> Verdict<TokenRecord> {
    Ok(record(number)?.with_state(TokenState::Revoked))
}
