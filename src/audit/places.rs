//! Who waits for the thread that writes, and whose turn it is.

use std::collections::VecDeque;

use super::event::{Repeated, Subject};
use super::{Action, AuditEvent, Outcome};
use crate::clock::Timestamp;
use crate::decision::Reason;

/// Of how many turns noise gets one while proved events wait.
const NOISE_TURN: u64 = 8;

/// Proved events and noise, each with room of its own.
pub(super) struct Places {
    proved: Room,
    noise: Room,
    /// The one made first in front.
    summaries: VecDeque<Summary>,
    /// The ticket of a report that waits for its turn.
    report: Option<u64>,
    in_hand: Option<InHand>,
    tickets: u64,
    turns: u64,
}

/// What the thread is to do next.
pub(super) enum Turn {
    Write(AuditEvent<'static>),
    /// Nothing waits; what was lost is still to be reported.
    Report,
}

struct Room {
    events: VecDeque<Queued>,
    capacity: usize,
}

struct Queued {
    ticket: u64,
    event: AuditEvent<'static>,
}

/// What the thread holds: it has not left its place before it is written.
#[derive(Clone, Copy, PartialEq, Eq)]
struct InHand {
    ticket: u64,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Proved,
    Noise,
    Other,
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
            in_hand: None,
            tickets: 0,
            turns: 0,
        }
    }

    /// Gives a proved event back that finds no place. Noise always finds one, if only in a summary.
    pub(super) fn put(&mut self, event: AuditEvent<'static>) -> Result<(), AuditEvent<'static>> {
        let ticket = self.tickets;
        let (proved, noise) = (self.in_hand_of(Kind::Proved), self.in_hand_of(Kind::Noise));
        if !event.is_anonymous() {
            self.proved.put(Queued { ticket, event }, proved).map_err(|queued| queued.event)?;
        } else if let Err(queued) = self.noise.put(Queued { ticket, event }, noise) {
            self.sum_up(&queued.event, ticket);
        }
        self.tickets += 1;
        Ok(())
    }

    fn in_hand_of(&self, kind: Kind) -> usize {
        usize::from(self.in_hand.is_some_and(|held| held.kind == kind))
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

    /// Takes what is next. Proved events come first, but for noise's turn; and that passes while half of their places
    /// are taken: what noise then took of the thread's time would be missed.
    pub(super) fn take(&mut self) -> Option<Turn> {
        let is_noises = self.turns % NOISE_TURN == NOISE_TURN - 1 && self.proved.is_half_empty();
        let next = if is_noises { self.take_noise() } else { self.take_proved() };
        let next = next.or_else(|| self.take_proved()).or_else(|| self.take_noise());
        let (in_hand, turn) = next.or_else(|| self.take_report())?;
        self.turns = self.turns.wrapping_add(1);
        self.in_hand = Some(in_hand);
        Some(turn)
    }

    fn take_proved(&mut self) -> Option<(InHand, Turn)> {
        self.proved.take(Kind::Proved)
    }

    /// Summaries are noise too, as old as the first of their decisions.
    fn take_noise(&mut self) -> Option<(InHand, Turn)> {
        let summary = self.summaries.front().map(|summary| summary.ticket);
        let event = self.noise.first();
        if summary.is_none_or(|summary| event.is_some_and(|event| event < summary)) {
            return self.noise.take(Kind::Noise);
        }
        let summary = self.summaries.pop_front()?;
        Some((InHand { ticket: summary.ticket, kind: Kind::Other }, Turn::Write(summary.into_event())))
    }

    fn take_report(&mut self) -> Option<(InHand, Turn)> {
        let ticket = self.report.take()?;
        Some((InHand { ticket, kind: Kind::Other }, Turn::Report))
    }

    /// What was in hand is done with.
    pub(super) fn done(&mut self) {
        self.in_hand = None;
    }

    /// The ticket given last.
    pub(super) fn last(&self) -> Option<u64> {
        self.tickets.checked_sub(1)
    }

    /// Whether nothing up to this ticket is left.
    pub(super) fn is_settled(&self, last: u64) -> bool {
        let summary = self.summaries.front().map(|summary| summary.ticket);
        let in_hand = self.in_hand.map(|held| held.ticket);
        let oldest = [self.proved.first(), self.noise.first(), summary, self.report, in_hand];
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

    fn take(&mut self, kind: Kind) -> Option<(InHand, Turn)> {
        let Queued { ticket, event } = self.events.pop_front()?;
        Some((InHand { ticket, kind }, Turn::Write(event)))
    }

    fn first(&self) -> Option<u64> {
        self.events.front().map(|queued| queued.ticket)
    }

    fn is_half_empty(&self) -> bool {
        self.events.len() < self.capacity.div_ceil(2)
    }
}

impl Summary {
    fn into_event(self) -> AuditEvent<'static> {
        let Self { action, outcome, reason, count, first_at, at, .. } = self;
        AuditEvent::of_several(action, outcome, Subject::Nobody, at, Repeated { count, first_at }).because(reason)
    }
}
