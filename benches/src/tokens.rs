//! As many tokens as one likes, made of their numbers: neither they nor their records take memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tower::Layer;
use tower_token_auth::{
    CacheConfig, Clock, Label, Monotonic, NoAudit, OwnerId, Scope, Scratch, SecretHash, SecretHasher, Sha256Hasher,
    Sleep, StoreError, SystemClock, Timestamp, TokenAuth, TokenAuthLayer, TokenId, TokenRecord, TokenSecret,
    TokenStore,
};

use crate::{Bare, Template, call};

const DAY: Duration = Duration::from_secs(24 * 3600);
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// All tokens have the same secret, and every id is one of a live token.
#[derive(Debug, Clone)]
pub struct EveryToken {
    secret: Arc<TokenSecret>,
    hash: SecretHash,
    found: Arc<AtomicUsize>,
}

impl EveryToken {
    /// # Panics
    /// Where `hasher` cannot hash.
    pub fn hashed_by(hasher: &impl SecretHasher) -> Self {
        let secret = TokenSecret::generate().expect("the system has random bytes");
        let hash = hasher.hash(&secret, &mut Scratch::new()).expect("a secret can be hashed");
        Self { secret: Arc::new(secret), hash, found: Arc::default() }
    }

    pub fn secret(&self) -> &TokenSecret {
        &self.secret
    }

    pub fn hash(&self) -> &SecretHash {
        &self.hash
    }

    /// How often it was asked for a record.
    pub fn found(&self) -> usize {
        self.found.load(Ordering::Relaxed)
    }

    /// A request with token number `n`.
    pub fn template(&self, n: u64) -> Template {
        let text = format!("tta_{}_{}", id(n), self.secret.expose());
        let checksum = digits::<6>(crc32fast::hash(text.as_bytes()).into());
        Template::bearer(&(text + &checksum))
    }

    /// A gate over all these tokens, which has met none of them and will forget none of `capacity` for a day.
    ///
    /// # Panics
    /// Where the system has no random bytes.
    pub fn gate(&self, capacity: usize) -> TokenAuth<Bare> {
        self.gate_by(SystemClock::new(), capacity)
    }

    /// The same without timers, for measuring memory alone: timers are freed by a thread of their own, where the allocation
    /// counter does not look.
    ///
    /// # Panics
    /// Where the system has no random bytes.
    pub fn gate_without_timers(&self, capacity: usize) -> TokenAuth<Bare> {
        self.gate_by(Untimed(SystemClock::new()), capacity)
    }

    fn gate_by(&self, clock: impl Clock, capacity: usize) -> TokenAuth<Bare> {
        let cache = CacheConfig::default().ttl(DAY).refresh_ahead(Duration::ZERO).proved(capacity);
        let builder = TokenAuthLayer::builder(self.clone()).hasher(Sha256Hasher::new()).audit(NoAudit::new());
        builder.clock(clock).cache(cache).build().expect("the configuration is valid").layer(Bare)
    }

    /// Shows these tokens to `gate`.
    ///
    /// # Panics
    /// Where it does not admit them.
    pub fn show(&self, gate: &mut TokenAuth<Bare>, numbers: impl IntoIterator<Item = u64>) {
        for n in numbers {
            assert_eq!(call(gate, self.template(n).request()), 200, "token {n}");
        }
    }
}

/// The system's clocks, without timers.
#[derive(Debug)]
struct Untimed(SystemClock);

impl Clock for Untimed {
    fn wall(&self) -> Timestamp {
        self.0.wall()
    }

    fn monotonic(&self) -> Monotonic {
        self.0.monotonic()
    }

    fn sleep(&self, _: Duration) -> Sleep {
        Box::pin(std::future::pending())
    }
}

impl TokenStore for EveryToken {
    async fn find(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        self.found.fetch_add(1, Ordering::Relaxed);
        let hash = self.hash.clone().with_precheck(id, &self.secret);
        // An owner of each token's own, as long as a UUID, and a label of the length of an ordinary one.
        let owner = OwnerId::new(format!("{id}-{id}-of")).map_err(StoreError::new)?;
        let label = Label::new("nightly export").map_err(StoreError::new)?;
        let made = Timestamp::from_unix_seconds(1_760_000_000);
        Ok(Some(TokenRecord::new(*id, owner, label, Scope::ReadWrite, hash, made)))
    }
}

/// The id of token number `n`: as random to look at as any.
fn id(n: u64) -> String {
    digits::<8>(mixed(n)) + &digits::<8>(mixed(!n))
}

fn digits<const N: usize>(mut value: u64) -> String {
    let mut text = [b'0'; N];
    for slot in text.iter_mut().rev() {
        *slot = ALPHABET[(value % 62) as usize];
        value /= 62;
    }
    text.iter().copied().map(char::from).collect()
}

/// SplitMix64's output function: a different number for each `n`.
pub const fn mixed(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
