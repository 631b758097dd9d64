//! Events by kind, each kind with its own bound.

use std::collections::VecDeque;

use crate::audit::{Action, AuditEvent, Outcome};

/// What an event is kept among. Whoever can cause one kind at will pushes out that kind only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Desk,
    Report,
    Allowed,
    Forbidden,
    Mismatching,
    Anonymous,
}

impl Kind {
    pub(super) const ALL: [Self; 6] =
        [Self::Desk, Self::Report, Self::Allowed, Self::Forbidden, Self::Mismatching, Self::Anonymous];

    pub(super) fn of(event: &AuditEvent<'_>) -> Self {
        if event.action().is_report() {
            Self::Report
        } else if event.action() != Action::Authenticate {
            Self::Desk
        } else if event.proved().is_some() {
            if event.outcome() == Outcome::Allowed { Self::Allowed } else { Self::Forbidden }
        } else if event.refused_token().is_some() {
            Self::Mismatching
        } else {
            Self::Anonymous
        }
    }
}

/// All events, in the order in which they came.
pub(super) struct Rooms {
    rooms: [Room; Kind::ALL.len()],
    next: u64,
}

struct Room {
    kept: VecDeque<Kept>,
    capacity: usize,
}

pub(super) struct Kept {
    /// Greater than those of all events before it, whatever their room.
    pub(super) position: u64,
    pub(super) event: AuditEvent<'static>,
}

impl Rooms {
    pub(super) fn new(capacity: impl Fn(Kind) -> usize) -> Self {
        let room = |kind| Room { kept: VecDeque::new(), capacity: capacity(kind) };
        Self { rooms: Kind::ALL.map(room), next: 0 }
    }

    /// Keeps an event; answers the one that had to go, so that it can be dropped outside of a lock.
    pub(super) fn keep(&mut self, event: AuditEvent<'static>) -> Option<AuditEvent<'static>> {
        let position = self.next;
        self.next += 1;
        let room = self.rooms.get_mut(Kind::of(&event) as usize)?;
        if room.capacity == 0 {
            return Some(event);
        }
        let gone = if room.kept.len() < room.capacity { None } else { room.kept.pop_front() };
        room.kept.push_back(Kept { position, event });
        gone.map(|kept| kept.event)
    }

    /// The events before a position, the newest first.
    pub(super) fn before(&self, position: u64) -> impl Iterator<Item = &Kept> {
        let older = |room: &Room| room.kept.partition_point(|kept| kept.position < position);
        let mut left = self.rooms.each_ref().map(|room| (room, older(room)));
        std::iter::from_fn(move || {
            let (room, left) = left.iter_mut().max_by_key(|(room, left)| room.last_of(*left))?;
            *left = left.checked_sub(1)?;
            room.kept.get(*left)
        })
    }

    #[cfg(test)]
    pub(super) fn len(&self, kind: Kind) -> usize {
        self.rooms[kind as usize].kept.len()
    }
}

impl Room {
    /// Where the last of so many events stands.
    fn last_of(&self, events: usize) -> Option<u64> {
        self.kept.get(events.checked_sub(1)?).map(|kept| kept.position)
    }
}
