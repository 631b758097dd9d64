//! The suite that every store runs: the stores pass, and each rule of it is broken by some flawed store.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tower_token_auth::test_util::ScriptedStore;
use tower_token_auth::test_util::conformance::{self, ConformanceError};
use tower_token_auth::{
    AnyStore, Attributes, Change, Cursor, Durability, InsertError, Label, LastUsed, MemoryStore, OwnerId, Revision,
    StoreError, Timestamp, TokenFilter, TokenId, TokenPage, TokenRecord, TokenRegistry, TokenStore, UpdateError,
};

#[tokio::test]
async fn the_memory_store_conforms() {
    conformance::check(|| async { MemoryStore::new() }).await.unwrap();
}

#[tokio::test]
async fn a_shared_and_a_scripted_store_conform_as_the_store_within() {
    conformance::check(|| async { Arc::new(ScriptedStore::default()) }).await.unwrap();
}

#[tokio::test]
async fn a_store_of_any_type_conforms_as_the_store_within() {
    conformance::check(|| async { AnyStore::new(MemoryStore::new()) }).await.unwrap();
}

#[tokio::test]
async fn the_memory_store_can_prune_and_promises_nothing() {
    assert_eq!(MemoryStore::new().prune(Timestamp::MAX).await.unwrap(), 0);
    assert_eq!(MemoryStore::new().durability(), Durability::Volatile);
}

#[tokio::test]
async fn a_store_that_forgets_is_caught_by_a_disaster() {
    conformance::check_survival(MemoryStore::new(), |store| async { store }).await.unwrap();
    let forgotten = conformance::check_survival(MemoryStore::new(), |_| async { MemoryStore::new() }).await;
    assert_eq!(forgotten.unwrap_err().broken()[0].rule(), "what was acknowledged is there after the disaster");
}

#[tokio::test]
async fn a_sound_store_conforms_until_it_is_given_a_flaw() {
    check(Flaw::None).await.unwrap();
}

#[tokio::test]
async fn each_flaw_is_caught_by_its_rule_and_each_rule_catches_a_flaw() {
    let mut caught = BTreeSet::new();
    for (flaw, rule) in FLAWS {
        let error = check(*flaw).await.expect_err(rule);
        let broken: Vec<_> = error.broken().iter().map(|broken| broken.rule()).collect();
        assert!(broken.contains(rule), "{flaw:?} should break {rule:?}: {error}");
        caught.insert(*rule);
    }
    let uncaught: Vec<_> = conformance::rules().filter(|rule| !caught.contains(rule)).collect();
    assert_eq!(uncaught, Vec::<&str>::new(), "nothing shows that these rules can fail");
}

#[tokio::test]
async fn a_panic_breaks_its_rule_alone_and_the_report_is_readable() {
    let error = check(Flaw::UnknownPanics).await.unwrap_err();
    let report = error.to_string();
    assert!(report.starts_with("the store breaks "), "{report}");
    assert!(report.contains("a token nobody inserted is none, not an error: the store panicked"), "{report}");
    assert!(error.broken().len() < conformance::rules().count() / 2, "{report}");
    assert_eq!(format!("{error:?}"), report);
    let error = check(Flaw::Keeps(without_milliseconds)).await.unwrap_err();
    assert!(error.to_string().contains("created_at is 2025-10-09T08:53:20.000Z instead of"), "{error}");
}

async fn check(flaw: Flaw) -> Result<(), ConformanceError> {
    conformance::check(|| async move { Flawed { flaw, ..Flawed::default() } }).await
}

/// What is wrong with a store.
#[derive(Debug, Clone, Copy, Default)]
enum Flaw {
    #[default]
    None,
    /// Keeps something else than it was given.
    Keeps(fn(TokenRecord) -> TokenRecord),
    UnknownPanics,
    UnknownIsAnError,
    IgnoresLetterCase,
    TakenIsFine,
    ForgetsRevision,
    AsksBeforeItWrites,
    ConflictIsFine,
    MissingIsConflict,
    RejectedIsFine,
    DropsRetiring,
    FindsWhatItFoundBefore,
    UpdateForgetsUses,
    LastUseWins,
    UseIsAChange,
    UnknownUseIsAnError,
    ListsNoBars,
    CountsBars,
    BarsOnlyWhomItKnows,
    BarsInLowerCase,
    EmptyIsAnError,
    IgnoresFilter,
    OnePageOnly,
    PagesBackwards,
    CountsRecords,
    NeedsTheLastRecord,
    UnknownCursorIsTheStart,
    PrunesTooMuch,
}

const FLAWS: &[(Flaw, &str)] = &[
    (Flaw::UnknownIsAnError, "a token nobody inserted is none, not an error"),
    (Flaw::Keeps(without_right), "an inserted record is found and listed, every field as it was"),
    (Flaw::Keeps(in_other_order), "an inserted record is found and listed, every field as it was"),
    (Flaw::Keeps(with_double), "every creator, scope, state and revision is kept"),
    (Flaw::Keeps(cut_short), "any text is kept to the byte, up to its greatest length"),
    (Flaw::Keeps(without_milliseconds), "times are kept to the millisecond, from the first to the last"),
    (Flaw::TakenIsFine, "a taken id is refused, and its record left as it is"),
    (Flaw::IgnoresLetterCase, "ids that differ in the case of a letter are different ids"),
    (Flaw::DropsRetiring, "each kind of change is applied, answered with and visible to `find`"),
    (Flaw::ForgetsRevision, "a change of another revision is a conflict, and changes nothing"),
    (Flaw::MissingIsConflict, "a change of an unknown token is `Missing`, and makes none"),
    (Flaw::RejectedIsFine, "a scope is not widened"),
    (Flaw::RejectedIsFine, "a revoked token stays revoked"),
    (Flaw::TakenIsFine, "of several inserts of one id at once, one wins"),
    (Flaw::AsksBeforeItWrites, "of several changes of one revision at once, one wins"),
    (Flaw::ConflictIsFine, "no change is lost among writers who try again"),
    (Flaw::FindsWhatItFoundBefore, "a revocation is visible to `find` when it returns"),
    (Flaw::UpdateForgetsUses, "a change and a use at once are both kept"),
    (Flaw::LastUseWins, "the latest of several uses at once is kept"),
    (Flaw::ListsNoBars, "a bar holds for all tokens of the owner, in `find`, `list` and `update`"),
    (Flaw::CountsBars, "barring and lifting twice changes nothing"),
    (Flaw::BarsOnlyWhomItKnows, "a bar holds for tokens that are made later"),
    (Flaw::BarsInLowerCase, "owners are told apart byte by byte"),
    (Flaw::EmptyIsAnError, "an empty store lists nothing"),
    (Flaw::IgnoresFilter, "each filter lists what it lets through, whatever the page size"),
    (Flaw::OnePageOnly, "each filter lists what it lets through, whatever the page size"),
    (Flaw::PagesBackwards, "the order of a listing is stable"),
    (Flaw::CountsRecords, "a listing is complete while others insert"),
    (Flaw::CountsRecords, "a listing is complete while what it listed changes"),
    (Flaw::NeedsTheLastRecord, "a listing goes on when what it listed is pruned"),
    (Flaw::UnknownCursorIsTheStart, "an unknown cursor is an error"),
    (Flaw::UseIsAChange, "a use is noted, and changes nothing else"),
    (Flaw::LastUseWins, "uses are merged, in whatever order they come"),
    (Flaw::UnknownUseIsAnError, "uses of unknown tokens are skipped, in a batch of any size"),
    (Flaw::PrunesTooMuch, "prune forgets what was dead for good before, or is an error"),
];

fn without_right(record: TokenRecord) -> TokenRecord {
    record.with_made_on_behalf_right(false)
}

fn in_other_order(record: TokenRecord) -> TokenRecord {
    let mut pairs: Vec<_> = record.attributes().iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    pairs.sort();
    record.with_attributes(Attributes::new(pairs).unwrap())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss, reason = "the flaw")]
fn with_double(record: TokenRecord) -> TokenRecord {
    let revision = record.revision().number() as f64 as u64;
    record.with_revision(Revision::new(revision))
}

fn cut_short(record: TokenRecord) -> TokenRecord {
    let label: String = record.label().as_str().chars().take(30).collect();
    record.with_label(Label::new(label).unwrap())
}

fn without_milliseconds(record: TokenRecord) -> TokenRecord {
    let created_at = Timestamp::from_unix_seconds(record.created_at().unix_millis() / 1000);
    let (owner, label) = (record.owner().clone(), record.label().clone());
    TokenRecord::new(record.id(), owner, label, record.scope(), record.secret().clone(), created_at)
        .with_created_by(record.created_by().clone())
        .with_expiry(record.expires_at())
        .with_state(record.state())
        .with_revoked_at(record.revoked_at())
        .with_retiring(record.retiring().cloned())
        .with_revision(record.revision())
        .with_attributes(record.attributes().clone())
        .with_last_used(record.last_used().cloned())
        .with_made_on_behalf_right(record.made_on_behalf_right())
}

/// A sound store, and what is wrong with it.
#[derive(Default)]
struct Flawed {
    sound: MemoryStore,
    flaw: Flaw,
    found: Mutex<HashMap<TokenId, TokenRecord>>,
    uses: Mutex<HashMap<TokenId, LastUsed>>,
    bars: Mutex<HashMap<OwnerId, usize>>,
}

impl Flawed {
    fn seen(&self, record: TokenRecord) -> TokenRecord {
        match self.uses.lock().unwrap().get(&record.id()) {
            Some(used) => record.with_last_used(Some(used.clone())),
            None => record,
        }
    }

    async fn all(&self) -> Vec<TokenRecord> {
        let all = TokenFilter::all().page_size(usize::MAX);
        self.sound.list(&all, None).await.unwrap().records
    }

    /// A page by how many records were listed before.
    async fn counted(&self, filter: &TokenFilter, cursor: Option<&Cursor>) -> Result<TokenPage, StoreError> {
        let before: usize = cursor.map_or(Ok(0), |cursor| cursor.as_str().parse()).map_err(StoreError::new)?;
        let all = self.all().await;
        let mut matching: Vec<_> = all.into_iter().filter(|record| filter.matches(record)).skip(before).collect();
        let more = matching.len() > filter.page_size;
        matching.truncate(filter.page_size);
        let next = more.then(|| Cursor::new((before + filter.page_size).to_string()));
        Ok(TokenPage::new(matching, next))
    }
}

impl TokenStore for Flawed {
    async fn find(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        let found = self.sound.find(id).await?.map(|record| self.seen(record));
        match (self.flaw, found) {
            (Flaw::UnknownPanics, found) => Ok(Some(found.expect("a token"))),
            (Flaw::UnknownIsAnError, None) => Err(StoreError::new("no such row")),
            (Flaw::IgnoresLetterCase, None) => {
                let same = |record: &TokenRecord| record.id().as_str().eq_ignore_ascii_case(id.as_str());
                Ok(self.all().await.into_iter().find(same))
            }
            (Flaw::FindsWhatItFoundBefore, Some(record)) => {
                Ok(Some(self.found.lock().unwrap().entry(*id).or_insert(record).clone()))
            }
            (_, found) => Ok(found),
        }
    }
}

impl TokenRegistry for Flawed {
    async fn insert(&self, record: TokenRecord) -> Result<(), InsertError> {
        let kept = if let Flaw::Keeps(change) = self.flaw { change(record) } else { record };
        match self.sound.insert(kept).await {
            Err(InsertError::Taken) if matches!(self.flaw, Flaw::TakenIsFine) => Ok(()),
            outcome => outcome,
        }
    }

    async fn update(&self, id: &TokenId, expected: Revision, change: Change) -> Result<TokenRecord, UpdateError> {
        let before = self.sound.find(id).await?;
        // Writers of one task meet where a store awaits.
        tokio::task::yield_now().await;
        let Some(current) = self.sound.find(id).await? else {
            let missing = !matches!(self.flaw, Flaw::MissingIsConflict);
            return Err(if missing { UpdateError::Missing } else { UpdateError::Conflict });
        };
        let (mut expected, mut change) = (expected, change);
        match (self.flaw, &mut change) {
            (Flaw::ForgetsRevision, _) => expected = current.revision(),
            (Flaw::AsksBeforeItWrites, _) if current.revision() == expected => {
                tokio::task::yield_now().await;
                expected = self.sound.find(id).await?.unwrap().revision();
            }
            (Flaw::DropsRetiring, Change::Secrets { retiring, .. }) => *retiring = None,
            (Flaw::UpdateForgetsUses, _) => {
                let used = before.and_then(|record| record.last_used().cloned());
                self.uses.lock().unwrap().extend(used.map(|used| (*id, used)));
            }
            _ => {}
        }
        match (self.flaw, self.sound.update(id, expected, change).await) {
            (Flaw::ConflictIsFine, Err(UpdateError::Conflict)) => Ok(current),
            (Flaw::RejectedIsFine, Err(UpdateError::Rejected(_))) => Ok(current),
            (_, changed) => changed.map(|record| self.seen(record)),
        }
    }

    async fn list(&self, filter: &TokenFilter, cursor: Option<&Cursor>) -> Result<TokenPage, StoreError> {
        let everything = TokenFilter::all().page_size(filter.page_size);
        let unknown = cursor.is_some_and(|cursor| cursor.as_str().parse::<TokenId>().is_err());
        let (filter, cursor) = match self.flaw {
            Flaw::CountsRecords => return self.counted(filter, cursor).await,
            Flaw::IgnoresFilter => (&everything, cursor),
            Flaw::UnknownCursorIsTheStart if unknown => (filter, None),
            _ => (filter, cursor),
        };
        if let (Flaw::NeedsTheLastRecord, Some(cursor)) = (self.flaw, cursor) {
            let last = cursor.as_str().parse().map_err(StoreError::new)?;
            self.sound.find(&last).await?.ok_or_else(|| StoreError::new("no such row"))?;
        }
        let mut page = self.sound.list(filter, cursor).await?;
        page.records = page.records.into_iter().map(|record| self.seen(record)).collect();
        match self.flaw {
            Flaw::EmptyIsAnError if page.records.is_empty() => return Err(StoreError::new("no rows")),
            Flaw::ListsNoBars => page.records.iter_mut().for_each(|r| *r = r.clone().with_owner_barred(false)),
            Flaw::OnePageOnly => page.next = None,
            Flaw::PagesBackwards => page.records.reverse(),
            _ => {}
        }
        Ok(page)
    }

    async fn touch(&self, uses: &[(TokenId, LastUsed)]) -> Result<(), StoreError> {
        for (id, used) in uses {
            let known = self.sound.find(id).await?;
            match (self.flaw, known) {
                (Flaw::UnknownUseIsAnError, None) => return Err(StoreError::new("no such row")),
                (Flaw::LastUseWins, Some(_)) => {
                    drop(self.uses.lock().unwrap().insert(*id, used.clone()));
                }
                (Flaw::UseIsAChange, Some(record)) => {
                    let again = Change::Label(record.label().clone());
                    let _ = self.sound.update(id, record.revision(), again).await;
                }
                _ => {}
            }
        }
        self.sound.touch(uses).await
    }

    async fn bar_owner(&self, owner: &OwnerId) -> Result<(), StoreError> {
        let known = self.all().await.iter().any(|record| record.owner() == owner);
        *self.bars.lock().unwrap().entry(owner.clone()).or_default() += 1;
        match self.flaw {
            Flaw::BarsOnlyWhomItKnows if !known => Ok(()),
            Flaw::BarsInLowerCase => {
                let lower = OwnerId::new(owner.as_str().to_lowercase()).unwrap();
                self.sound.bar_owner(&lower).await
            }
            _ => self.sound.bar_owner(owner).await,
        }
    }

    async fn lift_owner(&self, owner: &OwnerId) -> Result<(), StoreError> {
        let left = self.bars.lock().unwrap().get_mut(owner).map_or(0, |bars| {
            *bars -= usize::from(*bars > 0);
            *bars
        });
        if matches!(self.flaw, Flaw::CountsBars) && left > 0 {
            return Ok(());
        }
        self.sound.lift_owner(owner).await
    }

    async fn prune(&self, time: Timestamp) -> Result<u64, StoreError> {
        let late = if matches!(self.flaw, Flaw::PrunesTooMuch) { Duration::from_millis(1) } else { Duration::ZERO };
        self.sound.prune(time + late).await
    }
}
