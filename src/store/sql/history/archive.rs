//! What a history needs of a database.

use futures_util::future::BoxFuture;

use super::event::Stored;
use super::seen::{Place, Seen, SeenRow};
use super::statements::{BatchKey, HistoryStatements};
use crate::audit::AuditEvent;
use crate::decision::StoreError;
use crate::store::sql::statement::Statement;

/// A database, without its type: a history of any can be chosen at run time.
pub(in crate::store::sql) trait Archive: Send + Sync {
    fn statements(&self) -> &HistoryStatements;

    /// Writes a batch and counts it, all or nothing, and once.
    fn append<'a>(&'a self, key: BatchKey, events: &'a [Box<AuditEvent<'static>>]) -> Answer<'a, ()>;

    /// How many rows a statement has changed, in a turn of its own: what a batch brings back meanwhile is not forgotten.
    fn change(&self, statement: Statement) -> Answer<'_, u64>;

    fn events(&self, statement: Statement) -> Answer<'_, Vec<Stored>>;

    fn seen(&self, statement: Statement) -> Answer<'_, Vec<SeenRow>>;
}

pub(in crate::store::sql) type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// A transaction, during which no other writes history: that makes places of applications the same for all, and lets no
/// two batches wait for each other in a circle.
pub(in crate::store::sql) trait Transaction: Send {
    fn change(&mut self, statement: Statement) -> impl Future<Output = Result<u64, StoreError>> + Send;

    fn places(&mut self, statement: Statement) -> impl Future<Output = Result<Vec<Place>, StoreError>> + Send;

    fn commit(self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

pub(in crate::store::sql) async fn append(
    mut transaction: impl Transaction,
    statements: &HistoryStatements,
    key: BatchKey,
    events: &[Box<AuditEvent<'static>>],
) -> Result<(), StoreError> {
    if transaction.change(statements.begin(key)).await? == 0 {
        return Ok(());
    }
    let events = || events.iter().map(|event| &**event);
    for insert in statements.events(events()) {
        transaction.change(insert).await?;
    }
    let seen = Seen::of(events());
    for merge in statements.tokens(&seen).into_iter().chain(statements.claims(&seen)) {
        transaction.change(merge).await?;
    }
    let mut places = Vec::new();
    for select in statements.places(&seen) {
        places.extend(transaction.places(select).await?);
    }
    for merge in statements.applications(seen.placed(places)) {
        transaction.change(merge).await?;
    }
    transaction.commit().await
}

/// Makes a store an [`Archive`], and its transactions ones of history.
macro_rules! archive {
    ($store:ty, $transaction:ty) => {
        const _: () = {
            use crate::store::sql::history::{
                Answer, Archive, BatchKey, HistoryStatements, HistoryWriter, Place, SeenRow, SqlHistory,
                SqlHistoryBuilder, Stored, Transaction, append, place, seen_row, stored,
            };

            impl Archive for $store {
                fn statements(&self) -> &HistoryStatements {
                    &self.history
                }

                fn append<'a>(
                    &'a self,
                    key: BatchKey,
                    events: &'a [Box<crate::audit::AuditEvent<'static>>],
                ) -> Answer<'a, ()> {
                    Box::pin(async move {
                        let transaction = self.begin_history().await.map_err(failed)?;
                        append(transaction, &self.history, key, events).await
                    })
                }

                fn change(&self, statement: Statement) -> Answer<'_, u64> {
                    Box::pin(async move {
                        let mut transaction = self.begin_history().await.map_err(failed)?;
                        let changed = transaction.change(statement).await?;
                        transaction.commit().await.map(|()| changed)
                    })
                }

                fn events(&self, statement: Statement) -> Answer<'_, Vec<Stored>> {
                    Box::pin(async move {
                        let rows = bound!(statement).fetch_all(&self.pool).await.map_err(failed)?;
                        rows.iter().map(stored).collect()
                    })
                }

                fn seen(&self, statement: Statement) -> Answer<'_, Vec<SeenRow>> {
                    Box::pin(async move {
                        let rows = bound!(statement).fetch_all(&self.pool).await.map_err(failed)?;
                        rows.iter().map(seen_row).collect()
                    })
                }
            }

            impl Transaction for $transaction {
                async fn change(&mut self, statement: Statement) -> Result<u64, StoreError> {
                    let done = bound!(statement).execute(&mut *self.transaction).await.map_err(failed)?;
                    Ok(done.rows_affected())
                }

                async fn places(&mut self, statement: Statement) -> Result<Vec<Place>, StoreError> {
                    let rows = bound!(statement).fetch_all(&mut *self.transaction).await.map_err(failed)?;
                    rows.iter().map(place).collect()
                }

                async fn commit(self) -> Result<(), StoreError> {
                    self.transaction.commit().await.map_err(failed)
                }
            }

            impl $store {
                /// An audit history in this database, and the writer that is to be spawned on tokio: see
                /// [`SqlHistory`](crate::SqlHistory). Needs the tables of [`migrate`](Self::migrate). Each call makes another
                /// queue and another writer: call it once a process, and before the store goes into an
                /// [`AnyStore`](crate::AnyStore).
                pub fn history(&self) -> (SqlHistory, HistoryWriter) {
                    self.history_builder().build_unchecked()
                }

                /// An audit history in this database, to be configured.
                pub fn history_builder(&self) -> SqlHistoryBuilder {
                    SqlHistoryBuilder::new(std::sync::Arc::new(self.clone()))
                }
            }
        };
    };
}

pub(in crate::store::sql) use archive;
