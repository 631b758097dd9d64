//! The words of the audit trail, read back.
//!
//! A word that is none of these was written by a later release: it is never guessed.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::access::Access;
use crate::audit::{Action, AuditEvent, Outcome};
use crate::clock::Timestamp;
use crate::decision::{IssueRefusal, Reason, UnavailableCause};
use crate::text;
use crate::token::SecretSlot;

/// Lists what can be read back. What is in neither list does not compile.
macro_rules! words {
    ($name:ident: $type:ty = [$($known:path),* $(,)?] $(, and not $($other:pat_param)|+)?) => {
        const $name: &[$type] = &[$($known),*];
        const _: fn($type) = |word| match word { $($known)|* => {} $($($other)|+ => {})? };
    };
}

words!(ACTIONS: Action = [
    Action::Authenticate, Action::Issue, Action::Revoke, Action::Pause, Action::Resume, Action::SetExpiry,
    Action::Narrow, Action::Rename, Action::Rotate, Action::Prune, Action::BarOwner, Action::LiftOwner,
    Action::ChangePolicy, Action::ReportThreshold, Action::ReportLoss,
]);
words!(OUTCOMES: Outcome = [
    Outcome::Allowed, Outcome::Passed, Outcome::Refused, Outcome::WouldForbid, Outcome::Unavailable,
    Outcome::Abandoned,
]);
words!(REASONS: Reason = [
    Reason::Missing, Reason::Malformed, Reason::BadFormat, Reason::Unknown, Reason::Expired, Reason::Revoked,
    Reason::Paused, Reason::OwnerBarred, Reason::Mismatch, Reason::Forbidden, Reason::Policy, Reason::Unacceptable,
    Reason::RotationUnderway, Reason::Unsupported,
], and not Reason::Unavailable(_) | Reason::NotIssued(_));
words!(CAUSES: UnavailableCause = [
    UnavailableCause::StoreFailed, UnavailableCause::StorePanicked, UnavailableCause::StoreTimedOut,
    UnavailableCause::OwnersFailed, UnavailableCause::RecordUnusable, UnavailableCause::LookupsBusy,
    UnavailableCause::HashingBusy, UnavailableCause::HashingTimedOut, UnavailableCause::HashingFailed,
    UnavailableCause::NoRandomness, UnavailableCause::PolicyFailed, UnavailableCause::Contended,
    UnavailableCause::AuditFailed, UnavailableCause::ClosurePanicked,
]);
words!(RULES: IssueRefusal = [
    IssueRefusal::CreateNotPermitted, IssueRefusal::OnBehalfNotPermitted, IssueRefusal::AdministerNotPermitted,
    IssueRefusal::ReadOnlyEnforced, IssueRefusal::OwnerBarred, IssueRefusal::AlreadyExpired,
    IssueRefusal::ExpiryRequired,
], and not IssueRefusal::ExceedsOwnScope { .. } | IssueRefusal::ExceedsOwnLifetime { .. }
    | IssueRefusal::LifetimeTooLong { .. } | IssueRefusal::TooManyTokens { .. } | IssueRefusal::Rule(_));

fn of<T: Copy>(known: &[T], text: fn(T) -> &'static str, word: &str) -> Option<T> {
    known.iter().copied().find(|known| text(*known) == word)
}

pub(super) fn action(word: &str) -> Option<Action> {
    of(ACTIONS, Action::as_str, word)
}

pub(super) fn outcome(word: &str) -> Option<Outcome> {
    of(OUTCOMES, Outcome::as_str, word)
}

pub(super) fn access(word: &str) -> Option<Access> {
    of(&[Access::Read, Access::Write], Access::as_str, word)
}

pub(super) fn slot(word: &str) -> Option<SecretSlot> {
    of(&SecretSlot::ALL, SecretSlot::as_str, word)
}

/// What is stored beside a reason where a rule of the desk said no: what the rule would allow. Two rules share their word
/// with a reason of the gate.
pub(super) fn refusal(reason: Reason) -> Option<String> {
    let Reason::NotIssued(refusal) = reason else { return None };
    Some(match refusal {
        IssueRefusal::ExceedsOwnScope { own } => own.to_string(),
        IssueRefusal::ExceedsOwnLifetime { until } => until.unix_millis().to_string(),
        IssueRefusal::LifetimeTooLong { max } => format!("{}.{:09}", max.as_secs(), max.subsec_nanos()),
        IssueRefusal::TooManyTokens { max } => max.to_string(),
        IssueRefusal::Rule(text) => text::clean(text.as_bytes(), AuditEvent::MAX_EDIT_LEN).into_owned(),
        _ => String::new(),
    })
}

pub(super) fn reason(word: &str, refusal: Option<&str>) -> Option<Reason> {
    if let Some(allowed) = refusal {
        return rule(word, allowed).map(Reason::NotIssued);
    }
    let cause = || of(CAUSES, UnavailableCause::as_str, word).map(Reason::Unavailable);
    of(REASONS, Reason::as_str, word).or_else(cause)
}

fn rule(word: &str, allowed: &str) -> Option<IssueRefusal> {
    Some(match word {
        "exceeds_own_scope" => IssueRefusal::ExceedsOwnScope { own: allowed.parse().ok()? },
        "exceeds_own_lifetime" => {
            IssueRefusal::ExceedsOwnLifetime { until: Timestamp::from_unix_millis(allowed.parse().ok()?) }
        }
        "lifetime_too_long" => IssueRefusal::LifetimeTooLong { max: duration(allowed)? },
        "too_many_tokens" => IssueRefusal::TooManyTokens { max: allowed.parse().ok()? },
        "rule" => IssueRefusal::Rule(lasting(allowed)?),
        _ => return of(RULES, IssueRefusal::as_str, word),
    })
}

fn duration(text: &str) -> Option<Duration> {
    let (seconds, nanos) = text.split_once('.').filter(|(_, nanos)| nanos.len() == 9)?;
    Some(Duration::new(seconds.parse().ok()?, nanos.parse().ok()?))
}

/// The sentence of a rule, for as long as the process lives: that is how rules tell theirs. They stand in programs and are
/// few; in a database where they are many, somebody else has written them, and the rest stays unread.
fn lasting(sentence: &str) -> Option<&'static str> {
    static KNOWN: Mutex<Sentences> = Mutex::new(Sentences(BTreeSet::new()));
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner).lasting(sentence)
}

struct Sentences(BTreeSet<&'static str>);

impl Sentences {
    /// How many there can be.
    const MAX: usize = 256;

    fn lasting(&mut self, sentence: &str) -> Option<&'static str> {
        if let Some(known) = self.0.get(sentence) {
            return Some(known);
        }
        if self.0.len() >= Self::MAX || sentence.len() > AuditEvent::MAX_EDIT_LEN {
            return None;
        }
        let sentence: &'static str = Box::leak(sentence.into());
        self.0.insert(sentence);
        Some(sentence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::Scope;

    #[test]
    fn every_reason_is_read_back_as_it_was() {
        let limits = [
            IssueRefusal::ExceedsOwnScope { own: Scope::ReadOnly },
            IssueRefusal::ExceedsOwnLifetime { until: Timestamp::MAX },
            IssueRefusal::LifetimeTooLong { max: Duration::new(90 * 24 * 3600, 7) },
            IssueRefusal::LifetimeTooLong { max: Duration::MAX },
            IssueRefusal::TooManyTokens { max: usize::MAX },
            IssueRefusal::Rule("not on a Friday: \"}{"),
        ];
        let rules = RULES.iter().copied().chain(limits).map(Reason::NotIssued);
        let causes = CAUSES.iter().copied().map(Reason::Unavailable);
        for known in REASONS.iter().copied().chain(causes).chain(rules) {
            assert_eq!(reason(known.as_str(), refusal(known).as_deref()), Some(known), "{known:?}");
        }
    }

    #[test]
    fn every_other_word_is_read_back_as_it_was() {
        assert!(ACTIONS.iter().all(|known| action(known.as_str()) == Some(*known)));
        assert!(OUTCOMES.iter().all(|known| outcome(known.as_str()) == Some(*known)));
        assert!(SecretSlot::ALL.iter().all(|known| slot(known.as_str()) == Some(*known)));
        assert!([Access::Read, Access::Write].iter().all(|known| access(known.as_str()) == Some(*known)));
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        for (word, refusal) in [
            ("later", None),
            ("later", Some("")),
            ("rule", None),
            ("lifetime_too_long", Some("1")),
            ("lifetime_too_long", Some("1.5")),
            ("too_many_tokens", Some("")),
            ("exceeds_own_scope", Some("admin")),
        ] {
            assert_eq!(reason(word, refusal), None, "{word} {refusal:?}");
        }
        assert!(action("later").is_none() && outcome("").is_none() && slot("old").is_none() && access("").is_none());
    }

    #[test]
    fn sentences_take_bounded_room() {
        let mut known = Sentences(BTreeSet::new());
        let made = (0..1_000).filter(|number| known.lasting(&format!("sentence {number}")).is_some()).count();
        assert_eq!((made, known.lasting("sentence 7")), (Sentences::MAX, Some("sentence 7")));
        let mut known = Sentences(BTreeSet::new());
        let longest = "x".repeat(AuditEvent::MAX_EDIT_LEN);
        assert!(known.lasting(&longest).is_some() && known.lasting(&format!("{longest}x")).is_none());
    }
}
