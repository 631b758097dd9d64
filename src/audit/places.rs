//! Who waits to be written, and whose turn it is.

use std::collections::VecDeque;

use super::event::{Repeated, Subject};
use super::{Action, AuditEvent, Outcome};
use crate::clock::Timestamp;
use crate::decision::Reason;

/// Of how many turns noise gets one while proved events wait.
const NOISE_TURN: u64 = 8;
/// At most so many turns are taken at once: the lock, the accounts and a sink that writes a batch at once cost next to
/// nothing for each of so many.
const BATCH: usize = 64;
/// And at most this part of the places: a batch keeps its places until it is written.
const BATCH_OF_PLACES: usize = 16;
/// Who writes does not rest while this part of the places of either kind is taken.
const CROWD_OF_PLACES: usize = 4;

/// Proved events and noise, each with room of its own.
pub(super) struct Places {
    proved: Room,
    noise: Room,
    /// The one made first in front.
    summaries: VecDeque<Summary>,
    /// The ticket of a report that waits for its turn.
    report: Option<u64>,
    in_hand: InHand,
    tickets: u64,
    turns: u64,
}

/// What whoever writes is to do next.
pub(super) enum Turn {
    Write(Event),
    /// Nothing waits; what was lost is still to be reported.
    Report,
}

/// Boxed: it goes from hand to hand, and is some 350 bytes large.
pub(super) type Event = Box<AuditEvent<'static>>;

struct Room {
    events: VecDeque<Queued>,
    capacity: usize,
}

struct Queued {
    ticket: u64,
    event: Event,
}

/// What was taken, and has not left its place before it is written.
#[derive(Default)]
struct InHand {
    proved: usize,
    noise: usize,
    oldest: Option<u64>,
}

#[derive(Clone, Copy)]
enum Kind {
    Proved,
    Noise,
    Other,
}

pub(super) struct Taken {
    /// Greater for what came later.
    pub(super) ticket: u64,
    pub(super) turn: Turn,
    kind: Kind,
}

/// Noise that found no place.
struct Summary {
    ticket: u64,
    action: Action,
    outcome: Outcome,
    reason: Option<Reason>,
    count: u64,
    first_at: Timestamp,
    at: Timestamp,
}

impl Places {
    pub(super) fn new(proved: usize, noise: usize) -> Self {
        let room = |capacity| Room { events: VecDeque::new(), capacity };
        Self {
            proved: room(proved),
            noise: room(noise),
            summaries: VecDeque::new(),
            report: None,
            in_hand: InHand::default(),
            tickets: 0,
            turns: 0,
        }
    }

    /// Gives a proved event back that finds no place. Noise always finds one, if only in a summary.
    pub(super) fn put(&mut self, event: Event) -> Result<(), Event> {
        let ticket = self.tickets;
        let (proved, noise) = (self.in_hand.proved, self.in_hand.noise);
        if !event.is_anonymous() {
            self.proved.put(Queued { ticket, event }, proved).map_err(|queued| queued.event)?;
        } else if let Err(queued) = self.noise.put(Queued { ticket, event }, noise) {
            self.sum_up(&queued.event, ticket);
        }
        self.tickets += 1;
        Ok(())
    }

    /// Sums up a proved event that was taken, and is not to be written by itself: it gives its place up.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(super) fn sum_up_taken(&mut self, event: &AuditEvent<'static>) {
        self.in_hand.proved = self.in_hand.proved.saturating_sub(1);
        self.sum_up(event, self.tickets);
        self.tickets += 1;
    }

    fn sum_up(&mut self, event: &AuditEvent<'static>, ticket: u64) {
        let (action, outcome, reason) = (event.action(), event.outcome(), event.reason());
        let same =
            |summary: &&mut Summary| (summary.action, summary.outcome, summary.reason) == (action, outcome, reason);
        match self.summaries.iter_mut().find(same) {
            Some(summary) => {
                summary.count += event.count();
                summary.at = summary.at.max(event.at());
            }
            // As many as there are combinations: a few dozen.
            None => {
                let (count, first_at, at) = (event.count(), event.first_at(), event.at());
                self.summaries.push_back(Summary { ticket, action, outcome, reason, count, first_at, at });
            }
        }
    }

    /// Asks for a turn to report losses in, once nothing else waits.
    pub(super) fn ask_for_report(&mut self) {
        if self.report.is_none() {
            self.report = Some(self.tickets);
            self.tickets += 1;
        }
    }

    /// Takes what is next, and holds it in hand with what was taken before. Proved events come first, but for noise's
    /// turn; and that passes while half of their places are taken: what noise then took of the writer's time would be
    /// missed.
    pub(super) fn take(&mut self) -> Option<Taken> {
        let is_noises = self.turns % NOISE_TURN == NOISE_TURN - 1 && self.proved.is_half_empty();
        let next = if is_noises { self.take_noise() } else { self.take_proved() };
        let next = next.or_else(|| self.take_proved()).or_else(|| self.take_noise());
        let next = next.or_else(|| self.take_report())?;
        Some(self.hold(next))
    }

    /// Whether a turn to report in is asked for: whoever was refused waits for what it comes to.
    pub(super) const fn has_report(&self) -> bool {
        self.report.is_some()
    }

    /// Takes several turns at once; `false` where there is nothing to do. With no events, it is to report.
    ///
    /// Proved events that come meanwhile wait for the batch: so it has no more noise than its share of the turns, also
    /// where nothing else waits now.
    pub(super) fn take_several(&mut self, events: &mut Vec<Event>) -> bool {
        let most = (self.proved.capacity / BATCH_OF_PLACES).clamp(1, BATCH);
        let mut noise = most.div_ceil(NOISE_TURN as usize);
        while events.len() < most && noise > 0 {
            match self.take().map(|taken| taken.turn) {
                Some(Turn::Write(event)) => {
                    noise -= usize::from(event.is_anonymous());
                    events.push(event);
                }
                Some(Turn::Report) => return true,
                None => break,
            }
        }
        !events.is_empty()
    }

    /// Takes what is next but for noise.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(super) fn take_no_noise(&mut self) -> Option<Taken> {
        let next = self.take_proved().or_else(|| self.take_report())?;
        Some(self.hold(next))
    }

    fn hold(&mut self, taken: Taken) -> Taken {
        self.turns = self.turns.wrapping_add(1);
        self.in_hand.add(taken.ticket, taken.kind);
        taken
    }

    fn take_proved(&mut self) -> Option<Taken> {
        self.proved.take(Kind::Proved)
    }

    /// Summaries are noise too, as old as the first of their decisions.
    fn take_noise(&mut self) -> Option<Taken> {
        let summary = self.summaries.front().map(|summary| summary.ticket);
        let event = self.noise.first();
        if summary.is_none_or(|summary| event.is_some_and(|event| event < summary)) {
            return self.noise.take(Kind::Noise);
        }
        let summary = self.summaries.pop_front()?;
        let ticket = summary.ticket;
        Some(Taken { ticket, kind: Kind::Other, turn: Turn::Write(Box::new(summary.into_event())) })
    }

    fn take_report(&mut self) -> Option<Taken> {
        let ticket = self.report.take()?;
        Some(Taken { ticket, kind: Kind::Other, turn: Turn::Report })
    }

    /// What was in hand is done with.
    pub(super) fn done(&mut self) {
        self.in_hand = InHand::default();
    }

    /// How many events wait that are not noise.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(super) fn proved(&self) -> usize {
        self.proved.events.len()
    }

    /// Whether so many wait that their places may run out.
    pub(super) fn is_crowded(&self) -> bool {
        self.proved.is_crowded() || self.noise.is_crowded()
    }

    /// The ticket given last.
    pub(super) fn last(&self) -> Option<u64> {
        self.tickets.checked_sub(1)
    }

    /// Whether nothing at all is left.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(super) fn is_empty(&self) -> bool {
        self.is_settled(u64::MAX)
    }

    /// Whether nothing up to this ticket is left.
    pub(super) fn is_settled(&self, last: u64) -> bool {
        let summary = self.summaries.front().map(|summary| summary.ticket);
        let oldest = [self.proved.first(), self.noise.first(), summary, self.report, self.in_hand.oldest];
        oldest.into_iter().flatten().all(|ticket| ticket > last)
    }
}

impl Room {
    fn put(&mut self, queued: Queued, in_hand: usize) -> Result<(), Queued> {
        if self.events.len() + in_hand >= self.capacity {
            return Err(queued);
        }
        self.events.push_back(queued);
        Ok(())
    }

    fn take(&mut self, kind: Kind) -> Option<Taken> {
        let Queued { ticket, event } = self.events.pop_front()?;
        Some(Taken { ticket, kind, turn: Turn::Write(event) })
    }

    fn first(&self) -> Option<u64> {
        self.events.front().map(|queued| queued.ticket)
    }

    fn is_half_empty(&self) -> bool {
        self.events.len() < self.capacity.div_ceil(2)
    }

    fn is_crowded(&self) -> bool {
        !self.events.is_empty() && self.events.len() >= self.capacity / CROWD_OF_PLACES
    }
}

impl InHand {
    fn add(&mut self, ticket: u64, kind: Kind) {
        match kind {
            Kind::Proved => self.proved += 1,
            Kind::Noise => self.noise += 1,
            Kind::Other => {}
        }
        self.oldest = Some(self.oldest.map_or(ticket, |oldest| oldest.min(ticket)));
    }
}

impl Summary {
    fn into_event(self) -> AuditEvent<'static> {
        let Self { action, outcome, reason, count, first_at, at, .. } = self;
        AuditEvent::of_several(action, outcome, Subject::Nobody, at, Repeated { count, first_at }).because(reason)
    }
}
