//! The policy at use: what today's policy leaves of tokens that were issued under another.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::id::TokenId;
use crate::issue::ErasedPolicy;
use crate::scope::Scope;
use crate::store::{ErasedStore, FindError, FindResult};
use crate::token::{TokenRecord, TokenState};

/// A store whose records say whether today's policy limits them to reading.
pub(super) struct Narrowing {
    store: Arc<dyn ErasedStore>,
    policy: Arc<dyn ErasedPolicy>,
}

impl Narrowing {
    pub(super) fn new(store: Arc<dyn ErasedStore>, policy: Arc<dyn ErasedPolicy>) -> Self {
        Self { store, policy }
    }
}

impl ErasedStore for Narrowing {
    fn find(self: Arc<Self>, id: TokenId) -> BoxFuture<'static, FindResult> {
        Box::pin(async move {
            match Arc::clone(&self.store).find(id).await? {
                Some(record) if is_subject(&record) => {
                    let policy = self.policy.policy().await.map_err(FindError::Policy)?;
                    Ok(Some(record.with_narrowed(policy.is_read_only_forced())))
                }
                other => Ok(other),
            }
        })
    }
}

/// Whether a policy could limit what this token does. None is asked for one that only reads, for one whose maker might
/// create others' tokens (the switch binds only those who may not), and for one that works under no policy.
fn is_subject(record: &TokenRecord) -> bool {
    let works = record.state() != TokenState::Revoked && !record.owner_barred();
    works && !record.made_on_behalf_right() && !Scope::ReadOnly.covers(record.scope())
}
