//! A record as the fields of a hash.
//!
//! Every field is text, and absent where there is nothing. What can not be read refuses the record: an unknown scope or
//! state, and also an unknown field, with which a later version may have limited the token.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::clock::Timestamp;
use crate::decision::StoreError;
use crate::id::{Label, OwnerId, TokenId};
use crate::scope::Scope;
use crate::secret::SecretHash;
use crate::token::{Attributes, CreatedBy, LastUsed, RetiringSecret, Revision, TokenRecord, TokenState};

pub(super) type Fields = HashMap<String, String>;

/// No text of an attribute holds a control character.
const BETWEEN_ATTRIBUTES: &str = "\n";

/// All that a change may change, and all else but the last use: fields to be set, and `None` to be removed.
pub(super) fn encode(record: &TokenRecord) -> Vec<(&'static str, Option<String>)> {
    let retiring = record.retiring();
    let attributes: Vec<_> = record.attributes().iter().flat_map(|(name, value)| [name, value]).collect();
    vec![
        ("owner", Some(record.owner().to_string())),
        ("created_by", Some(record.created_by().to_string())),
        ("created_at", Some(time(record.created_at()))),
        ("on_behalf", Some(flag(record.made_on_behalf_right()))),
        ("label", Some(record.label().to_string())),
        ("scope", Some(record.scope().to_string())),
        ("expires_at", record.expires_at().map(time)),
        ("state", Some(record.state().to_string())),
        ("revoked_at", record.revoked_at().map(time)),
        ("revision", Some(record.revision().number().to_string())),
        ("secret", Some(record.secret().to_text())),
        ("retiring_secret", retiring.map(|retiring| retiring.secret().to_text())),
        ("retiring_until", retiring.map(|retiring| time(retiring.until()))),
        ("successor_used", retiring.map(|retiring| flag(retiring.successor_used()))),
        ("attributes", (!attributes.is_empty()).then(|| attributes.join(BETWEEN_ATTRIBUTES))),
    ]
}

/// The last use, which [`encode`] leaves out.
pub(super) fn encode_use(used: &LastUsed) -> Vec<(&'static str, Option<String>)> {
    vec![
        ("used_at", Some(time(used.at))),
        ("used_address", used.client_address.map(|address| address.to_string())),
        ("used_agent", used.user_agent.clone()),
        ("used_write", used.last_write.map(time)),
    ]
}

fn time(time: Timestamp) -> String {
    time.unix_millis().to_string()
}

fn flag(flag: bool) -> String {
    u8::from(flag).to_string()
}

/// The record of a hash.
pub(super) fn decode(id: TokenId, fields: Fields, owner_barred: bool) -> Result<TokenRecord, StoreError> {
    let mut unread = Unread(fields);
    let record = unread.record(id).and_then(|record| unread.end().map(|()| record));
    record
        .map(|record| record.with_owner_barred(owner_barred))
        .map_err(|(field, cause)| StoreError::new(UnreadableField { id, field, cause }))
}

type Cause = Box<dyn StdError + Send + Sync>;
type Read<T> = Result<T, (String, Cause)>;

/// The fields that were not read yet.
struct Unread(Fields);

impl Unread {
    fn record(&mut self, id: TokenId) -> Read<TokenRecord> {
        let (owner, label) = (self.needed("owner", OwnerId::from_str)?, self.needed("label", Label::from_str)?);
        let (scope, secret) = (self.needed("scope", Scope::from_str)?, self.needed("secret", SecretHash::parse)?);
        Ok(TokenRecord::new(id, owner, label, scope, secret, self.needed("created_at", read_time)?)
            .with_created_by(self.needed("created_by", CreatedBy::from_str)?)
            .with_made_on_behalf_right(self.needed("on_behalf", read_flag)?)
            .with_expiry(self.optional("expires_at", read_time)?)
            .with_state(self.needed("state", TokenState::from_str)?)
            .with_revoked_at(self.optional("revoked_at", read_time)?)
            .with_revision(self.needed("revision", read_revision)?)
            .with_retiring(self.retiring()?)
            .with_attributes(self.optional("attributes", read_attributes)?.unwrap_or_default())
            .with_last_used(self.last_used()?))
    }

    fn retiring(&mut self) -> Read<Option<RetiringSecret>> {
        let Some(secret) = self.optional("retiring_secret", SecretHash::parse)? else { return Ok(None) };
        let (until, used) = (self.needed("retiring_until", read_time)?, self.needed("successor_used", read_flag)?);
        Ok(Some(RetiringSecret::new(secret, until).with_successor_used(used)))
    }

    fn last_used(&mut self) -> Read<Option<LastUsed>> {
        let Some(at) = self.optional("used_at", read_time)? else { return Ok(None) };
        Ok(Some(
            LastUsed::new(at)
                .with_client_address(self.optional("used_address", IpAddr::from_str)?)
                .with_user_agent(self.0.remove("used_agent"))
                .with_last_write(self.optional("used_write", read_time)?),
        ))
    }

    fn needed<T, E: Into<Cause>>(&mut self, field: &str, read: impl FnOnce(&str) -> Result<T, E>) -> Read<T> {
        self.optional(field, read)?.ok_or_else(|| (field.to_owned(), "it is not there".into()))
    }

    fn optional<T, E: Into<Cause>>(&mut self, field: &str, read: impl FnOnce(&str) -> Result<T, E>) -> Read<Option<T>> {
        let text = self.0.remove(field);
        text.map(|text| read(&text).map_err(|cause| (field.to_owned(), cause.into()))).transpose()
    }

    fn end(&self) -> Read<()> {
        self.0.keys().min().map_or(Ok(()), |field| Err((field.clone(), "it is not known".into())))
    }
}

/// Only what [`time`] writes: [`Timestamp`] itself would take a later time for its last.
fn read_time(text: &str) -> Result<Timestamp, Cause> {
    let read = Timestamp::from_unix_millis(text.parse()?);
    if time(read) == text { Ok(read) } else { Err("it is no time".into()) }
}

/// Only what was written: revisions are compared as text.
fn read_revision(text: &str) -> Result<Revision, Cause> {
    let number: u64 = text.parse()?;
    if number.to_string() == text { Ok(Revision::new(number)) } else { Err("it is no revision".into()) }
}

fn read_flag(text: &str) -> Result<bool, &'static str> {
    match text {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err("it is neither 0 nor 1"),
    }
}

fn read_attributes(text: &str) -> Result<Attributes, Cause> {
    let mut texts = text.split(BETWEEN_ATTRIBUTES);
    let mut pairs = Vec::new();
    while let Some(name) = texts.next() {
        pairs.push((name, texts.next().ok_or("a name has no value")?));
    }
    Ok(Attributes::new(pairs)?)
}

/// Says which field, never what is in it: that may be a secret's hash.
#[derive(Debug)]
struct UnreadableField {
    id: TokenId,
    field: String,
    cause: Cause,
}

impl fmt::Display for UnreadableField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the field {:?} of token {} can not be read", self.field, self.id)
    }
}

impl StdError for UnreadableField {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> TokenRecord {
        let hash = |text| SecretHash::parse(text).unwrap();
        let (owner, label) = (OwnerId::new("alice").unwrap(), Label::new("l").unwrap());
        let time = Timestamp::from_unix_millis;
        let id = "0123456789abcdef".parse().unwrap();
        TokenRecord::new(id, owner, label, Scope::ReadOnly, hash("$a$b"), time(1))
            .with_expiry(Some(time(2)))
            .with_revoked_at(Some(time(3)))
            .with_retiring(Some(RetiringSecret::new(hash("$a$c"), time(4))))
            .with_attributes(Attributes::new([("b", "1"), ("a", "2")]).unwrap())
            .with_last_used(Some(
                LastUsed::new(time(5))
                    .with_client_address(Some("::1".parse().unwrap()))
                    .with_user_agent(Some("agent".to_owned()))
                    .with_last_write(Some(time(4))),
            ))
    }

    fn fields(record: &TokenRecord) -> Fields {
        let used = record.last_used().map(encode_use).unwrap_or_default();
        let all = encode(record).into_iter().chain(used);
        all.filter_map(|(field, text)| Some((field.to_owned(), text?))).collect()
    }

    #[test]
    fn a_record_survives_a_round_trip() {
        assert_eq!(decode(record().id(), fields(&record()), false).unwrap(), record());
        let bare = record().with_expiry(None).with_revoked_at(None).with_retiring(None).with_last_used(None);
        let bare = bare.with_attributes(Attributes::default());
        assert_eq!(decode(bare.id(), fields(&bare), true).unwrap(), bare.with_owner_barred(true));
    }

    #[test]
    fn what_can_not_be_read_refuses_the_record() {
        for (field, wrong) in [
            ("scope", "admin"),
            ("scope", ""),
            ("state", "suspended"),
            ("created_by", "robot:7"),
            ("created_at", "-1"),
            ("created_at", "253402300800000"),
            ("created_at", "1.5"),
            ("expires_at", ""),
            ("expires_at", "never"),
            ("revoked_at", "01"),
            ("revision", "+1"),
            ("revision", "18446744073709551616"),
            ("on_behalf", "yes"),
            ("successor_used", ""),
            ("secret", "plain"),
            ("retiring_secret", ""),
            ("attributes", "name"),
            ("attributes", "a\n1\na\n2"),
            ("used_address", "localhost"),
            ("owner", ""),
            ("label", "a\nb"),
            ("networks", "10.0.0.0/8"),
        ] {
            let mut fields = fields(&record());
            fields.insert(field.to_owned(), wrong.to_owned());
            let error = decode(record().id(), fields, false).expect_err(wrong);
            let cause = error.source().unwrap().to_string();
            assert_eq!(cause, format!("the field {field:?} of token 0123456789abcdef can not be read"));
        }
    }

    #[test]
    fn what_is_missing_refuses_the_record() {
        let optional = ["expires_at", "revoked_at", "attributes", "used_address", "used_agent", "used_write"];
        for field in fields(&record()).into_keys() {
            let mut fields = fields(&record());
            fields.remove(&field);
            let decoded = decode(record().id(), fields, false);
            assert_eq!(decoded.is_ok(), optional.contains(&&*field), "without {field}");
        }
    }
}
