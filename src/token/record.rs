//! What a store keeps of a token, and what that means at a given time.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::clock::Timestamp;
use crate::id::{Label, OwnerId, TokenId};
use crate::scope::Scope;
use crate::secret::SecretHash;
use crate::token::{Attributes, CreatedBy};

/// A token as a store keeps it. Holds no secret, only hashes of one or two.
///
/// # Example
/// ```
/// use std::time::Duration;
/// use tower_token_auth::{Label, OwnerId, Scope, SecretHash, Timestamp, TokenRecord};
///
/// let now = Timestamp::from_unix_seconds(1_760_000_000);
/// let record = TokenRecord::new(
///     "0123456789abcdef".parse()?,
///     OwnerId::new("alice")?,
///     Label::new("nightly export")?,
///     Scope::ReadOnly,
///     SecretHash::parse("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2g")?,
///     now,
/// )
/// .with_expiry(Some(now + Duration::from_secs(90 * 24 * 3600)));
/// assert_eq!(record.owner().as_str(), "alice");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenRecord {
    id: TokenId,
    owner: OwnerId,
    created_by: CreatedBy,
    created_at: Timestamp,
    made_on_behalf_right: bool,
    label: Label,
    scope: Scope,
    expires_at: Option<Timestamp>,
    state: TokenState,
    revoked_at: Option<Timestamp>,
    owner_barred: bool,
    narrowed: bool,
    revision: Revision,
    secret: SecretHash,
    retiring: Option<RetiringSecret>,
    attributes: Attributes,
    last_used: Option<LastUsed>,
}

impl TokenRecord {
    /// A record of an active token that does not expire, made by its owner, in its first revision.
    #[must_use]
    pub fn new(
        id: TokenId,
        owner: OwnerId,
        label: Label,
        scope: Scope,
        secret: SecretHash,
        created_at: Timestamp,
    ) -> Self {
        Self {
            id,
            created_by: CreatedBy::User(owner.clone()),
            owner,
            created_at,
            made_on_behalf_right: false,
            label,
            scope,
            expires_at: None,
            state: TokenState::Active,
            revoked_at: None,
            owner_barred: false,
            narrowed: false,
            revision: Revision::FIRST,
            secret,
            retiring: None,
            attributes: Attributes::default(),
            last_used: None,
        }
    }

    /// Sets who made the token.
    #[must_use]
    pub fn with_created_by(self, created_by: CreatedBy) -> Self {
        Self { created_by, ..self }
    }

    /// Sets whether its maker had the right to create tokens on behalf of others at that time.
    #[must_use]
    pub fn with_made_on_behalf_right(self, made_on_behalf_right: bool) -> Self {
        Self { made_on_behalf_right, ..self }
    }

    /// Sets the label.
    #[must_use]
    pub fn with_label(self, label: Label) -> Self {
        Self { label, ..self }
    }

    /// Sets the scope.
    #[must_use]
    pub fn with_scope(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    /// Sets the first instant at which the token no longer works; `None` for never.
    #[must_use]
    pub fn with_expiry(self, expires_at: Option<Timestamp>) -> Self {
        Self { expires_at, ..self }
    }

    /// Sets the state.
    #[must_use]
    pub fn with_state(self, state: TokenState) -> Self {
        Self { state, ..self }
    }

    /// Sets when the token was revoked.
    #[must_use]
    pub fn with_revoked_at(self, revoked_at: Option<Timestamp>) -> Self {
        Self { revoked_at, ..self }
    }

    /// Sets whether the owner is barred, as the store found it beside the record.
    #[must_use]
    pub fn with_owner_barred(self, owner_barred: bool) -> Self {
        Self { owner_barred, ..self }
    }

    /// Sets whether today's policy limits the token to reading, as it was found beside the record.
    #[must_use]
    pub(crate) fn with_narrowed(self, narrowed: bool) -> Self {
        Self { narrowed, ..self }
    }

    /// Sets the revision.
    #[must_use]
    pub fn with_revision(self, revision: Revision) -> Self {
        Self { revision, ..self }
    }

    /// Sets the hash of the current secret.
    #[must_use]
    pub fn with_secret(self, secret: SecretHash) -> Self {
        Self { secret, ..self }
    }

    /// Sets the secret that a rotation is phasing out.
    #[must_use]
    pub fn with_retiring(self, retiring: Option<RetiringSecret>) -> Self {
        Self { retiring, ..self }
    }

    /// Sets the application's attributes.
    #[must_use]
    pub fn with_attributes(self, attributes: Attributes) -> Self {
        Self { attributes, ..self }
    }

    /// Sets when and from where the token was last used.
    #[must_use]
    pub fn with_last_used(self, last_used: Option<LastUsed>) -> Self {
        Self { last_used, ..self }
    }

    /// The token's public id.
    #[must_use]
    pub const fn id(&self) -> TokenId {
        self.id
    }

    /// Whose token it is.
    #[must_use]
    pub const fn owner(&self) -> &OwnerId {
        &self.owner
    }

    /// Who made it.
    #[must_use]
    pub const fn created_by(&self) -> &CreatedBy {
        &self.created_by
    }

    /// When it was made.
    #[must_use]
    pub const fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// Whether its maker had the right to create tokens on behalf of others at that time.
    #[must_use]
    pub const fn made_on_behalf_right(&self) -> bool {
        self.made_on_behalf_right
    }

    /// What people call it.
    #[must_use]
    pub const fn label(&self) -> &Label {
        &self.label
    }

    /// What it may do.
    #[must_use]
    pub const fn scope(&self) -> Scope {
        self.scope
    }

    /// The first instant at which it no longer works; `None` for never.
    #[must_use]
    pub const fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// Its state, apart from expiry.
    #[must_use]
    pub const fn state(&self) -> TokenState {
        self.state
    }

    /// When it was revoked, where that is known.
    #[must_use]
    pub const fn revoked_at(&self) -> Option<Timestamp> {
        self.revoked_at
    }

    /// Whether its owner is barred.
    #[must_use]
    pub const fn owner_barred(&self) -> bool {
        self.owner_barred
    }

    /// Whether today's policy limits it to reading.
    #[must_use]
    pub(crate) const fn narrowed(&self) -> bool {
        self.narrowed
    }

    /// How often the record has changed.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// The hash of the current secret.
    #[must_use]
    pub const fn secret(&self) -> &SecretHash {
        &self.secret
    }

    /// The secret that a rotation is phasing out, where there is one.
    #[must_use]
    pub const fn retiring(&self) -> Option<&RetiringSecret> {
        self.retiring.as_ref()
    }

    /// The application's attributes.
    #[must_use]
    pub const fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// When and from where it was last used, as far as the store has been told.
    #[must_use]
    pub const fn last_used(&self) -> Option<&LastUsed> {
        self.last_used.as_ref()
    }

    /// Orders what was known of an id at different times. A revision alone would not: a record that was pruned and then
    /// made again, as [`ensure`](crate::TokenIssuer::ensure) does, begins at the first.
    pub(crate) const fn version(&self) -> Version {
        Version { created_at: self.created_at, revision: self.revision }
    }

    /// Whether the token works at `now`: active, not expired, its owner not barred.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.check_live(now).is_ok()
    }

    /// Whether the token was dead for good before `time`: revoked or expired by then. What was revoked at an unknown
    /// time counts from its expiry alone.
    #[must_use]
    pub fn was_dead_before(&self, time: Timestamp) -> bool {
        let revoked = self.revoked_at.filter(|_| self.state == TokenState::Revoked);
        [revoked, self.expires_at].into_iter().flatten().any(|end| end < time)
    }

    pub(crate) fn check_live(&self, now: Timestamp) -> Result<(), DeadReason> {
        check_live(self.expires_at, self.state, self.owner_barred, now)
    }

    /// The hash of a secret that may be presented at `now`.
    pub(crate) fn live_secret(&self, slot: SecretSlot, now: Timestamp) -> Option<&SecretHash> {
        match slot {
            SecretSlot::Current => Some(&self.secret),
            // One that is the current one, too, is no second secret.
            SecretSlot::Retiring => {
                let retiring = self.retiring.as_ref().map(|old| (&old.secret, old.until));
                retiring.filter(|(old, until)| now < *until && **old != self.secret).map(|(old, _)| old)
            }
        }
    }
}

/// Whether a token with this end, in this state, works at `now`.
#[inline]
pub(crate) fn check_live(
    expires_at: Option<Timestamp>,
    state: TokenState,
    owner_barred: bool,
    now: Timestamp,
) -> Result<(), DeadReason> {
    if expires_at.is_some_and(|end| end <= now) {
        return Err(DeadReason::Expired);
    }
    match state {
        TokenState::Active if owner_barred => Err(DeadReason::OwnerBarred),
        TokenState::Active => Ok(()),
        TokenState::Paused => Err(DeadReason::Paused),
        TokenState::Revoked => Err(DeadReason::Revoked),
    }
}

/// Which record of an id it was, and how often it had changed: the greater is the newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    created_at: Timestamp,
    revision: Revision,
}

impl Version {
    /// Older than any.
    pub(crate) const NONE: Self = Self { created_at: Timestamp::from_unix_millis(0), revision: Revision::new(0) };

    pub(crate) const fn revision(self) -> Revision {
        self.revision
    }
}

/// Which of a token's secrets was presented.
///
/// The text form (`current`, `retiring`) is covered by semantic versioning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a rotation has an old and a new secret")]
pub enum SecretSlot {
    /// The secret of the newest text.
    Current,
    /// The one that a rotation is phasing out.
    Retiring,
}

impl SecretSlot {
    pub(crate) const ALL: [Self; 2] = [Self::Current, Self::Retiring];

    /// The stable text form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Retiring => "retiring",
        }
    }
}

impl fmt::Display for SecretSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a record's token does not work, whatever secret is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeadReason {
    Expired,
    Revoked,
    Paused,
    OwnerBarred,
}

/// A secret that a rotation is phasing out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetiringSecret {
    secret: SecretHash,
    until: Timestamp,
    successor_used: bool,
}

impl RetiringSecret {
    /// A secret that still works before `until`.
    #[must_use]
    pub const fn new(secret: SecretHash, until: Timestamp) -> Self {
        Self { secret, until, successor_used: false }
    }

    /// Sets whether the secret that takes its place has been used.
    #[must_use]
    pub fn with_successor_used(self, successor_used: bool) -> Self {
        Self { successor_used, ..self }
    }

    /// The hash of the secret.
    #[must_use]
    pub const fn secret(&self) -> &SecretHash {
        &self.secret
    }

    /// The first instant at which it no longer works.
    #[must_use]
    pub const fn until(&self) -> Timestamp {
        self.until
    }

    /// Whether the secret that takes its place has been used, as far as the store has been told. Until then a rotation
    /// that is repeated replaces that secret, not this one.
    #[must_use]
    pub const fn successor_used(&self) -> bool {
        self.successor_used
    }
}

/// A token's state, apart from expiry.
///
/// The text form (`active`, `paused`, `revoked`) is stable, for stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenState {
    /// It works.
    Active,
    /// It does not work until it is resumed.
    Paused,
    /// It will never work again.
    Revoked,
}

impl TokenState {
    /// The stable text form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Revoked => "revoked",
        }
    }
}

impl fmt::Display for TokenState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for TokenState {
    type Err = TokenStateError;

    fn from_str(text: &str) -> Result<Self, TokenStateError> {
        match text {
            "active" => Ok(Self::Active),
            "paused" => Ok(Self::Paused),
            "revoked" => Ok(Self::Revoked),
            _ => Err(TokenStateError(())),
        }
    }
}

/// A text is not a [`TokenState`]. A store that reads one refuses the record; it never guesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenStateError(());

impl fmt::Display for TokenStateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token's state is \"active\", \"paused\" or \"revoked\"")
    }
}

impl std::error::Error for TokenStateError {}

/// How often a record has changed: 1 when it is inserted, one more with each change.
///
/// A cache never lets an older revision replace a newer one, so a lagging replica cannot revive a revoked token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl Revision {
    /// The revision of a record that has never changed.
    pub const FIRST: Self = Self(1);

    /// The revision numbered `number`, as a store has kept it.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number, to be stored.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The revision after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// When a token was last used, and from where as far as the application told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastUsed {
    /// When.
    pub at: Timestamp,
    /// From which address.
    pub client_address: Option<IpAddr>,
    /// With which user agent, capped and cleaned.
    pub user_agent: Option<String>,
    /// When it last wrote, if it ever did: tells which read-write tokens only read.
    pub last_write: Option<Timestamp>,
}

impl LastUsed {
    /// A use at `at`, from nowhere in particular.
    #[must_use]
    pub const fn new(at: Timestamp) -> Self {
        Self { at, client_address: None, user_agent: None, last_write: None }
    }

    /// Sets the client's address.
    #[must_use]
    pub fn with_client_address(self, client_address: Option<IpAddr>) -> Self {
        Self { client_address, ..self }
    }

    /// Sets the client's user agent.
    #[must_use]
    pub fn with_user_agent(self, user_agent: Option<String>) -> Self {
        Self { user_agent, ..self }
    }

    /// Sets when it last wrote.
    #[must_use]
    pub fn with_last_write(self, last_write: Option<Timestamp>) -> Self {
        Self { last_write, ..self }
    }

    /// Both uses as one: the later, with the later write of the two.
    #[must_use]
    pub fn merged(self, other: &Self) -> Self {
        let last_write = self.last_write.max(other.last_write);
        let later = if other.at >= self.at { other.clone() } else { self };
        Self { last_write, ..later }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: fn(u64) -> Timestamp = Timestamp::from_unix_seconds;

    fn record() -> TokenRecord {
        TokenRecord::new(
            "0123456789abcdef".parse().unwrap(),
            OwnerId::from(1_u32),
            Label::new("l").unwrap(),
            Scope::ReadOnly,
            SecretHash::parse("$a$current").unwrap(),
            T(0),
        )
    }

    #[test]
    fn a_token_lives_until_exactly_its_expiry() {
        let record = record().with_expiry(Some(T(100)));
        assert_eq!(record.check_live(T(99)), Ok(()));
        assert_eq!(record.check_live(T(100)), Err(DeadReason::Expired));
    }

    #[test]
    fn every_state_is_judged() {
        assert_eq!(record().check_live(T(1)), Ok(()));
        assert_eq!(record().with_state(TokenState::Paused).check_live(T(1)), Err(DeadReason::Paused));
        assert_eq!(record().with_state(TokenState::Revoked).check_live(T(1)), Err(DeadReason::Revoked));
        assert_eq!(record().with_owner_barred(true).check_live(T(1)), Err(DeadReason::OwnerBarred));
        let long_dead = record().with_state(TokenState::Revoked).with_expiry(Some(T(1)));
        assert_eq!(long_dead.check_live(T(1)), Err(DeadReason::Expired));
    }

    #[test]
    fn a_retiring_secret_ends_with_its_overlap() {
        let old = SecretHash::parse("$a$old").unwrap();
        let record = record().with_retiring(Some(RetiringSecret::new(old.clone(), T(10))));
        assert_eq!(record.live_secret(SecretSlot::Retiring, T(9)), Some(&old));
        assert_eq!(record.live_secret(SecretSlot::Retiring, T(10)), None);
        assert!(record.live_secret(SecretSlot::Current, T(10)).is_some());
    }

    #[test]
    fn a_token_is_dead_from_its_end_on_and_a_paused_one_is_not() {
        let expired = record().with_expiry(Some(T(10)));
        assert!(expired.was_dead_before(T(11)) && !expired.was_dead_before(T(10)));
        let revoked = record().with_state(TokenState::Revoked).with_revoked_at(Some(T(10)));
        assert!(revoked.was_dead_before(T(11)) && !revoked.was_dead_before(T(10)));
        assert!(!record().with_state(TokenState::Revoked).was_dead_before(T(99)), "revoked, nobody knows when");
        assert!(!record().with_state(TokenState::Paused).was_dead_before(T(99)));
    }

    #[test]
    fn merged_uses_keep_the_later_use_and_the_later_write() {
        let (reads, writes) = (LastUsed::new(T(9)), LastUsed::new(T(5)).with_last_write(Some(T(5))));
        let merged = reads.clone().with_last_write(Some(T(5)));
        assert_eq!((reads.clone().merged(&writes), writes.merged(&reads)), (merged.clone(), merged));
    }

    #[test]
    fn an_unknown_stored_state_is_an_error() {
        for state in [TokenState::Active, TokenState::Paused, TokenState::Revoked] {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        for wrong in ["", "Active", "deleted"] {
            assert!(wrong.parse::<TokenState>().is_err(), "{wrong:?}");
        }
    }
}
