//! The gate under test, everything around it, and the hand that moves it all.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex};

use futures_util::FutureExt;
use http::Method;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use tower_token_auth::test_util::{CheapHasher, ManualClock, RecordingSink, ScriptedStore};
use tower_token_auth::{
    CacheConfig, Change, Clock, Label, LookupLimits, OwnerId, PlaintextToken, Prefix, RetiringSecret, Scope, Scratch,
    SecretHash, SecretHasher, StoreError, TokenAuthLayer, TokenId, TokenRecord, TokenRegistry, TokenStore,
};

use super::law::{End, LookUp, Now, Tick, Trial};
use super::model::{Does, Model, Sight};
use super::step::{Ask, Case, Edit, Secret, Setup, Step, TOKENS};
use crate::cache_rules::bench::{Bench, forge, status_of};

/// All tokens, the same in every history.
pub(super) static CAST: LazyLock<Cast> = LazyLock::new(Cast::gather);

pub(super) struct Cast {
    records: [TokenRecord; TOKENS],
    texts: [[String; 4]; TOKENS],
    pub(super) hashes: [[SecretHash; 4]; TOKENS],
}

impl Cast {
    /// Fixed ids: whether two of them share a generation counter is no matter of luck.
    fn gather() -> Self {
        let ids = ["0000000000000001", "0000000000000002", "0000000000000003", "0000000000000004"];
        let ids: [TokenId; TOKENS] = ids.map(|id| id.parse().unwrap());
        let secrets = Secret::ALL.map(|_| PlaintextToken::generate(&Prefix::default()).unwrap());
        let hash = |secret: &PlaintextToken| CheapHasher::new().hash(secret.secret(), &mut Scratch::new()).unwrap();
        let hashes = [0, 1, 2, 3].map(|token: usize| {
            secrets.each_ref().map(|secret| match token % 2 {
                0 => hash(secret).with_precheck(&ids[token], secret.secret()),
                _ => hash(secret),
            })
        });
        let record = |token: usize| {
            let scope = [Scope::ReadOnly, Scope::ReadWrite][token % 2];
            let (owner, label) = (OwnerId::new(owner_of(token)).unwrap(), Label::new("token").unwrap());
            TokenRecord::new(ids[token], owner, label, scope, hashes[token][0].clone(), ManualClock::START)
        };
        let retiring =
            RetiringSecret::new(hashes[2][0].clone(), ManualClock::START + std::time::Duration::from_secs(20));
        let rotating = record(2).with_secret(hashes[2][1].clone()).with_retiring(Some(retiring));
        let texts = ids.each_ref().map(|id| secrets.each_ref().map(|secret| forge(id, secret)));
        Self { records: [record(0), record(1), rotating, record(3)], texts, hashes }
    }

    /// Whether this token's hashes carry a precheck.
    pub(super) fn prechecked(&self, token: usize) -> bool {
        self.hashes[token][0].to_text().starts_with("$tta$")
    }
}

fn owner_of(token: usize) -> &'static str {
    if token < 2 { "alice" } else { "bob" }
}

/// What became of a request in one go, and what that cost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// `None` while it waits.
    pub(super) outcome: Option<String>,
    pub(super) look_ups: usize,
    pub(super) hashes: usize,
}

/// A store that writes down what it is asked and what it answers.
#[derive(Clone)]
struct Witness {
    store: ScriptedStore,
    clock: ManualClock,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    ticks: Tick,
    panics: bool,
    look_ups: Vec<LookUp>,
}

impl Log {
    fn tick(&mut self) -> Tick {
        self.ticks += 1;
        self.ticks
    }
}

/// Ends an entry of the log when it is dropped, at the latest.
struct Watch<'a>(&'a Mutex<Log>, usize);

impl Watch<'_> {
    fn end(&self, end: End) {
        let mut log = self.0.lock().unwrap();
        let tick = log.tick();
        log.look_ups[self.1].end.get_or_insert((tick, end));
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.end(End::Nothing);
    }
}

impl TokenStore for Witness {
    async fn find(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        let (watch, panics) = {
            let mut log = self.log.lock().unwrap();
            let begun = log.tick();
            log.look_ups.push(LookUp { id: *id, begun, at: now(&self.clock), end: None });
            let watch = Watch(&self.log, log.look_ups.len() - 1);
            (watch, log.panics)
        };
        let find = self.store.find(id);
        if panics {
            // Without the panic hook, which would write thousands of lines.
            std::panic::resume_unwind(Box::new("the witness was told to panic"));
        }
        let answer = find.await?;
        if answer.as_ref().is_none_or(|record| record.id() == *id) {
            watch.end(End::Brought(Box::new(answer.clone())));
        }
        Ok(answer)
    }
}

fn now(clock: &ManualClock) -> Now {
    Now { wall: clock.wall(), monotonic: clock.monotonic() }
}

/// What the store was told last.
enum Mood {
    Works,
    Holds,
    Fails,
    Panics,
    Answers(Box<Option<TokenRecord>>),
}

struct Waiting {
    ask: Ask,
    began: Tick,
    response: Pin<Box<dyn Future<Output = u16>>>,
}

struct World {
    setup: Setup,
    bench: Bench,
    log: Arc<Mutex<Log>>,
    mood: Mood,
    /// Each token's records so far.
    past: [Vec<TokenRecord>; TOKENS],
    waiting: Vec<Waiting>,
    outdated: [Vec<Tick>; TOKENS],
    invalidated: [Tick; TOKENS],
    outcomes: Vec<String>,
}

/// Plays a history before the law, and before the model where the gate has room; answers with all outcomes there were.
///
/// Each gate draws anew which ids share a counter of invalidations. Two of the four tokens do in one gate of 170, and
/// then cost each other look-ups that the model knows nothing of. What is wrong for another reason is wrong in every
/// gate, so only that is.
pub(super) fn play(case: &Case) -> Result<Vec<String>, TestCaseError> {
    play_once(case).or_else(|_| play_once(case)).or_else(|_| play_once(case))
}

fn play_once(case: &Case) -> Result<Vec<String>, TestCaseError> {
    let mut world = World::new(case.setup);
    let mut model = (!case.setup.small).then(|| Model::new(case.setup));
    for step in &case.steps {
        world.take(*step, model.as_mut())?;
    }
    Ok(world.outcomes)
}

impl World {
    fn new(setup: Setup) -> Self {
        let (store, clock) = (ScriptedStore::default(), ManualClock::default());
        let (hasher, sink, log) = (CheapHasher::new(), RecordingSink::new(), Arc::<Mutex<Log>>::default());
        let front = Witness { store: store.clone(), clock: clock.clone(), log: Arc::clone(&log) };
        let cache = CacheConfig::default().ttl(setup.ttl).negative_ttl(setup.negative_ttl).stale_if_error(setup.stale);
        let cache = if setup.small { cache.proved(1).unproved(1).negatives(1) } else { cache };
        let lookup = LookupLimits::default().timeout(setup.timeout);
        let lookup = if setup.tight { lookup.in_flight(1).refreshes(1).waiting(0) } else { lookup };
        let builder = TokenAuthLayer::builder(front).clock(clock.clone()).hasher(hasher.clone().inline());
        let auth = builder.audit(sink.clone()).cache(cache).lookup(lookup).build().unwrap();
        let bench = Bench { store, clock, hasher, sink, auth };
        let (past, waiting, outdated, outcomes) = Default::default();
        let mut world =
            Self { setup, bench, log, mood: Mood::Works, past, waiting, outdated, invalidated: [0; TOKENS], outcomes };
        (0..TOKENS - 1).for_each(|token| world.create(token));
        world
    }

    fn take(&mut self, step: Step, model: Option<&mut Model>) -> Result<(), TestCaseError> {
        match step {
            Step::Ask(ask) => return self.ask(ask, model),
            Step::Advance(span) => {
                self.bench.clock.advance(span);
                return self.poll_all(model.map(|model| model.tick(self)));
            }
            Step::Release => {
                self.tell_store(Step::StoreWorks);
                self.bench.store.release();
                return self.poll_all(model.map(|model| model.release(self)));
            }
            Step::Vanish(at) if !self.waiting.is_empty() => {
                let at = at % self.waiting.len();
                drop(self.waiting.remove(at));
                let outcomes = self.bench.outcomes();
                self.bench.sink.take();
                prop_assert_eq!(outcomes, ["abandoned"]);
                if let Some(model) = model {
                    model.vanish(at);
                }
            }
            Step::Vanish(_) => {}
            Step::WallForward(span) => self.bench.clock.step_wall(self.now().wall + span),
            Step::WallBack(span) => {
                let back = self.now().wall.unix_millis() - u64::try_from(span.as_millis()).unwrap();
                self.bench.clock.step_wall(tower_token_auth::Timestamp::from_unix_millis(back));
            }
            Step::Invalidate(_) | Step::InvalidateOwner(_) | Step::InvalidateAll => self.invalidate(step, model),
            Step::Edit(token, edit) => self.edit(token, edit),
            Step::Create => self.create(TOKENS - 1),
            Step::Bar(token) => done(self.bench.store.bar_owner(&OwnerId::new(owner_of(token)).unwrap())).unwrap(),
            Step::Lift(token) => done(self.bench.store.lift_owner(&OwnerId::new(owner_of(token)).unwrap())).unwrap(),
            _ => self.tell_store(step),
        }
        Ok(())
    }

    fn tell_store(&mut self, step: Step) {
        let store = &self.bench.store;
        self.mood = match step {
            Step::StoreFails => Mood::Fails,
            Step::StorePanics => Mood::Panics,
            Step::StoreHolds => Mood::Holds,
            Step::StoreKnowsNothing => Mood::Answers(Box::default()),
            Step::StoreLags(token, back) => {
                let past = &self.past[token];
                Mood::Answers(Box::new(past.iter().rev().nth(back).or(past.first()).cloned()))
            }
            _ => Mood::Works,
        };
        self.log.lock().unwrap().panics = false;
        match &self.mood {
            Mood::Works => store.work(),
            Mood::Fails => store.fail(),
            Mood::Panics => self.log.lock().unwrap().panics = true,
            Mood::Holds => store.hold(),
            Mood::Answers(answer) => store.answer(*answer.clone()),
        }
    }

    fn create(&mut self, token: usize) {
        if done(self.bench.store.insert(CAST.records[token].clone())).is_ok() {
            self.note(token);
        }
    }

    fn edit(&mut self, token: usize, edit: Edit) {
        let Some(record) = self.stored(token) else { return };
        let wall = self.now().wall;
        let change = match edit {
            Edit::Revoke => Change::Revoke { at: wall },
            Edit::Pause => Change::Pause,
            Edit::Resume => Change::Resume,
            Edit::NarrowScope => Change::Scope(Scope::ReadOnly),
            Edit::ExpireIn(span) => Change::Expiry(Some(wall + span)),
            Edit::Rotate(to, keep) => Change::Secrets {
                secret: CAST.hashes[token][to as usize].clone(),
                retiring: keep.map(|span| RetiringSecret::new(record.secret().clone(), wall + span)),
            },
        };
        // A revoked token takes no change.
        if done(self.bench.store.update(&record.id(), record.revision(), change)).is_ok() {
            self.note(token);
        }
    }

    fn note(&mut self, token: usize) {
        let record = self.stored(token);
        self.past[token].extend(record);
    }

    fn stored(&self, token: usize) -> Option<TokenRecord> {
        done(self.bench.store.inner().find(&id_of(token))).unwrap()
    }

    fn invalidate(&mut self, step: Step, model: Option<&mut Model>) {
        let handle = self.bench.auth.handle();
        let tick = self.log.lock().unwrap().tick();
        let mut outdate = |token: usize, distrusted: bool| {
            self.outdated[token].push(tick);
            if distrusted {
                self.invalidated[token] = tick;
            }
        };
        match step {
            Step::Invalidate(token) => {
                handle.invalidate(&id_of(token));
                if let Some(model) = model {
                    model.invalidate(token);
                }
                outdate(token, true);
            }
            Step::InvalidateOwner(whose) => {
                let owner = owner_of(whose);
                handle.invalidate_owner(&OwnerId::new(owner).unwrap());
                if let Some(model) = model {
                    model.invalidate_owner(owner);
                }
                (0..TOKENS).for_each(|token| outdate(token, owner_of(token) == owner));
            }
            _ => {
                handle.invalidate_all();
                if let Some(model) = model {
                    model.invalidate_all();
                }
                (0..TOKENS).for_each(|token| outdate(token, true));
            }
        }
    }

    fn ask(&mut self, ask: Ask, model: Option<&mut Model>) -> Result<(), TestCaseError> {
        let foretold = model.map(|model| model.ask(ask, self));
        let began = self.log.lock().unwrap().tick();
        let auth = self.bench.auth.clone();
        let method = if ask.write { Method::POST } else { Method::GET };
        let response = async move { status_of(&auth, method, &CAST.texts[ask.token][ask.secret as usize]).await };
        let waiting = Waiting { ask, began, response: Box::pin(response) };
        let left = self.poll(waiting, foretold.as_ref())?;
        self.waiting.extend(left);
        Ok(())
    }

    fn poll_all(&mut self, foretold: Option<Vec<Told>>) -> Result<(), TestCaseError> {
        for (at, waiting) in std::mem::take(&mut self.waiting).into_iter().enumerate() {
            let left = self.poll(waiting, foretold.as_ref().map(|foretold| &foretold[at]))?;
            self.waiting.extend(left);
        }
        Ok(())
    }

    /// Polls a request once; gives it back where it waits on.
    fn poll(&mut self, mut waiting: Waiting, foretold: Option<&Told>) -> Result<Option<Waiting>, TestCaseError> {
        let before = self.counts();
        let status = waiting.response.as_mut().now_or_never();
        let after = self.counts();
        let mut outcomes = self.bench.outcomes();
        self.bench.sink.take();
        prop_assert_eq!(outcomes.len(), usize::from(status.is_some()), "one decision is one event: {:?}", outcomes);
        let told = Told { outcome: outcomes.pop(), look_ups: after.0 - before.0, hashes: after.1 - before.1 };
        if let (Some(status), Some(outcome)) = (status, &told.outcome) {
            self.hold_against_the_law(&waiting, status, outcome)?;
            self.outcomes.push(outcome.clone());
        }
        if let Some(foretold) = foretold {
            prop_assert_eq!(&told, foretold, "{:?}: (what happened, what was foretold)", waiting.ask);
        }
        Ok(status.is_none().then_some(waiting))
    }

    /// Look-ups and verifications so far.
    fn counts(&self) -> (usize, usize) {
        (self.log.lock().unwrap().look_ups.len(), self.bench.hasher.verifications())
    }

    fn hold_against_the_law(&self, waiting: &Waiting, status: u16, outcome: &str) -> Result<(), TestCaseError> {
        let (log, ask) = (self.log.lock().unwrap(), waiting.ask);
        let mut look_ups: Vec<&LookUp> = log.look_ups.iter().filter(|look_up| look_up.id == id_of(ask.token)).collect();
        look_ups.sort_by_key(|look_up| look_up.end.as_ref().map(|(tick, _)| *tick));
        let trial = Trial {
            ask,
            outcome,
            status,
            began: waiting.began,
            now: self.now(),
            setup: self.setup,
            look_ups,
            outdated: &self.outdated[ask.token],
            invalidated: self.invalidated[ask.token],
        };
        trial.judge().map_err(TestCaseError::fail)
    }
}

impl Sight for World {
    fn now(&self) -> Now {
        now(&self.bench.clock)
    }

    fn does(&self, token: usize) -> Does {
        match &self.mood {
            Mood::Works => Does::Brings(self.stored(token)),
            Mood::Holds => Does::Holds(self.stored(token)),
            Mood::Fails => Does::Fails("unavailable store_failed"),
            Mood::Panics => Does::Fails("unavailable store_panicked"),
            Mood::Answers(answer) if answer.as_ref().as_ref().is_some_and(|record| record.id() != id_of(token)) => {
                Does::Fails("unavailable record_unusable")
            }
            Mood::Answers(answer) => Does::Brings(*answer.clone()),
        }
    }
}

fn id_of(token: usize) -> TokenId {
    CAST.records[token].id()
}

/// What a store in memory does, it does at once.
fn done<T>(step: impl Future<Output = T>) -> T {
    step.now_or_never().unwrap()
}
