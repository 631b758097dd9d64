//! Looking: one token, lists and reports. Nothing here changes anything, or leaves an event.

use std::time::Duration;

use super::error::ListError;
use super::issuer::TokenIssuer;
use super::manage::may_see;
use super::new_token::{SummaryPage, TokenSummary};
use crate::actor::Actor;
use crate::clock::Timestamp;
use crate::id::TokenId;
use crate::scope::Scope;
use crate::store::{Cursor, TokenFilter};
use crate::token::{TokenRecord, TokenState};

impl TokenIssuer {
    /// The token of this id; `None` where there is none, or none that the actor may see.
    ///
    /// # Errors
    /// [`ListError::Store`] when the store cannot answer.
    ///
    /// # Cancellation
    /// Nothing is changed.
    pub async fn find(&self, actor: &Actor, id: &TokenId) -> Result<Option<TokenSummary>, ListError> {
        let found = self.find_visible(actor, id).await.map_err(ListError::Store)?;
        Ok(found.as_ref().map(TokenSummary::from))
    }

    /// The tokens that the actor may see and the filter lets through, a page at a time.
    ///
    /// # Errors
    /// [`ListError::Store`] when the store cannot answer, or does not know the cursor.
    ///
    /// # Cancellation
    /// Nothing is changed.
    pub async fn list(
        &self,
        actor: &Actor,
        filter: TokenFilter,
        cursor: Option<&Cursor>,
    ) -> Result<SummaryPage, ListError> {
        self.page(actor, filter, cursor, |_| true).await
    }

    /// The tokens that will expire within a time: whose holders want to be told. The page may be short, or empty, though
    /// more follow: those that are dead already are left out.
    ///
    /// # Errors
    /// As for [`list`](Self::list).
    ///
    /// # Cancellation
    /// Nothing is changed.
    pub async fn expiring(
        &self,
        actor: &Actor,
        within: Duration,
        cursor: Option<&Cursor>,
    ) -> Result<SummaryPage, ListError> {
        let now = self.desk.clock.wall();
        let filter = TokenFilter::all().expires_before(now + within);
        self.page(actor, filter, cursor, |record| can_work(record, now)).await
    }

    /// The tokens that can still work and were neither made nor used for so long, as far as the store has been told: those
    /// to revoke. As for [`expiring`](Self::expiring), a page may be short.
    ///
    /// # Errors
    /// As for [`list`](Self::list).
    ///
    /// # Cancellation
    /// Nothing is changed.
    pub async fn unused(
        &self,
        actor: &Actor,
        idle: Duration,
        cursor: Option<&Cursor>,
    ) -> Result<SummaryPage, ListError> {
        let now = self.desk.clock.wall();
        let filter = TokenFilter::all().unused_since(now - idle);
        self.page(actor, filter, cursor, |record| can_work(record, now)).await
    }

    /// The read-write tokens that can still work, were used, and of which no write is known: those to
    /// [narrow](Self::narrow). As for [`expiring`](Self::expiring), a page may be short.
    ///
    /// # Errors
    /// As for [`list`](Self::list).
    ///
    /// # Cancellation
    /// Nothing is changed.
    pub async fn only_reading(&self, actor: &Actor, cursor: Option<&Cursor>) -> Result<SummaryPage, ListError> {
        let now = self.desk.clock.wall();
        let filter = TokenFilter::all().scope(Scope::ReadWrite).never_wrote();
        self.page(actor, filter, cursor, |record| record.last_used().is_some() && can_work(record, now)).await
    }

    async fn page(
        &self,
        actor: &Actor,
        filter: TokenFilter,
        cursor: Option<&Cursor>,
        keep: impl Fn(&TokenRecord) -> bool,
    ) -> Result<SummaryPage, ListError> {
        let Some(filter) = visible_part(actor, filter) else {
            return Ok(SummaryPage { tokens: Vec::new(), next: None });
        };
        let page = self.desk.registry.list(&filter, cursor).await.map_err(ListError::Store)?;
        // The filter says so already; a store that overlooks it must not show one user another's tokens.
        let shown = page.records.iter().filter(|record| may_see(actor, record) && keep(record));
        Ok(SummaryPage { tokens: shown.map(TokenSummary::from).collect(), next: page.next })
    }
}

/// The part of what a filter lets through that the actor may see, where there can be one.
pub(super) fn visible_part(actor: &Actor, filter: TokenFilter) -> Option<TokenFilter> {
    match (actor.permissions().on_behalf(), actor.owner()) {
        (true, _) => Some(filter),
        (false, Some(own)) if filter.owner.as_ref().is_none_or(|asked| asked == own) => Some(filter.owner(own.clone())),
        (false, _) => None,
    }
}

/// Whether it works, or would if it were resumed or its owner lifted.
pub(super) fn can_work(record: &TokenRecord, now: Timestamp) -> bool {
    record.state() != TokenState::Revoked && record.expires_at().is_none_or(|end| now < end)
}
