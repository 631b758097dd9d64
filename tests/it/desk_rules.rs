//! Rules of the application's own: what they are asked about, and what is told of their answers.

use tower_token_auth::test_util::{CheapHasher, RecordingSink};
use tower_token_auth::{
    Actor, IssueError, IssuePolicy, IssueRefusal, ManageError, MemoryStore, NewToken, Permissions, Scope, SharedPolicy,
    TokenId, TokenIssuer, TokenState,
};

use crate::desk_life::{HOUR, World, system};

/// Alice, who may do nothing but what anybody may with tokens of their own.
fn alice() -> Actor {
    Actor::user("alice", Permissions::none())
}

fn no_robots() -> IssuePolicy {
    IssuePolicy::default().rule("no robots", |wish| match wish.label().as_str().starts_with("robot") {
        true => Err("robots ask their makers"),
        false => Ok(()),
    })
}

#[tokio::test]
async fn a_token_is_not_called_what_a_rule_does_not_allow() {
    let world = World::new();
    let token = world.token(Scope::ReadOnly).await;
    // What else the policy says does not matter: the token is there.
    world.set_policy(no_robots().require_expiry(true)).await;
    let refused = world.desk.rename(&alice(), &token.id(), "robot 7").await;
    assert!(matches!(refused, Err(ManageError::Refused(IssueRefusal::Rule("robots ask their makers")))));
    world.trail.assert_told(&["rename refused rule user:alice"]);
    assert_eq!(world.bench.record(&token).await.label().as_str(), "laptop");
    world.desk.rename(&alice(), &token.id(), "human 7").await.unwrap();
    world.trail.assert_told(&["rename allowed - user:alice laptop -> human 7"]);
}

#[tokio::test]
async fn a_rule_is_told_whether_the_token_is_there_already() {
    let world = World::new();
    let token = world.token(Scope::ReadOnly).await;
    world.desk.pause(&system(), &token.id()).await.unwrap();
    let only = |expected: Option<TokenId>| {
        IssuePolicy::default().rule("only", move |wish| match wish.existing() == expected {
            true => Ok(()),
            false => Err("another token"),
        })
    };
    for (expected, allowed) in [(Some(token.id()), true), (None, false)] {
        world.set_policy(only(expected)).await;
        let renamed = world.desk.rename(&system(), &token.id(), if allowed { "desktop" } else { "tablet" }).await;
        assert_eq!(renamed.is_ok(), allowed);
        assert_eq!(world.desk.rotate(&system(), &token.id(), HOUR).await.is_ok(), allowed);
        let resumed = world.desk.resume(&system(), &token.id()).await;
        assert_eq!(resumed.is_ok(), allowed);
        world.desk.pause(&system(), &token.id()).await.unwrap();
        let issued = world.desk.issue(&system(), NewToken::new("alice", "new", Scope::ReadOnly)).await;
        assert_eq!(issued.is_ok(), !allowed);
    }
}

#[tokio::test]
async fn the_sentence_of_a_refusal_is_on_record_without_what_could_fake_a_line() {
    let sink = RecordingSink::new();
    let policy = IssuePolicy::default().rule("hostile", |wish| match wish.label().as_str() {
        "bad" => Err("no\nissue allowed \u{202e}"),
        _ => Ok(()),
    });
    let desk = TokenIssuer::builder(MemoryStore::new(), policy)
        .hasher(CheapHasher::new().inline())
        .audit(sink.clone())
        .build()
        .unwrap();
    let wish = |label: &str| NewToken::new("alice", label, Scope::ReadOnly);
    let refused = desk.issue(&system(), wish("bad")).await;
    assert!(matches!(refused, Err(IssueError::Refused(IssueRefusal::Rule(_)))));
    let [event] = sink.take().try_into().unwrap();
    let detail = event.detail.unwrap();
    assert!(detail.starts_with("no") && detail.contains("issue allowed"), "{detail}");
    assert!(!detail.contains(['\n', '\u{202e}']), "{detail:?}");
    desk.issue(&alice(), wish("good")).await.unwrap_err();
    let [event] = sink.take().try_into().unwrap();
    assert_eq!(event.detail.as_deref(), Some("the permission to create tokens is needed"));
    desk.issue(&system(), wish("good")).await.unwrap();
    let [event] = sink.take().try_into().unwrap();
    assert_eq!(event.detail, None);
}

#[tokio::test]
async fn a_change_of_the_rules_is_on_record_by_name() {
    let world = World::new();
    world.desk.change_policy(&system(), no_robots()).await.unwrap();
    let [told] = world.trail.take().try_into().unwrap();
    assert!(told.contains("rules=[] -> ") && told.ends_with("rules=[no robots]"), "{told}");
}

#[tokio::test]
async fn what_a_barred_owner_has_is_neither_resumed_nor_rotated() {
    let world = World::new();
    let token = world.token(Scope::ReadOnly).await;
    let owner = "alice".try_into().unwrap();
    world.desk.pause(&system(), &token.id()).await.unwrap();
    world.desk.bar_owner(&system(), &owner).await.unwrap();
    world.trail.take();
    let barred = |answer| matches!(answer, Err(ManageError::Refused(IssueRefusal::OwnerBarred)));
    assert!(barred(world.desk.resume(&system(), &token.id()).await.map(|_| ())));
    assert!(barred(world.desk.rotate(&system(), &token.id(), HOUR).await.map(|_| ())));
    world.trail.assert_told(&["resume refused owner_barred system:test", "rotate refused owner_barred system:test"]);
    assert_eq!(world.bench.record(&token).await.state(), TokenState::Paused);
    world.desk.narrow(&system(), &token.id()).await.unwrap();
    world.desk.lift_owner(&system(), &owner).await.unwrap();
    world.desk.resume(&system(), &token.id()).await.unwrap();
    world.desk.rotate(&system(), &token.id(), HOUR).await.unwrap();
}

#[tokio::test]
async fn a_policy_tells_what_was_set() {
    let policy = no_robots()
        .force_read_only(true)
        .max_lifetime(Some(9 * HOUR))
        .max_lifetime_of(Scope::ReadOnly, Some(3 * HOUR))
        .max_lifetime_of(Scope::ReadWrite, Some(2 * HOUR))
        .require_expiry(true)
        .max_live_tokens(Some(7));
    let policy = SharedPolicy::new(policy).current();
    assert!(policy.is_read_only_forced() && policy.is_expiry_required());
    assert_eq!((policy.lifetime_limit(), policy.live_token_limit()), (Some(9 * HOUR), Some(7)));
    assert_eq!(policy.lifetime_limit_of(Scope::ReadOnly), Some(3 * HOUR));
    assert_eq!(policy.lifetime_limit_of(Scope::ReadWrite), Some(2 * HOUR));
    let none = IssuePolicy::default();
    assert!(!none.is_read_only_forced() && !none.is_expiry_required());
    assert_eq!((none.lifetime_limit(), none.live_token_limit()), (None, None));
    assert_eq!(none.lifetime_limit_of(Scope::ReadOnly), None);
}
