//! What the SQL stores share: the names, the statements, how a record becomes a row.
//!
//! Each method of the registry is one statement, or a read and a statement that writes only if nothing has changed in
//! between; so each is atomic without a transaction that somebody who leaves could keep open. Changes are told by
//! triggers, in the transaction of the change: whoever writes to the tables, also by hand, is heard.

mod error;
mod history;
mod names;
mod notice;
#[cfg(feature = "postgres")]
mod postgres;
mod registry;
mod row;
#[cfg(feature = "sqlite")]
mod sqlite;
mod statement;

use crate::decision::StoreError;

pub use history::{HistoryWriter, SqlHistory, SqlHistoryBuilder};
pub use names::SqlNameError;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresFeed, PostgresStore};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteFeed, SqliteStore};

/// The migrations that a database of this version has not seen.
fn pending<'a>(migrations: &'a [&'a str], version: i64) -> Result<&'a [&'a str], StoreError> {
    let seen = usize::try_from(version).ok();
    let pending = seen.and_then(|seen| migrations.get(seen..));
    pending.ok_or_else(|| {
        StoreError::new(format!("the tables are of version {version}, which this release does not know"))
    })
}

/// Binds the values of a statement to a query of `sqlx`.
macro_rules! bound {
    ($statement:expr) => {
        $statement.values.into_iter().fold(sqlx::query(sqlx::AssertSqlSafe($statement.sql)), |query, value| match value
        {
            crate::store::sql::statement::Value::Text(text) => query.bind(text),
            crate::store::sql::statement::Value::Number(number) => query.bind(number),
            crate::store::sql::statement::Value::Flag(flag) => query.bind(flag),
        })
    };
}

use bound;
