//! A hasher that costs nothing and misbehaves on request.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use base64ct::{Base64Unpadded, Encoding};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{lock, panic_as_told};
use crate::hash::{HashCost, HashError, Scratch, SecretHasher};
use crate::secret::{SecretHash, TokenSecret};

const SCHEME: &str = "cheap";
const HEAD: &str = "$cheap$v=1$";
const DOMAIN: &[u8] = b"tower-token-auth cheap v1\0";

/// One round of SHA-256 where a slow hash would be: made for the hash crew, and microseconds of work.
///
/// It counts what it is asked to do and can be told to fail, panic or wait. Counts and orders are shared by all clones.
/// What it makes, `$cheap$v=1$…`, is recognised by no other hasher.
///
/// # Example
/// ```
/// use tower_token_auth::test_util::CheapHasher;
/// use tower_token_auth::{Scratch, SecretHasher, TokenSecret};
///
/// let (hasher, mut scratch) = (CheapHasher::new(), Scratch::new());
/// let secret = TokenSecret::generate()?;
/// let stored = hasher.hash(&secret, &mut scratch)?;
/// assert!(hasher.verify(&secret, &stored, &mut scratch)?);
/// hasher.fail_next();
/// assert!(hasher.verify(&secret, &stored, &mut scratch).is_err());
/// assert_eq!((hasher.hashes(), hasher.verifications()), (1, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct CheapHasher {
    cost: HashCost,
    bench: Arc<Bench>,
}

#[derive(Debug, Default)]
struct Bench {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Debug, Default)]
struct State {
    hashes: usize,
    verifications: usize,
    orders: VecDeque<Order>,
    /// How many [`Held`] are alive.
    held: usize,
}

#[derive(Debug)]
enum Order {
    Fail,
    Panic,
}

impl CheapHasher {
    /// A hasher that runs on the hash crew ([`HashCost::Offload`]).
    #[must_use]
    pub fn new() -> Self {
        Self { cost: HashCost::Offload, bench: Arc::default() }
    }

    /// The same hasher, on the request's own thread ([`HashCost::Inline`]).
    #[must_use]
    pub fn inline(self) -> Self {
        Self { cost: HashCost::Inline, ..self }
    }

    /// How many hashes were begun, those that failed or wait included.
    #[must_use]
    pub fn hashes(&self) -> usize {
        lock(&self.bench.state).hashes
    }

    /// How many verifications were begun, those that failed or wait included.
    #[must_use]
    pub fn verifications(&self) -> usize {
        lock(&self.bench.state).verifications
    }

    /// The next hash or verification that begins answers [`HashError::Failed`]. Orders queue up: one for each.
    pub fn fail_next(&self) {
        lock(&self.bench.state).orders.push_back(Order::Fail);
    }

    /// The next hash or verification that begins panics. Orders queue up: one for each.
    pub fn panic_next(&self) {
        lock(&self.bench.state).orders.push_back(Order::Panic);
    }

    /// Makes every hash and verification that begins wait, blocking its thread, until the answer is dropped.
    pub fn hold(&self) -> Held {
        lock(&self.bench.state).held += 1;
        Held(Arc::clone(&self.bench))
    }

    /// Counts, waits while the hasher is held, then does as told.
    fn begin(&self, count: impl FnOnce(&mut State)) -> Result<(), HashError> {
        let mut state = lock(&self.bench.state);
        count(&mut state);
        let order = state.orders.pop_front();
        let still_held = |state: &mut State| state.held > 0;
        drop(self.bench.released.wait_while(state, still_held).unwrap_or_else(PoisonError::into_inner));
        match order {
            None => Ok(()),
            Some(Order::Fail) => Err(HashError::Failed("the hasher was told to fail".into())),
            Some(Order::Panic) => panic_as_told("hasher"),
        }
    }
}

impl Default for CheapHasher {
    fn default() -> Self {
        Self::new()
    }
}

fn digest(secret: &TokenSecret) -> [u8; 32] {
    Sha256::new().chain_update(DOMAIN).chain_update(secret.expose()).finalize().into()
}

impl SecretHasher for CheapHasher {
    fn recognises(&self, hash: &SecretHash) -> bool {
        hash.scheme() == SCHEME
    }

    fn cost(&self) -> HashCost {
        self.cost
    }

    fn hash(&self, secret: &TokenSecret, _: &mut Scratch) -> Result<SecretHash, HashError> {
        self.begin(|state| state.hashes += 1)?;
        let text = format!("{HEAD}{}", Base64Unpadded::encode_string(&digest(secret)));
        SecretHash::parse(&text).map_err(|error| HashError::Failed(error.into()))
    }

    fn verify(&self, secret: &TokenSecret, hash: &SecretHash, _: &mut Scratch) -> Result<bool, HashError> {
        self.begin(|state| state.verifications += 1)?;
        let mut expected = [0_u8; 32];
        let text = hash.phc().strip_prefix(HEAD).ok_or(HashError::Malformed)?;
        let decoded = Base64Unpadded::decode(text, &mut expected).map_err(|_| HashError::Malformed)?;
        Ok(decoded.ct_eq(&digest(secret)).into())
    }

    fn is_current(&self, hash: &SecretHash) -> bool {
        hash.phc().starts_with(HEAD)
    }
}

/// Keeps a [`CheapHasher`] waiting until it is dropped.
///
/// # Security
/// Never dropped, it keeps the worker's thread, and a pool that is joined at the end of a test waits for ever.
#[derive(Debug)]
#[must_use = "the hasher goes on at once where this is dropped"]
pub struct Held(Arc<Bench>);

impl Drop for Held {
    fn drop(&mut self) {
        lock(&self.0.state).held -= 1;
        self.0.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::thread;

    use super::*;

    fn stored(hasher: &CheapHasher) -> (TokenSecret, SecretHash) {
        let secret = TokenSecret::generate().unwrap();
        let hash = hasher.hash(&secret, &mut Scratch::new()).unwrap();
        (secret, hash)
    }

    #[test]
    fn only_the_hashed_secret_verifies() {
        let (hasher, scratch) = (CheapHasher::new(), &mut Scratch::new());
        let ((secret, hash), (other, _)) = (stored(&hasher), stored(&hasher));
        assert!(hasher.recognises(&hash) && hasher.is_current(&hash));
        assert!(hasher.verify(&secret, &hash, scratch).unwrap());
        assert!(!hasher.verify(&other, &hash, scratch).unwrap());
        let short = SecretHash::parse("$cheap$v=1$AAAA").unwrap();
        assert!(!hasher.verify(&secret, &short, scratch).unwrap());
        assert_eq!((hasher.hashes(), hasher.verifications()), (2, 3));
    }

    #[test]
    fn orders_are_obeyed_once_and_in_turn() {
        let (hasher, scratch) = (CheapHasher::new().inline(), &mut Scratch::new());
        let (secret, hash) = stored(&hasher);
        hasher.fail_next();
        hasher.panic_next();
        assert!(matches!(hasher.verify(&secret, &hash, scratch), Err(HashError::Failed(_))));
        assert!(catch_unwind(AssertUnwindSafe(|| hasher.verify(&secret, &hash, scratch))).is_err());
        assert!(hasher.verify(&secret, &hash, scratch).unwrap());
    }

    #[test]
    fn a_held_hasher_waits_for_the_last_guard() {
        let hasher = CheapHasher::new();
        let (secret, hash) = stored(&hasher);
        let (first, second) = (hasher.hold(), hasher.hold());
        let worker = hasher.clone();
        let worker = thread::spawn(move || worker.verify(&secret, &hash, &mut Scratch::new()));
        while hasher.verifications() == 0 {
            thread::yield_now();
        }
        drop(first);
        assert!(!worker.is_finished());
        drop(second);
        assert!(worker.join().unwrap().unwrap());
    }
}
