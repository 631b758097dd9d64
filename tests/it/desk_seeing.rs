//! What those without a permission, or without a name, see and do; and listings in pages.

use std::collections::BTreeSet;
use std::time::Duration;

use tower_token_auth::{
    Actor, Cursor, IssuePolicy, IssueRefusal, LastUsed, ManageError, NewToken, OwnerId, Permissions, PlaintextToken,
    Scope, SummaryPage, TokenFilter, TokenRegistry, TokenState,
};

use crate::desk_life::{HOUR, World, system};

#[tokio::test]
async fn an_actor_without_a_name_governs_nothing_and_is_on_record() {
    let world = World::new();
    let token = world.token(Scope::ReadOnly).await;
    let owner = OwnerId::new("alice").unwrap();
    let all = Permissions::none().and_create().and_on_behalf().and_administer();
    let (desk, strict) = (&world.desk, IssuePolicy::default().force_read_only(true));
    for (name, allowed) in [("", false), ("root", true)] {
        let actor = Actor::user(name, all);
        let answers = [
            desk.change_policy(&actor, strict.clone()).await.map(|_| ()),
            desk.bar_owner(&actor, &owner).await,
            desk.lift_owner(&actor, &owner).await,
            desk.prune(&actor, Duration::ZERO).await.map(|_| ()),
            desk.revoke_matching(&actor, TokenFilter::all()).await.map(|_| ()),
        ];
        for answer in answers {
            assert_eq!(answer.is_ok(), allowed);
            assert!(allowed || matches!(answer, Err(ManageError::Actor(_))));
        }
        if !allowed {
            world.trail.assert_told(
                &["change_policy", "bar_owner", "lift_owner", "prune", "revoke"]
                    .map(|act| format!("{act} refused unacceptable nobody"))
                    .each_ref()
                    .map(String::as_str),
            );
            assert_eq!(world.policy.current(), IssuePolicy::default());
            assert_eq!(world.bench.status(&token).await, 200);
        }
    }
    assert_eq!(world.bench.status(&token).await, 401);
}

/// The labels of all pages, a token each.
macro_rules! labels {
    ($page:expr) => {{
        let (mut labels, mut cursor, mut pages) = (BTreeSet::new(), None::<Cursor>, 0);
        loop {
            let page: SummaryPage = $page(cursor.clone()).await.unwrap();
            labels.extend(page.tokens.iter().map(|token| token.label.to_string()));
            pages += 1;
            match page.next {
                Some(next) => cursor = Some(Cursor::new(next.as_str())),
                None => break (labels.into_iter().collect::<Vec<_>>(), pages),
            }
        }
    }};
}

#[tokio::test]
async fn listings_go_on_where_a_cursor_says() {
    let world = World::new();
    let mut uses = Vec::new();
    // More than a report's page, which is of 100.
    for number in 0..150 {
        let new = NewToken::new("alice", format!("{number:03}"), Scope::ReadWrite).expires_in(2 * HOUR);
        let id = world.desk.issue(&system(), new).await.unwrap().summary().id;
        uses.push((id, LastUsed::new(tower_token_auth::Clock::wall(&world.bench.clock))));
    }
    world.bench.store.touch(&uses).await.unwrap();
    world.bench.clock.advance(HOUR);
    let (desk, alice) = (&world.desk, Actor::user("alice", Permissions::none()));
    let all: Vec<_> = (0..150).map(|number| format!("{number:03}")).collect();
    let list =
        async |cursor: Option<Cursor>| desk.list(&alice, TokenFilter::all().page_size(60), cursor.as_ref()).await;
    assert_eq!(labels!(list), (all.clone(), 3));
    let expiring = async |cursor: Option<Cursor>| desk.expiring(&alice, 2 * HOUR, cursor.as_ref()).await;
    assert_eq!(labels!(expiring), (all.clone(), 2));
    let unused = async |cursor: Option<Cursor>| desk.unused(&alice, HOUR / 2, cursor.as_ref()).await;
    assert_eq!(labels!(unused), (all.clone(), 2));
    let reading = async |cursor: Option<Cursor>| desk.only_reading(&alice, cursor.as_ref()).await;
    assert_eq!(labels!(reading), (all, 2));
    let unknown = Cursor::new("not a cursor of this store");
    assert!(desk.list(&alice, TokenFilter::all(), Some(&unknown)).await.is_err());
}

/// A token that acts at the desk without any permission, and its owner's other token.
async fn powerless(world: &World) -> (Actor, PlaintextToken) {
    let bot = world.issue(NewToken::new("alice", "bot", Scope::ReadOnly)).await;
    let actor = Actor::token(&world.admitted(&bot).await, Permissions::none());
    (actor, world.token(Scope::ReadWrite).await)
}

#[tokio::test]
async fn a_token_without_permission_sees_and_stops_its_owners_tokens_and_makes_none() {
    let world = World::new();
    let (bot, other) = powerless(&world).await;
    let (desk, id) = (&world.desk, other.id());
    let bobs = world.issue(NewToken::new("bob", "laptop", Scope::ReadWrite)).await;
    assert_eq!(desk.list(&bot, TokenFilter::all(), None).await.unwrap().tokens.len(), 2, "its owner's");
    assert!(matches!(desk.revoke(&bot, &bobs.id()).await, Err(ManageError::NotFound)));
    assert_eq!(world.bench.status(&bobs).await, 200);

    desk.rename(&bot, &id, "renamed").await.unwrap();
    desk.narrow(&bot, &id).await.unwrap();
    desk.pause(&bot, &id).await.unwrap();
    let resumed = desk.resume(&bot, &id).await;
    assert!(matches!(resumed, Err(ManageError::Refused(IssueRefusal::CreateNotPermitted))));
    let rotated = desk.rotate(&bot, &id, HOUR).await;
    assert!(matches!(rotated, Err(ManageError::Refused(IssueRefusal::CreateNotPermitted))));
    assert!(desk.issue(&bot, NewToken::new("alice", "spare", Scope::ReadOnly)).await.is_err());
    assert!(desk.bar_owner(&bot, &OwnerId::new("alice").unwrap()).await.is_err());
    desk.expire_at(&bot, &id, tower_token_auth::Clock::wall(&world.bench.clock) + HOUR).await.unwrap();
    assert_eq!(desk.revoke(&bot, &id).await.unwrap().state, TokenState::Revoked);
}
