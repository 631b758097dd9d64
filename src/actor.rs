//! Who acts at the desk, and what they may do there.

use crate::clock::Timestamp;
use crate::decision::AuthenticatedToken;
use crate::id::{Label, OwnerId};
use crate::scope::Scope;
use crate::text::TextError;
use crate::token::CreatedBy;

/// What a user or a token may do at the desk. Nothing, unless said.
///
/// # Example
/// ```
/// use tower_token_auth::Permissions;
///
/// let ordinary = Permissions::none().and_create();
/// let support = ordinary.and_on_behalf();
/// let administrator = support.and_administer();
/// assert!(support.on_behalf() && !ordinary.on_behalf());
/// assert!(administrator.administer() && !support.administer());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions {
    create: bool,
    on_behalf: bool,
    administer: bool,
}

impl Permissions {
    /// No permission at all.
    #[must_use]
    pub const fn none() -> Self {
        Self { create: false, on_behalf: false, administer: false }
    }

    /// Also to create tokens for oneself.
    #[must_use]
    pub const fn and_create(self) -> Self {
        Self { create: true, ..self }
    }

    /// Also to create tokens for others, and to see and change theirs.
    #[must_use]
    pub const fn and_on_behalf(self) -> Self {
        Self { on_behalf: true, ..self }
    }

    /// Also to change the issue policy, to bar and lift owners, and to prune. Says nothing of tokens: who shall also
    /// see and change those of others needs [`and_on_behalf`](Self::and_on_behalf).
    #[must_use]
    pub const fn and_administer(self) -> Self {
        Self { administer: true, ..self }
    }

    /// Whether tokens for oneself may be created.
    #[must_use]
    pub const fn create(self) -> bool {
        self.create
    }

    /// Whether tokens for others may be created, seen and changed.
    #[must_use]
    pub const fn on_behalf(self) -> bool {
        self.on_behalf
    }

    /// Whether the issue policy may be changed, owners barred and lifted, and dead records pruned.
    #[must_use]
    pub const fn administer(self) -> bool {
        self.administer
    }
}

/// Who asks the desk for something: a user, a program with a token, or the application itself.
///
/// The application says who it is; the desk believes it. Build an actor from *its* session, never from a request's
/// parameters.
#[derive(Debug, Clone)]
pub struct Actor(Kind);

#[derive(Debug, Clone)]
enum Kind {
    User { owner: Result<OwnerId, TextError>, permissions: Permissions },
    Token { token: AuthenticatedToken, permissions: Permissions },
    System { why: Result<Label, TextError> },
}

impl Actor {
    /// A user of the application, with the permissions the application grants.
    ///
    /// An owner that cannot be one (empty, control characters) is refused by the desk, not here.
    pub fn user<O: TryInto<OwnerId, Error: Into<TextError>>>(owner: O, permissions: Permissions) -> Self {
        Self(Kind::User { owner: owner.try_into().map_err(Into::into), permissions })
    }

    /// A program that presented a token. It acts as the token's owner, and can never make a token that does more than
    /// it can do now, or works longer than the secret it has presented. Pass [`Permissions::none`] unless programs shall
    /// make tokens at all.
    ///
    /// # Security
    /// Without any permission it can still see its owner's tokens, and stop them: revoke, pause, narrow, expire earlier.
    #[must_use]
    pub fn token(token: &AuthenticatedToken, permissions: Permissions) -> Self {
        Self(Kind::Token { token: token.clone(), permissions })
    }

    /// The application itself, which may do everything, and why it acts: `Actor::system("bootstrap")`.
    pub fn system<L: TryInto<Label, Error: Into<TextError>>>(why: L) -> Self {
        Self(Kind::System { why: why.try_into().map_err(Into::into) })
    }

    /// The name under which the actor goes into records and audit events.
    pub(crate) fn name(&self) -> Result<CreatedBy, TextError> {
        match &self.0 {
            Kind::User { owner, .. } => owner.clone().map(CreatedBy::User),
            Kind::Token { token, .. } => Ok(CreatedBy::Token(token.id())),
            Kind::System { why } => why.clone().map(CreatedBy::System),
        }
    }

    /// Whether `owner` is the actor's own.
    pub(crate) fn is(&self, owner: &OwnerId) -> bool {
        self.owner() == Some(owner)
    }

    /// The owner whose tokens are the actor's own; the system has none.
    pub(crate) fn owner(&self) -> Option<&OwnerId> {
        match &self.0 {
            Kind::User { owner, .. } => owner.as_ref().ok(),
            Kind::Token { token, .. } => Some(token.owner()),
            Kind::System { .. } => None,
        }
    }

    /// What the actor may do; the system may do everything.
    pub(crate) fn permissions(&self) -> Permissions {
        match &self.0 {
            Kind::User { permissions, .. } | Kind::Token { permissions, .. } => *permissions,
            Kind::System { .. } => Permissions::none().and_create().and_on_behalf().and_administer(),
        }
    }

    /// The greatest scope and latest expiry of what it makes, where the actor is itself a token. A secret that is being
    /// phased out makes nothing that outlives it: otherwise whoever has stolen it would keep what a rotation ends.
    pub(crate) fn ceiling(&self) -> Option<(Scope, Option<Timestamp>)> {
        match &self.0 {
            Kind::Token { token, .. } => Some((token.scope(), token.works_until())),
            Kind::User { .. } | Kind::System { .. } => None,
        }
    }
}
