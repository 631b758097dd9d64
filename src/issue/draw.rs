//! Drawing a secret and hashing it, on the crew that also verifies.

use std::sync::Arc;

use futures_util::future::{Either, select};

use super::issuer::TokenIssuer;
use crate::base62::RandomError;
use crate::hash::{HashCost, HashError, Scratch};
use crate::id::TokenId;
use crate::secret::{SecretHash, TokenSecret};
use crate::verify::JobKey;

/// Why there is no new secret.
#[derive(Debug)]
pub(super) enum DrawError {
    Random(RandomError),
    Hash(HashError),
    Busy,
}

impl TokenIssuer {
    /// A new secret, and what a store may keep of it.
    pub(super) async fn draw(&self, id: TokenId) -> Result<(TokenSecret, SecretHash), DrawError> {
        let secret = TokenSecret::generate().map_err(DrawError::Random)?;
        let hash = self.hash(id, secret.clone()).await?.with_precheck(&id, &secret);
        Ok((secret, hash))
    }

    async fn hash(&self, id: TokenId, secret: TokenSecret) -> Result<SecretHash, DrawError> {
        let (hasher, limits) = (Arc::clone(&self.desk.hasher), &self.desk.limits);
        let hash = move |scratch: &mut Scratch| hasher.hash(&secret, scratch);
        if self.desk.hasher.cost() == HashCost::Inline {
            return hash(&mut Scratch::new()).map_err(DrawError::Hash);
        }
        let key = JobKey { gate: self.queue, id };
        let hashed = self.desk.crew.run(key, limits, hash).map_err(|_busy| DrawError::Busy)?;
        match select(hashed, self.desk.clock.sleep(limits.wait)).await {
            Either::Left((Ok(hashed), _)) => hashed.map_err(DrawError::Hash),
            Either::Left((Err(_), _)) => Err(DrawError::Hash(HashError::Failed("the hasher panicked".into()))),
            Either::Right(_) => Err(DrawError::Busy),
        }
    }
}
