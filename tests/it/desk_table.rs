//! Who may create which token: the rules as they are written down, against the desk.
//!
//! > For oneself: *create*. For another: *on behalf*. More than read-only: also the switch off, or *on behalf*.
//! > *On behalf* without *create*: for others only. A token mints nothing by default, and never more than itself.
//! > The system may do everything.

use tower_token_auth::test_util::{CheapHasher, RecordingSink};
use tower_token_auth::{
    Actor, AuthenticatedToken, IssueError, IssuePolicy, MemoryStore, NewToken, Permissions, Scope, TokenIssuer,
};

/// `-` is issued, anything else the refusal.
///
/// create, on behalf, switch on; for oneself read-only and read-write; for another read-only and read-write
const USERS: [(bool, bool, bool, [&str; 4]); 8] = [
    (false, false, false, [CREATE, CREATE, BEHALF, BEHALF]),
    (false, false, true, [CREATE, CREATE, BEHALF, BEHALF]),
    (true, false, false, ["-", "-", BEHALF, BEHALF]),
    (true, false, true, ["-", "read_only_enforced", BEHALF, BEHALF]),
    (false, true, false, [CREATE, CREATE, "-", "-"]),
    (false, true, true, [CREATE, CREATE, "-", "-"]),
    (true, true, false, ["-", "-", "-", "-"]),
    (true, true, true, ["-", "-", "-", "-"]),
];
const CREATE: &str = "create_not_permitted";
const BEHALF: &str = "on_behalf_not_permitted";
const WISHES: [(&str, Scope); 4] =
    [("alice", Scope::ReadOnly), ("alice", Scope::ReadWrite), ("bob", Scope::ReadOnly), ("bob", Scope::ReadWrite)];

fn permissions(create: bool, on_behalf: bool, administer: bool) -> Permissions {
    let mut permissions = Permissions::none();
    permissions = if create { permissions.and_create() } else { permissions };
    permissions = if on_behalf { permissions.and_on_behalf() } else { permissions };
    if administer { permissions.and_administer() } else { permissions }
}

fn token(scope: Scope, permissions: Permissions) -> Actor {
    Actor::token(&AuthenticatedToken::builder("alice", "bot", scope).build().unwrap(), permissions)
}

/// Asks for all four tokens, and compares the answers and what the audit trail says of them.
async fn assert_answers(switch: bool, actor: &Actor, expected: [&str; 4]) {
    let sink = RecordingSink::new();
    let policy = IssuePolicy::default().force_read_only(switch);
    let desk = TokenIssuer::builder(MemoryStore::new(), policy)
        .hasher(CheapHasher::new().inline())
        .audit(sink.clone())
        .build()
        .unwrap();
    let mut answers = Vec::new();
    for (owner, scope) in WISHES {
        answers.push(match desk.issue(actor, NewToken::new(owner, "laptop", scope)).await {
            Ok(_) => "-",
            Err(IssueError::Refused(refusal)) => refusal.as_str(),
            Err(_) => "failed",
        });
    }
    assert_eq!(answers, expected, "switch {switch}, {actor:?}");
    let told: Vec<_> = sink.take().iter().map(|event| event.reason.map_or("-", |reason| reason.as_str())).collect();
    assert_eq!(told, expected, "switch {switch}, {actor:?}");
}

#[tokio::test]
async fn users_get_what_the_table_says() {
    for (create, on_behalf, switch, expected) in USERS {
        for administer in [false, true] {
            let actor = Actor::user("alice", permissions(create, on_behalf, administer));
            assert_answers(switch, &actor, expected).await;
        }
    }
}

#[tokio::test]
async fn tokens_get_what_their_owner_gets_and_never_more_than_they_are() {
    for (create, on_behalf, switch, expected) in USERS {
        for administer in [false, true] {
            let may = permissions(create, on_behalf, administer);
            assert_answers(switch, &token(Scope::ReadWrite, may), expected).await;
            let [own_read, own_write, other_read, other_write] = expected;
            let capped = |answer| if answer == "-" { "exceeds_own_scope" } else { answer };
            let expected = [own_read, capped(own_write), other_read, capped(other_write)];
            assert_answers(switch, &token(Scope::ReadOnly, may), expected).await;
        }
    }
}

#[tokio::test]
async fn the_system_gets_everything() {
    for switch in [false, true] {
        assert_answers(switch, &Actor::system("test"), ["-"; 4]).await;
    }
}
