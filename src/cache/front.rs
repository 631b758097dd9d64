//! The tokens a thread has lately admitted, before the map that all threads share.
//!
//! Where many threads admit one token, what they take from each other is the lock of its shard and the count of its
//! references. So each thread keeps copies of a few entries that it has admitted, with references of its own.
//!
//! # What it guarantees
//! * A copy is made of a hit, and says until when the same request would be the same hit: by the trust in its entry and by
//!   the ends of the token and of the secret that was shown. All else that a hit depends on are changes, see below.
//! * Whoever changes or distrusts an entry counts a counter up *afterwards*; a copy notes the counter *before* the entry
//!   is read. So no copy outlives a change, also where the entry itself has gone for want of room.
//! * A thread has [`SEATS`] seats for all gates of the process together, one of them for an id.
//! * A token takes its seat when it is admitted twice without another in between on the same seat: tokens in greater
//!   number than seats cost no allocations.
//!
//! # Cost
//! A hit writes to nothing that another thread reads. Its first admission gives a thread some 13 KiB of seats; a copy is a
//! record of its own, which shares the memory of long texts. A copy of what nobody asks for any more stays until its seat
//! is taken, or its thread ends.

use std::cell::RefCell;

use super::entry::FreshUntil;
use super::generations::Mark;
use crate::decision::{AuthenticatedToken, GateId};
use crate::sync::thread_local;
use crate::token::Tag;

/// A power of two. More would not stay in a core's nearest cache.
const SEATS: usize = 128;

/// What a thread has copied of an entry that it admitted.
pub(super) struct Copied {
    /// Where the counters of changes stood before the entry was read.
    pub(super) mark: Mark,
    /// From when on the entry itself has to be asked, by either clock.
    pub(super) until: FreshUntil,
    /// Which of the accepted prefixes was presented.
    pub(super) prefix: usize,
    /// Of the rest of the text that was presented, so that one like it is known to be well formed.
    pub(super) text_tag: Tag,
    /// The same as in the entry, with a count of references of its own.
    pub(super) token: AuthenticatedToken,
}

/// A place for one token: whose turn it is, and what was copied when the turn came again.
struct Seat {
    gate: GateId,
    key: u128,
    copied: Option<Copied>,
}

thread_local! {
    static FRONT: RefCell<Vec<Option<Seat>>> = const { RefCell::new(Vec::new()) };
}

/// Looks at what this thread has copied of an entry.
#[inline(always)]
pub(super) fn look<R>(gate: GateId, key: u128, look: impl FnOnce(&Copied) -> Option<R>) -> Option<R> {
    // A thread that is ending has no seats any more.
    let looked = FRONT.try_with(|seats| {
        let seats = seats.try_borrow().ok()?;
        let seat = seats.get(place(gate, key))?.as_ref()?;
        look(seat.copied.as_ref().filter(|_| seat.key == key && seat.gate == gate)?)
    });
    looked.ok().flatten()
}

/// Whether an entry that is about to be admitted may be copied: where the seat's last turn was its, too.
pub(super) fn takes_turn(gate: GateId, key: u128) -> bool {
    let taken = FRONT.try_with(|seats| {
        let mut seats = seats.try_borrow_mut().ok()?;
        if seats.is_empty() {
            seats.resize_with(SEATS, || None);
        }
        let seat = seats.get_mut(place(gate, key))?;
        let again = seat.as_ref().is_some_and(|seat| seat.key == key && seat.gate == gate);
        if !again {
            *seat = Some(Seat { gate, key, copied: None });
        }
        Some(again)
    });
    taken.ok().flatten().unwrap_or(false)
}

/// Keeps a copy of an entry that [has taken its turn](takes_turn).
#[cold]
pub(super) fn keep(gate: GateId, key: u128, copied: Copied) {
    // Where a thread is ending the copy ends with it.
    let _kept = FRONT.try_with(|seats| {
        let mut seats = seats.try_borrow_mut().ok()?;
        let seat = seats.get_mut(place(gate, key))?.as_mut()?;
        if seat.key == key && seat.gate == gate {
            seat.copied = Some(copied);
        }
        Some(())
    });
}

/// Ids are random, and only proved tokens come here: nobody gains by choosing where they sit.
fn place(gate: GateId, key: u128) -> usize {
    let folded = (key ^ (key >> 64)) as u64 ^ gate.number();
    // The product's high bits depend on all of the word; 7 bits are below 128.
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SEATS.trailing_zeros())) as usize
}

#[cfg(test)]
mod tests;
