//! Tokens in one line, without a desk.

use std::error::Error as StdError;
use std::fmt;

use super::ManualClock;
use crate::base62::RandomError;
use crate::hash::{HashError, Scratch, SecretHasher, Sha256Hasher};
use crate::id::{Label, OwnerId};
use crate::scope::Scope;
use crate::store::{InsertError, TokenRegistry};
use crate::text::TextError;
use crate::token::{PlaintextToken, Prefix, TokenRecord};

/// Makes a token of `owner` that does not expire, with the prefix `tta`, and puts its record into `store`.
///
/// Its secret is hashed with [`Sha256Hasher`], so that a test does not wait for argon2. A gate recognises it only when
/// it was built with `.hasher(Sha256Hasher::new())` or `.also_accept(Sha256Hasher::new())`; any other answers 503.
/// To be issued by the rules, a token is asked for at the desk.
///
/// # Errors
/// [`MintError::Owner`] when the owner is not acceptable, [`MintError::Random`] when the system has no random bytes,
/// [`MintError::Hash`] when hashing fails, [`MintError::Insert`] when the store does not take the record.
///
/// # Cancellation
/// Dropped, it has put the record into the store or not, as the store's [`insert`](TokenRegistry::insert) does.
///
/// # Example
/// ```
/// use tower_token_auth::test_util::mint;
/// use tower_token_auth::{MemoryStore, Scope};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new();
/// let token = mint(&store, "alice", Scope::ReadWrite).await?;
/// let authorization = format!("Bearer {}", token.expose());
/// # assert!(authorization.starts_with("Bearer tta_"));
/// # Ok(())
/// # }
/// ```
pub async fn mint(store: &impl TokenRegistry, owner: &str, scope: Scope) -> Result<PlaintextToken, MintError> {
    let (token, record) = draft(owner, scope)?;
    store.insert(record).await.map_err(MintError::Insert)?;
    Ok(token)
}

/// The same token as [`mint`] makes and its record, which is in no store yet: change it (an expiry, a state) and insert
/// it. What [`mint`] says of hashers holds here too.
///
/// # Errors
/// As [`mint`], apart from [`MintError::Insert`].
pub fn draft(owner: &str, scope: Scope) -> Result<(PlaintextToken, TokenRecord), MintError> {
    draft_with(&Sha256Hasher::new(), &Prefix::default(), owner, scope)
}

/// As [`draft`], with a hasher and a prefix of the caller's choice, which the gate has to accept.
///
/// The record carries a precheck, is labelled `test token` and was made by its owner at [`ManualClock::START`].
///
/// # Errors
/// As [`draft`].
///
/// # Cost
/// One hash, on this thread: 20 ms and more with [`Argon2Hasher`](crate::Argon2Hasher).
pub fn draft_with(
    hasher: &dyn SecretHasher,
    prefix: &Prefix,
    owner: &str,
    scope: Scope,
) -> Result<(PlaintextToken, TokenRecord), MintError> {
    let owner = OwnerId::new(owner).map_err(MintError::Owner)?;
    let label = Label::new("test token").map_err(MintError::Owner)?;
    let token = PlaintextToken::generate(prefix).map_err(MintError::Random)?;
    let hash = hasher.hash(token.secret(), &mut Scratch::new()).map_err(MintError::Hash)?;
    let hash = hash.with_precheck(&token.id(), token.secret());
    let record = TokenRecord::new(token.id(), owner, label, scope, hash, ManualClock::START);
    Ok((token, record))
}

/// Why a token could not be minted.
#[derive(Debug)]
#[non_exhaustive]
pub enum MintError {
    /// The owner is not acceptable.
    Owner(TextError),
    /// There are no random bytes for an id and a secret.
    Random(RandomError),
    /// The secret could not be hashed.
    Hash(HashError),
    /// The store did not take the record.
    Insert(InsertError),
}

impl fmt::Display for MintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owner(_) => "the owner is not acceptable",
            Self::Random(_) => "no random token could be drawn",
            Self::Hash(_) => "the secret could not be hashed",
            Self::Insert(_) => "the store did not take the token",
        })
    }
}

impl StdError for MintError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(match self {
            Self::Owner(error) => error,
            Self::Random(error) => error,
            Self::Hash(error) => error,
            Self::Insert(error) => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MemoryStore, TokenFilter, TokenStore};
    use crate::token::ParsedToken;

    #[tokio::test]
    async fn a_minted_token_is_whole_and_in_the_store() {
        let store = MemoryStore::new();
        let token = mint(&store, "alice", Scope::ReadOnly).await.unwrap();
        let parsed = ParsedToken::parse(token.expose().as_bytes(), [&Prefix::default()]).unwrap();
        let record = store.find(&parsed.id).await.unwrap().unwrap();
        assert_eq!((record.owner().as_str(), record.scope()), ("alice", Scope::ReadOnly));
        assert!(Sha256Hasher::new().verify(&parsed.secret, record.secret(), &mut Scratch::new()).unwrap());
        assert!(record.secret().to_text().starts_with("$tta$"), "it carries a precheck");
        assert!(!record.secret().rules_out(&parsed.id, &parsed.secret));
    }

    #[tokio::test]
    async fn a_bad_owner_is_an_error_and_nothing_is_stored() {
        let store = MemoryStore::new();
        let minted = mint(&store, "", Scope::ReadOnly).await;
        assert!(matches!(minted, Err(MintError::Owner(TextError::Empty))), "{minted:?}");
        assert!(store.list(&TokenFilter::all(), None).await.unwrap().records.is_empty());
    }
}
