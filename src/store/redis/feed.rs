//! The stream of changes.
//!
//! Each entry carries a number, one more than the entry before. A number that is missing is a change that was not seen:
//! the stream was trimmed past our position, emptied, or is another one after a failover. Then the feed is an error, and
//! the gate distrusts everything.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::streams::{StreamId, StreamRangeReply, StreamReadReply};
use redis::{AsyncConnectionConfig, Client, RedisError};

use super::keys::Keys;
use crate::decision::StoreError;
use crate::id::{OwnerId, TokenId};
use crate::store::{ChangeFeed, Notice};
use crate::token::Revision;

/// How long Redis waits for a change before it says that there is none, which is the heartbeat.
const BLOCK: Duration = Duration::from_secs(1);
/// How long an answer may take, waiting included: then the other side is gone.
const ANSWER: Duration = Duration::from_secs(3);
const CONNECT: Duration = Duration::from_secs(3);
/// Entries of one answer.
const READ_AT_ONCE: usize = 1_000;

/// Tells of the changes that any process makes in a [`RedisStore`](super::RedisStore), whose
/// [`feed`](super::RedisStore::feed) makes it. Give it to [`AuthHandle::follow`](crate::AuthHandle::follow).
///
/// A change arrives with the next answer of the server, in a millisecond or so. A server that is silently gone is noticed
/// within 3 s. A feed that falls more than some 10,000 changes behind has missed some: everything is distrusted then.
pub struct RedisFeed {
    client: Client,
    keys: Keys,
    connection: Option<MultiplexedConnection>,
    position: Position,
    waiting: VecDeque<Notice>,
}

/// The last entry that was read: what Redis calls it, and its number.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Position {
    entry: String,
    number: u64,
}

impl RedisFeed {
    pub(super) fn new(client: Client, keys: Keys) -> Self {
        let position = Position { entry: String::new(), number: 0 };
        Self { client, keys, connection: None, position, waiting: VecDeque::new() }
    }

    /// Reads what there is, or waits for it. Dropped, nothing is lost: what is not accepted is read again.
    async fn read(&mut self) -> Result<(), StoreError> {
        let connection = self.connection.as_mut().ok_or_else(|| StoreError::new("the feed is not connected"))?;
        let reply: Option<StreamReadReply> = redis::cmd("XREAD")
            .arg("COUNT")
            .arg(READ_AT_ONCE)
            .arg("BLOCK")
            .arg(BLOCK.as_secs() * 1_000)
            .arg("STREAMS")
            .arg(self.keys.changes())
            .arg(&self.position.entry)
            .query_async(connection)
            .await
            .map_err(StoreError::new)?;
        match reply {
            Some(reply) => {
                reply.keys.into_iter().flat_map(|stream| stream.ids).try_for_each(|entry| self.accept(&entry))
            }
            // Nothing is newer than our position. In another stream nothing may ever be.
            None => match end(connection, &self.keys).await.map_err(StoreError::new)?.may_follow(&self.position) {
                true => Ok(()),
                false => Err(StoreError::new(Gap)),
            },
        }
    }

    fn accept(&mut self, entry: &StreamId) -> Result<(), StoreError> {
        match entry.get::<u64>("n") {
            Some(number) if number == self.position.number + 1 => self.position.number = number,
            Some(_) => return Err(StoreError::new(Gap)),
            // Not from a store. It can only make gates ask.
            None => {}
        }
        self.position.entry.clone_from(&entry.id);
        self.waiting.push_back(notice(entry));
        Ok(())
    }
}

/// What an entry tells; of one that says nothing intelligible, that anything may have changed.
fn notice(entry: &StreamId) -> Notice {
    let text = |field: &str| entry.get::<String>(field);
    if let Some(id) = text("id").and_then(|id| id.parse::<TokenId>().ok()) {
        let revision = text("revision").and_then(|revision| revision.parse().ok());
        return Notice::Token { id, revision: revision.map(Revision::new) };
    }
    text("owner").and_then(|owner| OwnerId::new(owner).ok()).map_or(Notice::All, Notice::Owner)
}

/// The position from which all that is to come is read.
async fn end(connection: &mut MultiplexedConnection, keys: &Keys) -> Result<Position, RedisError> {
    let mut both = redis::pipe();
    both.atomic().cmd("XREVRANGE").arg(keys.changes()).arg("+").arg("-").arg("COUNT").arg(1);
    both.cmd("GET").arg(keys.change_count());
    let (last, number): (StreamRangeReply, Option<u64>) = both.query_async(connection).await?;
    let entry = last.ids.into_iter().next().map_or_else(|| "0-0".to_owned(), |entry| entry.id);
    Ok(Position { entry, number: number.unwrap_or(0) })
}

impl Position {
    /// Whether the stream that ends here can be the one that was read up to `seen`.
    fn may_follow(&self, seen: &Self) -> bool {
        self == seen || self.order() > seen.order()
    }

    /// What Redis orders entries by: a time and a number within it.
    fn order(&self) -> Option<(u64, u64)> {
        let (time, within) = self.entry.split_once('-')?;
        Some((time.parse().ok()?, within.parse().ok()?))
    }
}

impl ChangeFeed for RedisFeed {
    async fn connect(&mut self) -> Result<(), StoreError> {
        self.connection = None;
        self.waiting.clear();
        let limits =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(ANSWER));
        let connecting = self.client.get_multiplexed_async_connection_with_config(&limits);
        let mut connection = connecting.await.map_err(StoreError::new)?;
        self.position = end(&mut connection, &self.keys).await.map_err(StoreError::new)?;
        self.connection = Some(connection);
        Ok(())
    }

    async fn next(&mut self) -> Result<Notice, StoreError> {
        loop {
            if let Some(notice) = self.waiting.pop_front() {
                return Ok(notice);
            }
            self.read().await?;
        }
    }
}

impl fmt::Debug for RedisFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the client, which knows a password.
        let mut shown = f.debug_struct("RedisFeed");
        shown.field("keys", &self.keys).field("position", &self.position).field("waiting", &self.waiting);
        shown.finish_non_exhaustive()
    }
}

/// Changes were missed.
#[derive(Debug)]
struct Gap;

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("some changes are missing in the stream")
    }
}

impl std::error::Error for Gap {}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    const ID: &str = "0123456789abcdef";

    fn entry(id: &str, fields: &[(&str, &str)]) -> StreamId {
        let value = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let map = fields.iter().map(|(name, text)| ((*name).to_owned(), value(text))).collect();
        StreamId { id: id.to_owned(), map, ..StreamId::default() }
    }

    fn feed() -> RedisFeed {
        let mut feed = RedisFeed::new(Client::open("redis://localhost").unwrap(), Keys::default());
        feed.position = Position { entry: "5-0".to_owned(), number: 7 };
        feed
    }

    #[test]
    fn entries_tell_of_a_token_an_owner_or_anything() {
        let id = ID.parse().unwrap();
        let alice = OwnerId::new("alice").unwrap();
        for (fields, told) in [
            (&[("id", ID), ("revision", "3")][..], Notice::Token { id, revision: Some(Revision::new(3)) }),
            (&[("id", ID), ("revision", "three")], Notice::Token { id, revision: None }),
            (&[("id", ID)], Notice::Token { id, revision: None }),
            (&[("owner", "alice")], Notice::Owner(alice)),
            (&[("owner", "a\nb")], Notice::All),
            (&[("id", "short")], Notice::All),
            (&[("trust", ID)], Notice::All),
            (&[], Notice::All),
        ] {
            assert_eq!(notice(&entry("6-0", fields)), told, "{fields:?}");
        }
    }

    #[test]
    fn a_number_that_is_left_out_is_a_gap() {
        let mut feed = feed();
        feed.accept(&entry("6-0", &[("n", "8"), ("id", ID)])).unwrap();
        feed.accept(&entry("6-1", &[("owner", "forged")])).unwrap();
        feed.accept(&entry("7-0", &[("n", "9"), ("owner", "alice")])).unwrap();
        assert_eq!(feed.waiting.len(), 3);
        assert_eq!(feed.position, Position { entry: "7-0".to_owned(), number: 9 });
        for gap in ["9", "11", "1", "18446744073709551615"] {
            feed.accept(&entry("8-0", &[("n", gap)])).expect_err(gap);
        }
    }

    #[test]
    fn a_stream_that_ends_before_our_position_is_another_one() {
        let seen = Position { entry: "5-3".to_owned(), number: 7 };
        for (entry, number, may) in [
            ("5-3", 7, true),
            ("5-10", 8, true),
            ("10-0", 8, true),
            ("5-3", 6, false),
            ("5-2", 7, false),
            ("4-9", 7, false),
            ("0-0", 0, false),
        ] {
            assert_eq!(Position { entry: entry.to_owned(), number }.may_follow(&seen), may, "{entry} {number}");
        }
    }
}
