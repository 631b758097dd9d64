//! Verifications, against a hasher that waits to be let.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::*;
use crate::clock::{SystemClock, Timestamp};
use crate::config::CacheConfig;
use crate::id::{Label, OwnerId};
use crate::scope::Scope;
use crate::token::{ParsedToken, TokenRecord};

/// Verifies the scheme it is named for, when it is let: `right` proves, `wrong` refutes, others as they say.
#[derive(Default)]
struct Scripted {
    calls: AtomicUsize,
    open: Mutex<bool>,
    opened: Condvar,
}

impl Scripted {
    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

impl SecretHasher for Scripted {
    fn recognises(&self, hash: &SecretHash) -> bool {
        hash.scheme() != "foreign"
    }

    fn cost(&self) -> HashCost {
        HashCost::Offload
    }

    fn hash(&self, _: &TokenSecret, _: &mut Scratch) -> Result<SecretHash, HashError> {
        Err(HashError::Malformed)
    }

    fn verify(&self, _: &TokenSecret, hash: &SecretHash, _: &mut Scratch) -> Result<bool, HashError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        drop(self.opened.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap());
        match hash.scheme() {
            "right" => Ok(true),
            "wrong" => Ok(false),
            "costly" => Err(HashError::TooCostly),
            "failing" => Err(HashError::Failed("on purpose".into())),
            _ => std::panic::panic_any("on purpose"),
        }
    }

    fn is_current(&self, _: &SecretHash) -> bool {
        true
    }
}

struct Bench {
    hasher: Arc<Scripted>,
    verifier: Verifier,
    claim: Arc<Claim>,
}

fn bench(limits: VerifyLimits) -> Bench {
    let (gate, clock) = (GateId::NONE, Arc::new(SystemClock::new()));
    let cache = Arc::new(Cache::new(gate, CacheConfig::default()).unwrap());
    let hasher = Arc::new(Scripted::default());
    let token = ParsedToken::of_parts(TokenId::generate().unwrap(), TokenSecret::generate().unwrap());
    let claim = Arc::new(cache.claim(token));
    let hashers = vec![Arc::clone(&hasher) as _];
    let verifier = Verifier::new(gate, cache, clock, hashers, limits.own_workers(2), Arc::new(|_, _| ()));
    Bench { hasher, verifier, claim }
}

fn hash(scheme: &str) -> SecretHash {
    SecretHash::parse(&format!("${scheme}$v=1$AAAA")).unwrap()
}

impl Bench {
    fn begin(&self, scheme: &str) -> Begun {
        let (owner, label) = (OwnerId::new("o").unwrap(), Label::new("l").unwrap());
        let (id, at) = (self.claim.id, Timestamp::from_unix_seconds(1));
        let record = TokenRecord::new(id, owner, label, Scope::ReadOnly, hash(scheme), at);
        let (cache, now) = (&self.verifier.cache, Moment::now(&*self.verifier.clock));
        let found = cache.fill(&id, Some(record), now, cache.mark(&id)).unwrap();
        self.verifier.begin(&self.claim, &found, vec![hash(scheme)])
    }

    #[track_caller]
    fn wait(&self, scheme: &str) -> Verification {
        match self.begin(scheme) {
            Begun::Waiting(verification) => verification,
            Begun::Answered(answer) => panic!("answered {answer:?}"),
        }
    }

    #[track_caller]
    fn answer(&self, scheme: &str) -> Answer {
        match self.begin(scheme) {
            Begun::Answered(answer) => answer,
            Begun::Waiting(_) => panic!("waiting"),
        }
    }
}

#[tokio::test]
async fn one_secret_is_hashed_once_and_its_proof_is_remembered() {
    let bench = bench(VerifyLimits::default());
    let waiting: Vec<_> = (0..100).map(|_| bench.wait("right")).collect();
    bench.hasher.open();
    for verification in waiting {
        assert_eq!(verification.outcome().await, Ok(Verified::Proved(hash("right"))));
    }
    assert_eq!(bench.answer("right"), Ok(Some(hash("right"))));
    assert_eq!(bench.hasher.calls.load(Ordering::SeqCst), 1);
    assert!(bench.verifier.flights.is_empty());
}

#[tokio::test]
async fn a_wrong_secret_is_hashed_once() {
    let bench = bench(VerifyLimits::default());
    bench.hasher.open();
    assert_eq!(bench.wait("wrong").outcome().await, Ok(Verified::Refuted));
    assert_eq!(bench.answer("wrong"), Ok(None));
    assert_eq!(bench.hasher.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_answer_about_other_hashes_is_no_refusal() {
    let bench = bench(VerifyLimits::default());
    let (first, second) = (bench.wait("wrong"), bench.wait("right"));
    bench.hasher.open();
    assert_eq!(first.outcome().await, Ok(Verified::Refuted));
    assert_eq!(second.outcome().await, Ok(Verified::Elsewhere));
}

#[tokio::test]
async fn failures_reach_the_waiters_and_leave_nothing_behind() {
    for (scheme, cause) in [
        ("costly", UnavailableCause::RecordUnusable),
        ("failing", UnavailableCause::HashingFailed),
        ("panicking", UnavailableCause::HashingFailed),
    ] {
        let bench = bench(VerifyLimits::default());
        let (one, two) = (bench.wait(scheme), bench.wait(scheme));
        bench.hasher.open();
        assert_eq!(one.outcome().await, Err(cause), "{scheme}");
        assert_eq!(two.outcome().await, Err(cause), "{scheme}");
        assert!(bench.verifier.flights.is_empty());
        assert_eq!(bench.wait(scheme).outcome().await, Err(cause), "not remembered");
    }
    assert_eq!(bench(VerifyLimits::default()).answer("foreign"), Err(UnavailableCause::RecordUnusable));
}

#[tokio::test]
async fn a_refused_job_answers_busy_and_leaves_nothing_behind() {
    let bench = bench(VerifyLimits::default().ids(0));
    assert_eq!(bench.wait("right").outcome().await, Err(UnavailableCause::HashingBusy));
    assert!(bench.verifier.flights.is_empty());
    assert_eq!(bench.hasher.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_job_outlives_all_who_waited_for_it() {
    let bench = bench(VerifyLimits::default().wait(Duration::from_millis(5)));
    assert_eq!(bench.wait("right").outcome().await, Err(UnavailableCause::HashingTimedOut));
    bench.hasher.open();
    while !bench.verifier.flights.is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.answer("right"), Ok(Some(hash("right"))));
}

#[tokio::test]
async fn what_is_hashed_is_counted_by_what_became_of_it() {
    let bench = bench(VerifyLimits::default());
    let (one, two) = (bench.wait("right"), bench.wait("right"));
    while bench.verifier.stats().running == 0 {
        tokio::task::yield_now().await;
    }
    bench.hasher.open();
    assert_eq!(one.outcome().await, two.outcome().await);
    assert!(bench.wait("failing").outcome().await.is_err());
    assert_eq!(bench.wait("wrong").outcome().await, Ok(Verified::Refuted));
    assert!(bench.answer("foreign").is_err());
    while bench.verifier.stats().running != 0 {
        tokio::task::yield_now().await;
    }
    let counted = HashStats { proved: 1, refuted: 1, failed: 2, joined: 1, ..HashStats::default() };
    assert_eq!(bench.verifier.stats(), counted);
}

#[tokio::test]
async fn who_is_refused_and_who_gives_up_are_counted() {
    let full = bench(VerifyLimits::default().ids(0));
    assert!(full.wait("right").outcome().await.is_err());
    assert_eq!(full.verifier.stats(), HashStats { refused: 1, ..HashStats::default() });
    let slow = bench(VerifyLimits::default().wait(Duration::from_millis(5)));
    assert!(slow.wait("right").outcome().await.is_err());
    assert_eq!(slow.verifier.stats().timed_out, 1);
    slow.hasher.open();
}
