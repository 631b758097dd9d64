//! The rules of the cache once more: for one thread, without bounds, and slow.

use std::time::Duration;

use tower_token_auth::{Revision, SecretHash, TokenRecord};

use super::law::{Now, live_hashes, says};
use super::step::{Ask, Setup, TOKENS};
use super::world::{CAST, Told};

/// What the store does with a look-up that begins now.
pub(super) enum Does {
    Brings(Option<TokenRecord>),
    /// Reads this now, and answers when it is released.
    Holds(Option<TokenRecord>),
    Fails(&'static str),
}

/// What the model may know of the world.
pub(super) trait Sight {
    fn now(&self) -> Now;
    fn does(&self, token: usize) -> Does;
}

/// What is remembered of one id.
#[derive(Default)]
struct Memory {
    /// Of all records that were brought the one of the highest revision; of equal ones the last.
    record: Option<TokenRecord>,
    /// When the look-up began that last brought a record. `None` where that is not to be believed any more.
    trusted: Option<Now>,
    /// Until when it is believed because the store failed, by either clock.
    excused: Option<Now>,
    /// When the look-up began that last found nothing.
    absent: Option<Now>,
    /// Hashes of the record whose secret was shown.
    proofs: Vec<SecretHash>,
    /// Secrets that were hashed in vain.
    refuted: Vec<Refuted>,
}

struct Refuted {
    hash: SecretHash,
    /// The record's revision then: a changed one is another question.
    revision: Revision,
    /// The record's live hashes then.
    by: Vec<SecretHash>,
    at: Now,
}

/// A record to judge by, and what of it was proved when it was looked at.
#[derive(Clone)]
struct View {
    record: TokenRecord,
    proofs: Vec<SecretHash>,
}

struct Flight {
    token: usize,
    began: Now,
    brings: Option<TokenRecord>,
    /// Something was invalidated since it began.
    outdated: bool,
    /// Which of the two budgets it takes from.
    refresh: bool,
    /// What it brought to those who wait for it; only once it is over.
    landed: Option<Option<View>>,
    over: bool,
}

struct Waiter {
    ask: Ask,
    flight: usize,
}

pub(super) struct Model {
    setup: Setup,
    memories: [Memory; TOKENS],
    flights: Vec<Flight>,
    waiting: Vec<Waiter>,
}

/// How far a request has come.
enum Progress {
    Decided(&'static str),
    Waits(usize),
}

impl Model {
    pub(super) fn new(setup: Setup) -> Self {
        Self { setup, memories: Default::default(), flights: Vec::new(), waiting: Vec::new() }
    }

    /// What becomes of a request that is made now.
    pub(super) fn ask(&mut self, ask: Ask, sight: &impl Sight) -> Told {
        let mut told = Told::default();
        match self.advance(ask, sight, &mut told) {
            Progress::Decided(outcome) => told.outcome = Some(outcome.to_owned()),
            Progress::Waits(flight) => self.waiting.push(Waiter { ask, flight }),
        }
        told
    }

    /// What becomes of those who wait, now that the store's answers are released.
    pub(super) fn release(&mut self, sight: &impl Sight) -> Vec<Told> {
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().map(|waiter| self.resume(waiter, sight)).collect()
    }

    /// What becomes of those who wait, now that time has passed.
    pub(super) fn tick(&mut self, sight: &impl Sight) -> Vec<Told> {
        let now = sight.now();
        for flight in &mut self.flights {
            flight.over |= now.monotonic >= flight.began.monotonic + self.setup.timeout;
        }
        std::mem::take(&mut self.waiting).into_iter().map(|waiter| self.time_out(waiter, sight)).collect()
    }

    fn time_out(&mut self, waiter: Waiter, sight: &impl Sight) -> Told {
        let mut told = Told::default();
        if !self.flights[waiter.flight].over {
            self.waiting.push(waiter);
            return told;
        }
        match self.go_without(waiter.ask, "unavailable store_timed_out", sight, &mut told) {
            Progress::Decided(outcome) => told.outcome = Some(outcome.to_owned()),
            Progress::Waits(flight) => self.waiting.push(Waiter { ask: waiter.ask, flight }),
        }
        told
    }

    /// The store has failed: a proved record that is still trusted is believed on, for 5 s at a time.
    fn go_without(&mut self, ask: Ask, cause: &'static str, sight: &impl Sight, told: &mut Told) -> Progress {
        let (memory, now) = (&mut self.memories[ask.token], sight.now());
        let blames_the_store = cause != "unavailable record_unusable";
        match memory.trusted {
            Some(began) if blames_the_store && !memory.proofs.is_empty() && self.setup.excuses(began, now) => {
                memory.excused = Some(self.setup.excuse(began, now));
                self.advance(ask, sight, told)
            }
            _ => Progress::Decided(cause),
        }
    }

    /// A look-up that nobody waits for ends.
    pub(super) fn vanish(&mut self, at: usize) {
        let gone = self.waiting.remove(at);
        if !self.waiting.iter().any(|waiter| waiter.flight == gone.flight) {
            self.flights[gone.flight].over = true;
        }
    }

    pub(super) fn invalidate(&mut self, token: usize) {
        self.memories[token].distrust();
        self.memories[token].forget_negatives();
        self.outdate(|flight| flight.token == token);
    }

    /// Whose a look-up in flight will be is not known, nor whose an unknown id or a wrong secret has become.
    pub(super) fn invalidate_owner(&mut self, owner: &str) {
        for memory in &mut self.memories {
            memory.forget_negatives();
            if memory.record.as_ref().is_some_and(|record| record.owner().as_str() == owner) {
                memory.distrust();
            }
        }
        self.outdate(|_| true);
    }

    pub(super) fn invalidate_all(&mut self) {
        (0..TOKENS).for_each(|token| self.invalidate(token));
    }

    fn outdate(&mut self, which: impl Fn(&Flight) -> bool) {
        self.flights.iter_mut().filter(|flight| which(flight)).for_each(|flight| flight.outdated = true);
    }

    /// Judges by what is remembered and fresh, else asks the store.
    fn advance(&mut self, ask: Ask, sight: &impl Sight, told: &mut Told) -> Progress {
        let (memory, now) = (&self.memories[ask.token], sight.now());
        if memory.is_fresh(now, &self.setup) {
            return Progress::Decided(self.judge(ask, memory.view(), now, told));
        }
        if memory.absent.is_some_and(|began| now.is_within(self.setup.negative_ttl, began)) {
            return Progress::Decided("refused unknown");
        }
        self.look_up(ask, sight, told)
    }

    /// Joins what is on its way, else sets out.
    fn look_up(&mut self, ask: Ask, sight: &impl Sight, told: &mut Told) -> Progress {
        let joined = |flight: &Flight| flight.token == ask.token && !flight.over && !flight.outdated;
        if let Some(flight) = self.flights.iter().position(joined) {
            return Progress::Waits(flight);
        }
        let refresh = !self.memories[ask.token].proofs.is_empty();
        if self.setup.tight && self.flights.iter().any(|flight| !flight.over && flight.refresh == refresh) {
            return self.go_without(ask, "unavailable lookups_busy", sight, told);
        }
        told.look_ups += 1;
        let now = sight.now();
        match sight.does(ask.token) {
            Does::Fails(outcome) => self.go_without(ask, outcome, sight, told),
            Does::Brings(answer) => {
                let view = self.memories[ask.token].remember(answer, now);
                Progress::Decided(self.judge(ask, view, now, told))
            }
            Does::Holds(brings) => {
                let (token, began) = (ask.token, now);
                let flight = Flight { token, began, brings, outdated: false, refresh, landed: None, over: false };
                self.flights.push(flight);
                Progress::Waits(self.flights.len() - 1)
            }
        }
    }

    fn resume(&mut self, waiter: Waiter, sight: &impl Sight) -> Told {
        let Waiter { ask, mut flight } = waiter;
        let mut told = Told::default();
        loop {
            self.land(flight);
            let landed = self.flights[flight].landed.clone();
            let progress = match landed {
                // Others who waited may have learnt more meanwhile, and nobody is judged by what is too old.
                Some(view) if !self.knows(ask.token, sight.now()) && self.still_answers(flight, sight.now()) => {
                    Progress::Decided(self.judge(ask, view, sight.now(), &mut told))
                }
                _ => self.advance(ask, sight, &mut told),
            };
            match progress {
                Progress::Decided(outcome) => return Told { outcome: Some(outcome.to_owned()), ..told },
                Progress::Waits(next) => flight = next,
            }
        }
    }

    /// What was read before an invalidation is neither remembered nor judged by.
    fn land(&mut self, at: usize) {
        let flight = &mut self.flights[at];
        if !flight.over && !flight.outdated {
            flight.landed = Some(self.memories[flight.token].remember(flight.brings.clone(), flight.began));
        }
        flight.over = true;
    }

    /// With a TTL of zero an answer still is one to those who waited for it, as long as a look-up may take.
    fn still_answers(&self, flight: usize, now: Now) -> bool {
        now.is_within(self.setup.ttl.max(self.setup.timeout), self.flights[flight].began)
    }

    fn knows(&self, token: usize, now: Now) -> bool {
        let memory = &self.memories[token];
        memory.is_fresh(now, &self.setup)
            || memory.absent.is_some_and(|began| now.is_within(self.setup.negative_ttl, began))
    }

    fn judge(&mut self, ask: Ask, view: Option<View>, now: Now, told: &mut Told) -> &'static str {
        let Some(View { record, proofs }) = view else { return "refused unknown" };
        let verdict = says(&record, ask, now.wall);
        let live = live_hashes(&record, now.wall);
        let presented = &CAST.hashes[ask.token][ask.secret as usize];
        let mine = |hash: &&SecretHash| *hash == presented;
        let alive = matches!(verdict, "allowed" | "refused forbidden" | "refused mismatch");
        if !alive || live.iter().any(|hash| mine(hash) && proofs.contains(hash)) {
            return verdict;
        }
        let prechecked = CAST.prechecked(ask.token);
        let in_question = live.iter().filter(|hash| !proofs.contains(hash) && (!prechecked || mine(hash)));
        let in_question: Vec<SecretHash> = in_question.map(|hash| (*hash).clone()).collect();
        let memory = &mut self.memories[ask.token];
        if in_question.is_empty() || memory.has_refuted(presented, record.revision(), &in_question, now, &self.setup) {
            return "refused mismatch";
        }
        let found = in_question.iter().position(|hash| hash == presented);
        told.hashes += found.map_or(in_question.len(), |at| at + 1);
        match found {
            Some(_) => memory.proofs.push(presented.clone()),
            None => {
                let (hash, revision) = (presented.clone(), record.revision());
                memory.refuted.push(Refuted { hash, revision, by: in_question, at: now });
            }
        }
        verdict
    }
}

impl Setup {
    fn excuses(&self, began: Now, now: Now) -> bool {
        !self.stale.is_zero() && now.is_within(self.ttl + self.stale, began)
    }

    /// Five seconds, and no longer than it may be.
    fn excuse(&self, began: Now, now: Now) -> Now {
        let (five, end) = (Duration::from_secs(5), self.ttl + self.stale);
        let (wall, monotonic) = (began.wall + end, began.monotonic + end);
        Now { wall: wall.min(now.wall + five), monotonic: monotonic.min(now.monotonic + five) }
    }
}

impl Memory {
    fn is_fresh(&self, now: Now, setup: &Setup) -> bool {
        let excused = |end: Now| now.monotonic < end.monotonic && now.wall < end.wall;
        self.trusted.is_some_and(|began| now.is_within(setup.ttl, began)) || self.excused.is_some_and(excused)
    }

    fn view(&self) -> Option<View> {
        self.record.clone().map(|record| View { record, proofs: self.proofs.clone() })
    }

    /// Takes in what a look-up brought, and tells what counts now.
    fn remember(&mut self, answer: Option<TokenRecord>, began: Now) -> Option<View> {
        let Some(record) = answer else {
            (self.trusted, self.excused, self.absent) = (None, None, Some(began));
            return None;
        };
        (self.trusted, self.excused, self.absent) = (Some(began), None, None);
        if self.record.as_ref().is_none_or(|known| known.revision() <= record.revision()) {
            let holds = |hash: &SecretHash| {
                record.secret() == hash || record.retiring().is_some_and(|retiring| retiring.secret() == hash)
            };
            self.proofs.retain(holds);
            self.record = Some(record);
        }
        self.view()
    }

    /// The record is asked for again before its next use. What was proved stays so.
    fn distrust(&mut self) {
        (self.trusted, self.excused) = (None, None);
    }

    fn forget_negatives(&mut self) {
        self.absent = None;
        self.refuted.clear();
    }

    fn has_refuted(
        &self,
        presented: &SecretHash,
        revision: Revision,
        in_question: &[SecretHash],
        now: Now,
        setup: &Setup,
    ) -> bool {
        let covers = |refuted: &Refuted| {
            (&refuted.hash, refuted.revision) == (presented, revision)
                && now.is_within(setup.negative_ttl, refuted.at)
                && in_question.iter().all(|hash| refuted.by.contains(hash))
        };
        self.refuted.iter().any(covers)
    }
}
