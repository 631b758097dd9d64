//! Ensured tokens: made once, and made again only where nobody knows any more that they were made.

use std::time::Duration;

use tower_token_auth::{Ensured, NewToken, PlaintextToken, Scope};

use crate::desk_life::{World, system};

async fn ensure(world: &World) -> Option<PlaintextToken> {
    let new = NewToken::new("ops", "bootstrap", Scope::ReadOnly);
    match world.desk.ensure(&system(), new).await.unwrap() {
        Ensured::Created(issued) => Some(issued.into_plaintext()),
        Ensured::Exists(_) => None,
    }
}

#[tokio::test]
async fn a_token_that_is_made_again_after_it_was_pruned_works_at_gates_that_remember_the_old_one() {
    for pruned in [true, false] {
        let world = World::new();
        let first = ensure(&world).await.unwrap();
        assert_eq!(world.bench.status(&first).await, 200);
        world.desk.revoke(&system(), &first.id()).await.unwrap();
        assert_eq!(world.bench.status(&first).await, 401);
        world.bench.clock.advance(Duration::from_millis(2));
        if pruned {
            assert_eq!(world.desk.prune(&system(), Duration::ZERO).await.unwrap(), 1);
        }
        let again = ensure(&world).await;
        assert_eq!(again.is_some(), pruned);
        assert_eq!(world.bench.status(&first).await, 401, "the old secret");
        let Some(again) = again else { continue };
        assert_eq!(again.id(), first.id());
        for _cold_then_hot in 0..2 {
            assert_eq!(world.bench.status(&again).await, 200);
        }
        assert_eq!(world.bench.status(&first).await, 401, "the old secret");
    }
}
