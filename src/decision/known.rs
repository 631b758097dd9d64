//! What is known of a token, in one piece of memory.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::clock::{Moment, Monotonic, Timestamp};
use crate::id::{Label, OwnerId, TokenId};
use crate::scope::Scope;
use crate::secret::SecretHash;
use crate::token::{
    Attributes, DeadReason, Noted, RetiringSecret, SecretSlot, Tag, TokenRecord, TokenState, Version, check_live,
};

/// A record, what has been proved of it, and how far it is believed.
///
/// A gate may know a million tokens, so what few of them have is kept apart. The text of a stored hash is kept only as long
/// as it may have to be hashed against: of what is proved a fingerprint is left, which tells whether a fresh record
/// still has that hash.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) id: TokenId,
    pub(crate) owner: OwnerId,
    pub(crate) label: Label,
    pub(crate) version: Version,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) scope: Scope,
    pub(crate) state: TokenState,
    pub(crate) owner_barred: bool,
    pub(crate) narrowed: bool,
    pub(crate) noted: Noted,
    fingerprint: u64,
    tag: Tag,
    proved: bool,
    pub(crate) until: Moment,
    /// What is not trusted costs a question to the store before its next use. The proofs stay.
    pub(crate) trusted: Flag,
    /// Whether somebody has been told that the record is due: once is enough.
    pub(crate) told: Flag,
    /// Whether somebody has been told that a rotation's new secret is in use.
    pub(crate) succeeded: Flag,
    pub(crate) place: Place,
    rare: Option<Box<Rare>>,
}

/// What few tokens have.
#[derive(Debug, Clone, Default)]
struct Rare {
    attributes: Attributes,
    retires_at: Option<Timestamp>,
    current: Option<SecretHash>,
    retiring: Option<Box<Retiring>>,
    excuse: Option<(Moment, Monotonic)>,
}

#[derive(Debug, Clone)]
struct Retiring {
    secret: RetiringSecret,
    fingerprint: u64,
    tag: Option<Tag>,
}

impl Known {
    /// What a record says, without a proof or trust. Fingerprints are to tell hashes apart.
    pub(crate) fn of_record(record: &TokenRecord, fingerprint: impl Fn(&SecretHash) -> u64) -> Self {
        let retiring = record.retiring().map(|old| {
            let fingerprint = fingerprint(old.secret());
            Box::new(Retiring { secret: old.clone(), fingerprint, tag: None })
        });
        let current = Some(record.secret().clone());
        let retires_at = record.retiring().map(RetiringSecret::until);
        let rare = Rare { attributes: record.attributes().clone(), retires_at, current, retiring, excuse: None };
        Self {
            owner_barred: record.owner_barred(),
            version: record.version(),
            state: record.state(),
            fingerprint: fingerprint(record.secret()),
            rare: Some(Box::new(rare)),
            ..Self::told(record.id(), record.owner().clone(), record.label().clone(), record.scope())
        }
        .limited(record.narrowed(), record.expires_at())
    }

    /// What can be told of a token without its record.
    pub(crate) fn told(id: TokenId, owner: OwnerId, label: Label, scope: Scope) -> Self {
        Self {
            id,
            owner,
            label,
            version: Version::NONE,
            expires_at: None,
            scope,
            state: TokenState::Active,
            owner_barred: false,
            narrowed: false,
            noted: Noted::never(),
            fingerprint: 0,
            tag: Tag::NONE,
            proved: false,
            until: Moment::START,
            trusted: Flag::default(),
            told: Flag::default(),
            succeeded: Flag::default(),
            place: Place::default(),
            rare: None,
        }
    }

    pub(crate) fn limited(self, narrowed: bool, expires_at: Option<Timestamp>) -> Self {
        Self { narrowed, expires_at, ..self }
    }

    pub(crate) fn attributes(&self) -> &Attributes {
        const NONE: &Attributes = &Attributes::NONE;
        self.rare.as_ref().map_or(NONE, |rare| &rare.attributes)
    }

    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(crate) fn retiring_at(mut self, retires_at: Option<Timestamp>) -> Self {
        if retires_at.is_some() {
            self.rare.get_or_insert_default().retires_at = retires_at;
        }
        self
    }

    pub(crate) fn retires_at(&self) -> Option<Timestamp> {
        self.rare.as_ref()?.retires_at
    }

    fn retiring_slot(&self) -> Option<&Retiring> {
        self.rare.as_ref()?.retiring.as_deref()
    }

    pub(crate) fn retiring(&self) -> Option<&RetiringSecret> {
        self.retiring_slot().map(|old| &old.secret)
    }

    pub(crate) fn excuse(&self) -> Option<(Moment, Monotonic)> {
        self.rare.as_ref()?.excuse
    }

    pub(crate) fn set_excuse(&mut self, excuse: Option<(Moment, Monotonic)>) {
        if self.excuse().is_some() || excuse.is_some() {
            self.rare.get_or_insert_default().excuse = excuse;
            self.tidy();
        }
    }

    pub(crate) fn check_live(&self, now: Timestamp) -> Result<(), DeadReason> {
        check_live(self.expires_at, self.state, self.owner_barred, now)
    }

    /// Whether the secret in this slot may be presented at `now`.
    pub(crate) fn is_live(&self, slot: SecretSlot, now: Timestamp) -> bool {
        match slot {
            SecretSlot::Current => true,
            // One that is the current one, too, is no second secret.
            SecretSlot::Retiring => {
                self.retiring_slot().is_some_and(|old| now < old.secret.until() && old.fingerprint != self.fingerprint)
            }
        }
    }

    /// The hash in this slot, where it is still needed.
    pub(crate) fn hash(&self, slot: SecretSlot) -> Option<&SecretHash> {
        match slot {
            SecretSlot::Current => self.rare.as_ref()?.current.as_ref(),
            SecretSlot::Retiring => self.retiring().map(RetiringSecret::secret),
        }
    }

    pub(crate) fn fingerprint(&self, slot: SecretSlot) -> Option<u64> {
        match slot {
            SecretSlot::Current => Some(self.fingerprint),
            SecretSlot::Retiring => self.retiring_slot().map(|old| old.fingerprint),
        }
    }

    /// By what the secret in this slot was proved, if it was.
    pub(crate) fn proof(&self, slot: SecretSlot) -> Option<&Tag> {
        match slot {
            SecretSlot::Current => self.proved.then_some(&self.tag),
            SecretSlot::Retiring => self.retiring_slot()?.tag.as_ref(),
        }
    }

    pub(crate) fn is_proved(&self) -> bool {
        SecretSlot::ALL.into_iter().any(|slot| self.proof(slot).is_some())
    }

    pub(crate) fn matches(&self, slot: SecretSlot, tag: &Tag) -> bool {
        self.proof(slot).is_some_and(|proof| proof.is(tag))
    }

    /// Notes that `tag` is the secret of every slot whose hash has this fingerprint. The text of a hash that is proved goes,
    /// unless a rotation is under way.
    pub(crate) fn note(&mut self, fingerprint: u64, tag: Tag) {
        if self.fingerprint == fingerprint {
            (self.tag, self.proved) = (tag, true);
        }
        let retiring = self.rare.as_mut().and_then(|rare| rare.retiring.as_mut());
        if let Some(old) = retiring.filter(|old| old.fingerprint == fingerprint) {
            old.tag = Some(tag);
        }
        self.tidy();
    }

    /// Lets go of what is not needed any more.
    fn tidy(&mut self) {
        let Some(rare) = &mut self.rare else { return };
        if self.proved && rare.retiring.is_none() {
            rare.current = None;
        }
        let empty = rare.current.is_none() && rare.retires_at.is_none() && rare.excuse.is_none();
        if empty && rare.attributes == Attributes::NONE {
            self.rare = None;
        }
    }

    /// Takes over the proofs that still hold for this record: those of hashes that it kept, wherever they stand now.
    pub(crate) fn carry_over(&mut self, from: &Self) {
        for slot in SecretSlot::ALL {
            if let (Some(tag), Some(fingerprint)) = (from.proof(slot), from.fingerprint(slot)) {
                self.note(fingerprint, *tag);
            }
        }
    }
}

/// A yes or no that changes while others read it.
#[derive(Debug, Default)]
pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, to: bool) {
        self.0.store(to, Ordering::Relaxed);
    }

    /// Whether this is the first time it is asked. Reading first keeps the line shared between cores: what is told of
    /// once is asked often.
    pub(crate) fn first(&self) -> bool {
        !self.is_set() && !self.0.swap(true, Ordering::Relaxed)
    }

    /// Whether it was set. It is not any more.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Clone for Flag {
    fn clone(&self) -> Self {
        Self(AtomicBool::new(self.is_set()))
    }
}

/// An entry's place in a bounded map: it changes under its shard's lock alone, but for the mark of use.
#[derive(Debug, Default)]
pub(crate) struct Place {
    /// Tells this entry from an earlier one of the same key that is still queued.
    ticket: AtomicU32,
    pub(crate) used: Flag,
}

impl Place {
    pub(crate) fn ticket(&self) -> u32 {
        self.ticket.load(Ordering::Relaxed)
    }

    pub(crate) fn enter(&self, ticket: u32, used: bool) {
        self.ticket.store(ticket, Ordering::Relaxed);
        self.used.set(used);
    }
}

/// A clone has no place yet.
impl Clone for Place {
    fn clone(&self) -> Self {
        Self::default()
    }
}
