//! Rotation: a new secret at once, the old one until its deadline, and what is asked for twice.

use std::time::Duration;

use tower_token_auth::{
    Actor, Clock, IssueError, IssuePolicy, IssueRefusal, ManageError, NewToken, Permissions, PlaintextToken,
    RetiringSecret, Scope, SecretSlot, TokenIssuer, TokenRegistry,
};

use crate::desk_life::{HOUR, World, system};

const INSTANT: Duration = Duration::from_millis(1);

async fn rotate(world: &World, token: &PlaintextToken, overlap: Duration) -> PlaintextToken {
    world.desk.rotate(&system(), &token.id(), overlap).await.unwrap().into_plaintext()
}

async fn statuses<const N: usize>(world: &World, tokens: [&PlaintextToken; N]) -> [u16; N] {
    let mut statuses = [0; N];
    for (status, token) in statuses.iter_mut().zip(tokens) {
        *status = world.bench.status(token).await;
    }
    statuses
}

#[tokio::test]
async fn both_secrets_work_until_the_deadline_and_the_audit_tells_which_was_used() {
    let world = World::new();
    let old = world.token(Scope::ReadOnly).await;
    let until = world.bench.clock.wall() + HOUR;
    let rotated = world.desk.rotate(&system(), &old.id(), HOUR).await.unwrap();
    assert_eq!((rotated.summary().id, rotated.summary().retiring_until), (old.id(), Some(until)));
    world.trail.assert_told(&[&*format!("rotate allowed - system:test never -> {until}")]);
    let new = rotated.into_plaintext();
    assert_eq!(statuses(&world, [&old, &new]).await, [200, 200]);
    world.trail.assert_told(&["authenticate allowed - retiring", "authenticate allowed - current"]);
    world.bench.clock.advance(HOUR - INSTANT);
    assert_eq!(statuses(&world, [&old, &new]).await, [200, 200]);
    world.bench.clock.advance(INSTANT);
    assert_eq!(statuses(&world, [&old, &new]).await, [401, 200]);
}

#[tokio::test]
async fn the_old_secret_never_outlives_the_token() {
    let world = World::new();
    let old = world.issue(NewToken::new("alice", "laptop", Scope::ReadOnly).expires_in(HOUR)).await;
    let end = world.bench.clock.wall() + HOUR;
    let rotated = world.desk.rotate(&system(), &old.id(), Duration::MAX).await.unwrap();
    assert_eq!((rotated.summary().retiring_until, rotated.summary().expires_at), (Some(end), Some(end)));
    world.bench.clock.advance(HOUR);
    assert_eq!(statuses(&world, [&old, rotated.plaintext()]).await, [401, 401]);
}

#[tokio::test]
async fn an_overlap_of_zero_ends_every_older_secret_at_once() {
    let world = World::new();
    let old = world.token(Scope::ReadOnly).await;
    let now = world.bench.clock.wall();
    let new = rotate(&world, &old, Duration::ZERO).await;
    world.trail.assert_told(&[&*format!("rotate allowed - system:test never -> {now}")]);
    assert_eq!(statuses(&world, [&old, &new]).await, [401, 200]);
    let next = rotate(&world, &old, HOUR).await;
    assert_eq!(statuses(&world, [&old, &new, &next]).await, [401, 200, 200], "an overlap, both secrets in use");
    let last = rotate(&world, &old, Duration::ZERO).await;
    assert_eq!(statuses(&world, [&old, &new, &next, &last]).await, [401, 401, 401, 200]);
}

#[tokio::test]
async fn a_rotation_that_is_repeated_replaces_a_new_secret_that_nobody_used() {
    let world = World::new();
    let old = world.token(Scope::ReadOnly).await;
    let until = world.bench.clock.wall() + HOUR;
    let lost = rotate(&world, &old, HOUR).await;
    world.bench.clock.advance(HOUR / 2);
    world.trail.take();
    for overlap in [INSTANT, HOUR, 24 * HOUR] {
        let now = world.bench.clock.wall();
        let new = world.desk.rotate(&system(), &old.id(), overlap).await.unwrap();
        assert_eq!(new.summary().retiring_until, Some(until), "the deadline does not move");
        world.trail.assert_told(&[&*format!("rotate allowed - system:test never -> {now}")]);
    }
    let new = rotate(&world, &old, HOUR).await;
    assert_eq!(statuses(&world, [&old, &lost, &new]).await, [200, 401, 200]);
    world.bench.clock.advance(HOUR / 2);
    assert_eq!(statuses(&world, [&old, &lost, &new]).await, [401, 401, 200]);
}

#[tokio::test]
async fn a_new_secret_that_was_used_here_is_not_replaced_during_the_overlap() {
    let world = World::new();
    let old = world.token(Scope::ReadOnly).await;
    let until = world.bench.clock.wall() + HOUR;
    let new = rotate(&world, &old, HOUR).await;
    assert_eq!(statuses(&world, [&old]).await, [200]);
    let unused = rotate(&world, &old, HOUR).await;
    assert_eq!(statuses(&world, [&new, &unused]).await, [401, 200], "the old one in use is no reason");
    let hashes = world.bench.hasher.hashes();
    world.trail.take();
    let refused = world.desk.rotate(&system(), &old.id(), HOUR).await;
    assert!(matches!(refused, Err(ManageError::RotationUnderway { until: told }) if told == until));
    world.trail.assert_told(&["rotate refused rotation_underway system:test"]);
    assert_eq!(world.bench.hasher.hashes(), hashes, "refused before any hash");
    assert_eq!(statuses(&world, [&old, &unused]).await, [200, 200]);
    world.bench.clock.advance(HOUR);
    let next = rotate(&world, &old, HOUR).await;
    assert_eq!(statuses(&world, [&old, &unused, &next]).await, [401, 200, 200], "a new rotation");
}

/// As a gate elsewhere tells it: through the store.
#[tokio::test]
async fn a_new_secret_that_was_used_elsewhere_is_not_replaced_during_the_overlap() {
    let world = World::new();
    let old = world.token(Scope::ReadOnly).await;
    let elsewhere = TokenIssuer::builder(world.bench.store.clone(), IssuePolicy::default())
        .hasher(world.bench.hasher.clone())
        .clock(world.bench.clock.clone())
        .build()
        .unwrap();
    elsewhere.rotate(&system(), &old.id(), HOUR).await.unwrap();
    elsewhere.rotate(&system(), &old.id(), HOUR).await.unwrap();
    let record = world.bench.record(&old).await;
    let used = record.retiring().cloned().map(|old| RetiringSecret::with_successor_used(old, true));
    let change = tower_token_auth::Change::Secrets { secret: record.secret().clone(), retiring: used };
    world.bench.store.update(&old.id(), record.revision(), change).await.unwrap();
    let refused = elsewhere.rotate(&system(), &old.id(), HOUR).await;
    assert!(matches!(refused, Err(ManageError::RotationUnderway { .. })));
    elsewhere.rotate(&system(), &old.id(), Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn a_gate_that_has_not_heard_of_a_rotation_takes_the_old_proof_for_no_new_one() {
    let world = World::new();
    let old = world.token(Scope::ReadOnly).await;
    let elsewhere = TokenIssuer::builder(world.bench.store.clone(), IssuePolicy::default())
        .hasher(world.bench.hasher.clone())
        .clock(world.bench.clock.clone())
        .build()
        .unwrap();
    elsewhere.rotate(&system(), &old.id(), HOUR).await.unwrap();
    assert_eq!(statuses(&world, [&old]).await, [200], "from memory");
    world.desk.rotate(&system(), &old.id(), HOUR).await.unwrap();
}

#[tokio::test]
async fn who_presents_a_retiring_secret_makes_nothing_that_outlives_it() {
    let world = World::new();
    let old = world.token(Scope::ReadOnly).await;
    let until = world.bench.clock.wall() + HOUR;
    let new = rotate(&world, &old, HOUR).await;
    let may = Permissions::none().and_create();
    let (thief, holder) = (world.admitted(&old).await, world.admitted(&new).await);
    assert_eq!((thief.secret_slot(), holder.secret_slot()), (SecretSlot::Retiring, SecretSlot::Current));
    let (thief, holder) = (Actor::token(&thief, may), Actor::token(&holder, may));
    let endless = || NewToken::new("alice", "spare", Scope::ReadOnly);
    let refused = world.desk.issue(&thief, endless()).await;
    assert!(
        matches!(refused, Err(IssueError::Refused(IssueRefusal::ExceedsOwnLifetime { until: told })) if told == until)
    );
    let refused = world.desk.rotate(&thief, &old.id(), Duration::ZERO).await;
    assert!(matches!(refused, Err(ManageError::Refused(IssueRefusal::ExceedsOwnLifetime { .. }))));
    world.desk.issue(&thief, endless().expires_at(until)).await.unwrap();
    world.desk.issue(&holder, endless()).await.unwrap();
    let last = world.desk.rotate(&holder, &old.id(), Duration::ZERO).await.unwrap();
    assert_eq!(statuses(&world, [&old, &new, last.plaintext()]).await, [401, 401, 200]);
}

#[tokio::test]
async fn a_paused_token_can_be_rotated_and_stays_paused() {
    let world = World::new();
    let old = world.token(Scope::ReadOnly).await;
    world.desk.pause(&system(), &old.id()).await.unwrap();
    let new = rotate(&world, &old, Duration::ZERO).await;
    assert_eq!(statuses(&world, [&old, &new]).await, [401, 401]);
    world.desk.resume(&system(), &old.id()).await.unwrap();
    assert_eq!(statuses(&world, [&old, &new]).await, [401, 200]);
}

#[tokio::test]
async fn what_else_a_token_is_stays_as_it_was() {
    let world = World::new();
    let old = world.token(Scope::ReadWrite).await;
    let before = world.bench.record(&old).await;
    rotate(&world, &old, HOUR).await;
    let after = world.bench.record(&old).await;
    assert!(after.secret().to_text().starts_with("$tta$"), "it carries a precheck");
    let rest = after.with_secret(before.secret().clone()).with_retiring(None).with_revision(before.revision());
    assert_eq!(rest, before);
}
