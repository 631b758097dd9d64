//! Changes that race requests: revocations, and a rotation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tower_token_auth::{
    Actor, CacheConfig, Change, IssuePolicy, PlaintextToken, Prefix, RetiringSecret, Scratch, SecretHasher, Timestamp,
    TokenRegistry, TokenStore,
};

use crate::counted::{Castle, Hasher, Store, forge};
use crate::generator::{Job, Present};
use crate::table::{Row, row};
use crate::{Size, on_runtime};

/// Tokens are revoked one by one while everybody uses all of them, and short TTLs keep look-ups in flight.
pub(crate) fn races(size: Size) -> Vec<Row> {
    let count = size.of(1_000, 200);
    let castle = Castle::with(Store::new(Duration::from_micros(200)), Hasher::cheap(), |builder| {
        builder.cache(CacheConfig::default().ttl(Duration::from_millis(5)))
    });
    let [late, refused, accepted, requests] = on_runtime(async {
        let tokens = Arc::new(castle.tokens(count).await);
        let revoked: Arc<Vec<AtomicBool>> = Arc::new((0..count).map(|_| AtomicBool::new(false)).collect());
        let (counts, ended) = (Arc::<[AtomicUsize; 4]>::default(), Arc::new(AtomicBool::new(false)));
        let background = tokio::spawn(castle.auth.background());
        let users: Vec<_> = (0..16)
            .map(|user| {
                let (castle, tokens, revoked) = (castle.clone(), Arc::clone(&tokens), Arc::clone(&revoked));
                let (counts, ended) = (Arc::clone(&counts), Arc::clone(&ended));
                tokio::spawn(async move {
                    // Near the front of the revocations, where it matters.
                    while !ended.load(Ordering::Relaxed) {
                        let front = revoked.iter().position(|flag| !flag.load(Ordering::SeqCst)).unwrap_or(count - 1);
                        for at in [front.saturating_sub(1), front, (front + user) % count] {
                            let before = revoked[at].load(Ordering::SeqCst);
                            let status = castle.get(&tokens[at]).await;
                            let cases =
                                [before && status == 200, before && status == 401, !before && status == 200, true];
                            for (count, is_so) in counts.iter().zip(cases) {
                                count.fetch_add(usize::from(is_so), Ordering::Relaxed);
                            }
                        }
                    }
                })
            })
            .collect();
        let desk = castle.auth.issuer(castle.store.tokens.clone(), IssuePolicy::default());
        for (token, flag) in tokens.iter().zip(revoked.iter()) {
            let id = token[4..20].parse().unwrap();
            desk.revoke(&Actor::system("siege"), &id).await.unwrap();
            flag.store(true, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        ended.store(true, Ordering::Relaxed);
        for user in users {
            user.await.unwrap();
        }
        background.abort();
        std::array::from_fn(|case| counts[case].load(Ordering::Relaxed))
    });
    vec![row(
        format!("{count} revocations under load"),
        "0 accepts of requests that began after `revoke` returned",
        format!("{late} late accepts, {refused} refused, {accepted} accepted before; {requests} requests"),
        late == 0 && refused > count && accepted > count,
    )]
}

/// A new secret beside the old one, which is hot.
pub(crate) fn rotation(_: Size) -> Vec<Row> {
    let castle = Castle::new(Store::new(Duration::from_millis(1)), Hasher::real());
    on_runtime(async {
        let old = castle.token().await;
        assert_eq!(castle.get(old.expose()).await, 200);
        let address = castle.serve().await;
        let new = PlaintextToken::generate(&Prefix::default()).unwrap();
        let hash = castle.hasher.hash(new.secret(), &mut Scratch::new()).unwrap();
        let hash = hash.with_precheck(&old.id(), new.secret());
        let record = castle.store.tokens.find(&old.id()).await.unwrap().unwrap();
        let retiring = Some(RetiringSecret::new(record.secret().clone(), Timestamp::MAX));
        let change = Change::Secrets { secret: hash, retiring };
        castle.store.tokens.update(&old.id(), record.revision(), change).await.unwrap();
        castle.auth.handle().invalidate(&old.id());
        let before = castle.hasher.verifications();
        let both = vec![forge(&old.id(), new.secret()), old.expose().to_owned()];
        let answers = Job::new(Present::Tokens(both), 2_000, 100).send(address).await;
        let hashes = castle.hasher.verifications() - before;
        vec![row(
            "rotation while the old secret is hot",
            "both work at once; one argon2, for the new secret",
            format!("{}; {hashes} argon2", answers.told()),
            answers.of(200) == 2_000 && hashes <= 1,
        )]
    })
}
