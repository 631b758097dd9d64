//! What may be answered, whatever a gate remembers: each outcome held against what the store said, and when.

use std::time::Duration;

use tower_token_auth::{Monotonic, Scope, SecretHash, Timestamp, TokenId, TokenRecord, TokenState};

use super::step::{Ask, Setup};
use super::world::CAST;

/// Both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) wall: Timestamp,
    pub(super) monotonic: Monotonic,
}

impl Now {
    /// Whether less than `span` has passed since `began`, by either clock.
    pub(super) fn is_within(self, span: Duration, began: Self) -> bool {
        self.monotonic < began.monotonic + span && self.wall < began.wall + span
    }
}

/// The order in which things happened.
pub(super) type Tick = usize;

/// One call of the store.
#[derive(Debug)]
pub(super) struct LookUp {
    pub(super) id: TokenId,
    pub(super) begun: Tick,
    pub(super) at: Now,
    /// `None` while it is under way.
    pub(super) end: Option<(Tick, End)>,
}

#[derive(Debug)]
pub(super) enum End {
    Brought(Box<Option<TokenRecord>>),
    /// An error, a panic, a record of another token, or given up.
    Nothing,
}

/// An outcome, and all that can justify it.
pub(super) struct Trial<'a> {
    pub(super) ask: Ask,
    pub(super) outcome: &'a str,
    pub(super) status: u16,
    /// When the request was made.
    pub(super) began: Tick,
    pub(super) now: Now,
    pub(super) setup: Setup,
    /// The look-ups of this id, in the order they ended.
    pub(super) look_ups: Vec<&'a LookUp>,
    /// When look-ups of this id that were under way were invalidated.
    pub(super) outdated: &'a [Tick],
    /// When this id was last invalidated: what was read before does not count.
    pub(super) invalidated: Tick,
}

impl Trial<'_> {
    pub(super) fn judge(&self) -> Result<(), String> {
        let status = match self.outcome {
            "allowed" => 200,
            "refused forbidden" => 403,
            outcome if outcome.starts_with("refused") => 401,
            _ => 503,
        };
        if self.status != status {
            return Err(format!("{} told as {}", self.outcome, self.status));
        }
        let justified = if status == 503 { self.may_be_unavailable() } else { self.is_true() };
        if justified { Ok(()) } else { Err(format!("{:?} was {} without a reason", self.ask, self.outcome)) }
    }

    /// A look-up of this request's time brought nothing, or there may have been no room for one.
    fn may_be_unavailable(&self) -> bool {
        let came_to_nothing = |look_up: &&LookUp| matches!(look_up.end, Some((end, End::Nothing)) if end >= self.began);
        let busy = self.outcome == "unavailable lookups_busy" && self.setup.tight;
        busy || self.look_ups.iter().any(came_to_nothing)
    }

    /// Whether an answer that counts says so: the last one while it is fresh, or one that this request waited for.
    /// What somebody else has learned since that one landed counts before it.
    fn is_true(&self) -> bool {
        let mut newest: Option<&TokenRecord> = None;
        let (mut waited_for, mut last) = (false, false);
        for (look_up, ended, answer) in self.taken_in() {
            if let Some(record) = answer {
                newest = newest.filter(|known| known.revision() > record.revision()).or(Some(record));
            }
            let ttl = if answer.is_some() { self.setup.ttl } else { self.setup.negative_ttl };
            let counts = look_up.begun > self.invalidated;
            let says_so = counts && self.is_said(answer, newest);
            // While the store fails, a record goes on; that there is none does not.
            let stale = if answer.is_some() { self.setup.stale } else { Duration::ZERO };
            last = says_so && self.now.is_within(ttl + stale, look_up.at);
            // Another answer that is fresh takes the place of the one this request waited for.
            let better = counts && !says_so && !self.setup.small && self.now.is_within(ttl, look_up.at);
            waited_for = says_so && ended >= self.began || waited_for && !better;
        }
        waited_for || last
    }

    fn is_said(&self, answer: Option<&TokenRecord>, newest: Option<&TokenRecord>) -> bool {
        let says_so = |record: &TokenRecord| says(record, self.ask, self.now.wall) == self.outcome;
        match answer {
            None => self.outcome == "refused unknown",
            // A gate without room may have forgotten what is newer.
            Some(record) => newest.is_some_and(says_so) || self.setup.small && says_so(record),
        }
    }

    /// What was brought while nothing was invalidated meanwhile, oldest first.
    fn taken_in(&self) -> impl Iterator<Item = (&LookUp, Tick, Option<&TokenRecord>)> {
        self.look_ups.iter().filter_map(|look_up| {
            let Some((ended, End::Brought(answer))) = &look_up.end else { return None };
            let outdated = self.outdated.iter().any(|tick| (look_up.begun..*ended).contains(tick));
            (!outdated).then_some((*look_up, *ended, answer.as_ref().as_ref()))
        })
    }
}

/// What a record says of a request: dead before wrong, and wrong before forbidden.
pub(super) fn says(record: &TokenRecord, ask: Ask, wall: Timestamp) -> &'static str {
    let presented = &CAST.hashes[ask.token][ask.secret as usize];
    match record.state() {
        _ if record.expires_at().is_some_and(|end| end <= wall) => "refused expired",
        TokenState::Revoked => "refused revoked",
        TokenState::Paused => "refused paused",
        _ if record.owner_barred() => "refused owner_barred",
        _ if !live_hashes(record, wall).contains(&presented) => "refused mismatch",
        _ if ask.write && record.scope() == Scope::ReadOnly => "refused forbidden",
        _ => "allowed",
    }
}

pub(super) fn live_hashes(record: &TokenRecord, wall: Timestamp) -> Vec<&SecretHash> {
    let retiring = record.retiring().filter(|retiring| wall < retiring.until()).map(|retiring| retiring.secret());
    let retiring = retiring.filter(|old| *old != record.secret());
    [record.secret()].into_iter().chain(retiring).collect()
}
