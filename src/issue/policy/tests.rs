use super::*;
use crate::actor::Permissions;
use crate::id::{Label, OwnerId};
use crate::token::{Attributes, CreatedBy};
use IssueRefusal::{AlreadyExpired, CreateNotPermitted, ExpiryRequired, LifetimeTooLong};
use Scope::{ReadOnly, ReadWrite};

const NOW: Timestamp = Timestamp::from_unix_seconds(1000);
const MINUTE: Duration = Duration::from_secs(60);
const INSTANT: Duration = Duration::from_millis(1);

/// Judges alice's wish for a token of her own; `None` is yes.
#[track_caller]
fn judge(policy: &IssuePolicy, actor: &Actor, scope: Scope, expires_at: Option<Timestamp>) -> Option<IssueRefusal> {
    let (owner, label) = (OwnerId::new("alice").unwrap(), Label::new("laptop").unwrap());
    let proposal = Proposal {
        actor: &CreatedBy::User(owner.clone()),
        permissions: actor.permissions(),
        for_oneself: actor.is(&owner),
        owner: &owner,
        label: &label,
        scope,
        expires_at,
        attributes: &Attributes::default(),
        now: NOW,
    };
    match policy.judge(actor, &proposal) {
        Ok(()) => None,
        Err(Objection::Refused(refusal)) => Some(refusal),
        Err(objection) => panic!("{objection:?}"),
    }
}

fn system() -> Actor {
    Actor::system("test")
}

#[test]
fn lifetimes_are_limited_to_the_instant() {
    let policy = IssuePolicy::default().max_lifetime(Some(MINUTE));
    let too_long = Some(LifetimeTooLong { max: MINUTE });
    for (end, refusal) in [
        (Some(NOW + INSTANT), None),
        (Some(NOW + MINUTE), None),
        (Some(NOW + MINUTE + INSTANT), too_long),
        (None, too_long),
        (Some(NOW), Some(AlreadyExpired)),
    ] {
        assert_eq!(judge(&policy, &system(), ReadOnly, end), refusal, "{end:?}");
    }
    assert_eq!(judge(&IssuePolicy::default(), &system(), ReadOnly, None), None);
    assert_eq!(judge(&IssuePolicy::default(), &system(), ReadOnly, Some(NOW)), Some(AlreadyExpired));
}

#[test]
fn of_two_limits_on_the_lifetime_the_shorter_counts() {
    // for all scopes, for reading, for writing: what limits a read-only and a read-write token
    for (all, reading, writing, read_only, read_write) in [
        (None, None, None, None, None),
        (Some(5), None, None, Some(5), Some(5)),
        (None, Some(5), None, Some(5), None),
        (None, None, Some(5), None, Some(5)),
        (Some(5), Some(3), Some(9), Some(3), Some(5)),
        (Some(5), Some(9), Some(3), Some(5), Some(3)),
    ] {
        let minutes = |count: Option<u32>| count.map(|count| MINUTE * count);
        let policy = IssuePolicy::default()
            .max_lifetime(minutes(all))
            .max_lifetime_of(ReadOnly, minutes(reading))
            .max_lifetime_of(ReadWrite, minutes(writing));
        for (scope, limit) in [(ReadOnly, minutes(read_only)), (ReadWrite, minutes(read_write))] {
            let refusal = limit.map(|max| LifetimeTooLong { max });
            assert_eq!(judge(&policy, &system(), scope, None), refusal, "{policy}: {scope}");
            let Some(max) = limit else { continue };
            assert_eq!(judge(&policy, &system(), scope, Some(NOW + max)), None, "{policy}: {scope}");
            assert_eq!(judge(&policy, &system(), scope, Some(NOW + max + INSTANT)), refusal, "{policy}: {scope}");
        }
    }
}

#[test]
fn an_expiry_can_be_required_without_a_limit() {
    let policy = IssuePolicy::default().require_expiry(true);
    assert_eq!(judge(&policy, &system(), ReadOnly, Some(Timestamp::MAX)), None);
    assert_eq!(judge(&policy, &system(), ReadOnly, None), Some(ExpiryRequired));
    assert_eq!(judge(&policy.require_expiry(false), &system(), ReadOnly, None), None);
}

#[test]
fn rules_are_asked_in_turn_after_all_others() {
    let policy = IssuePolicy::default()
        .rule(|wish| if wish.scope() == ReadWrite { Err("read-only, please") } else { Ok(()) })
        .rule(|wish| if wish.expires_at().is_none() { Err("with an end, please") } else { Ok(()) });
    let end = Some(NOW + MINUTE);
    assert_eq!(judge(&policy, &system(), ReadOnly, end), None);
    assert_eq!(judge(&policy, &system(), ReadOnly, None), Some(IssueRefusal::Rule("with an end, please")));
    assert_eq!(judge(&policy, &system(), ReadWrite, None), Some(IssueRefusal::Rule("read-only, please")));
    let nobody = Actor::user("alice", Permissions::none());
    assert_eq!(judge(&policy, &nobody, ReadWrite, None), Some(CreateNotPermitted));
}

#[test]
fn a_rule_sees_the_whole_wish() {
    let policy = IssuePolicy::default().rule(|wish| {
        let seen = (wish.owner().as_str(), wish.label().as_str(), wish.actor().to_string());
        assert_eq!(seen, ("alice", "laptop", "user:alice".to_owned()));
        assert_eq!((wish.scope(), wish.expires_at(), wish.now()), (ReadOnly, None, NOW));
        assert!(wish.is_for_oneself() && wish.permissions().create() && !wish.permissions().on_behalf());
        assert_eq!(wish.attributes(), &Attributes::default());
        Ok(())
    });
    let alice = Actor::user("alice", Permissions::none().and_create());
    assert_eq!(judge(&policy, &alice, ReadOnly, None), None);
}

#[test]
#[cfg(feature = "test-util")]
fn a_token_makes_nothing_greater_than_itself() {
    use crate::decision::AuthenticatedToken;
    let until = NOW + MINUTE;
    let own = AuthenticatedToken::builder("alice", "bot", ReadOnly).expires_at(until).build().unwrap();
    let bot = Actor::token(&own, Permissions::none().and_create());
    let judge = |actor: &Actor, scope, end| judge(&IssuePolicy::default(), actor, scope, end);
    let (exceeds_scope, exceeds_life) =
        (IssueRefusal::ExceedsOwnScope { own: ReadOnly }, IssueRefusal::ExceedsOwnLifetime { until });
    assert_eq!(judge(&bot, ReadOnly, Some(until)), None);
    assert_eq!(judge(&Actor::token(&own, Permissions::none()), ReadOnly, Some(until)), Some(CreateNotPermitted));
    assert_eq!(judge(&bot, ReadWrite, Some(until)), Some(exceeds_scope));
    assert_eq!(judge(&bot, ReadOnly, Some(until + INSTANT)), Some(exceeds_life));
    assert_eq!(judge(&bot, ReadOnly, None), Some(exceeds_life));
    let endless = AuthenticatedToken::builder("alice", "bot", ReadWrite).build().unwrap();
    assert_eq!(judge(&Actor::token(&endless, Permissions::none().and_create()), ReadWrite, None), None);
}

#[test]
fn a_policy_is_told_in_one_stable_line() {
    let policy = IssuePolicy::default()
        .force_read_only(true)
        .max_lifetime(Some(Duration::from_secs(90 * 86_400)))
        .max_lifetime_of(ReadWrite, Some(MINUTE * 90))
        .require_expiry(true)
        .max_live_tokens(Some(20))
        .rule(|_| Ok(()));
    assert_eq!(
        policy.to_string(),
        "force_read_only=on max_lifetime=90d max_lifetime_of_read_only=none max_lifetime_of_read_write=90m \
         require_expiry=on max_live_tokens=20 rules=1"
    );
    assert_eq!(
        IssuePolicy::default().to_string(),
        "force_read_only=off max_lifetime=none max_lifetime_of_read_only=none max_lifetime_of_read_write=none \
         require_expiry=off max_live_tokens=none rules=0"
    );
    let hostile = IssuePolicy::default().max_lifetime(Some(Duration::MAX)).max_live_tokens(Some(usize::MAX));
    assert!(hostile.to_string().len() <= crate::audit::AuditEvent::MAX_EDIT_LEN, "an event holds all of it");
}

#[test]
fn policies_are_equal_by_their_limits_and_by_the_very_rules() {
    let ruled = IssuePolicy::default().rule(|_| Ok(()));
    assert_eq!(ruled, ruled.clone());
    assert_ne!(ruled, IssuePolicy::default());
    assert_ne!(ruled, IssuePolicy::default().rule(|_| Ok(())));
    assert_ne!(IssuePolicy::default().max_live_tokens(Some(1)), IssuePolicy::default());
}
