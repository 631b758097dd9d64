//! The gate under attack, with everything counted that an attack may cost.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::{Layer, ServiceExt, service_fn};
use tower_token_auth::{
    Argon2Cost, Argon2Hasher, HashCost, HashError, Label, MemoryStore, NoAudit, OwnerId, PlaintextToken, Prefix, Scope,
    Scratch, SecretHash, SecretHasher, StoreError, Timestamp, TokenAuthBuilder, TokenAuthLayer, TokenId, TokenRecord,
    TokenRegistry, TokenSecret, TokenStore, VerifyLimits,
};

/// Hash workers: half the cores, as the crew of a process has.
pub(crate) fn workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores / 2).clamp(1, 4)
}

/// What the store does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Works = 0,
    Fails = 1,
    Hangs = 2,
    Panics = 3,
}

/// A store in memory that counts, and does as it is told.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) tokens: MemoryStore,
    state: Arc<StoreState>,
}

struct StoreState {
    calls: AtomicUsize,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
    mood: AtomicU8,
    latency: Duration,
    /// A closed one keeps every call waiting.
    door: Semaphore,
}

impl Store {
    /// A store that answers after `latency`.
    pub(crate) fn new(latency: Duration) -> Self {
        let state = StoreState {
            calls: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
            mood: AtomicU8::new(0),
            latency,
            door: Semaphore::new(Semaphore::MAX_PERMITS),
        };
        Self { tokens: MemoryStore::new(), state: Arc::new(state) }
    }

    pub(crate) fn calls(&self) -> usize {
        self.state.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn most_in_flight(&self) -> usize {
        self.state.most_in_flight.load(Ordering::SeqCst)
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.state.mood.store(mood as u8, Ordering::SeqCst);
    }

    pub(crate) fn close(&self) {
        self.state.door.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub(crate) fn open(&self) {
        self.state.door.add_permits(Semaphore::MAX_PERMITS - self.state.door.available_permits());
    }

    pub(crate) async fn keep(&self, record: TokenRecord) {
        self.tokens.insert(record).await.unwrap();
    }
}

struct InFlight<'a>(&'a StoreState);

impl<'a> InFlight<'a> {
    fn new(state: &'a StoreState) -> Self {
        state.calls.fetch_add(1, Ordering::SeqCst);
        let now = state.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        state.most_in_flight.fetch_max(now, Ordering::SeqCst);
        Self(state)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

impl TokenStore for Store {
    async fn find(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        let _in_flight = InFlight::new(&self.state);
        drop(self.state.door.acquire().await);
        match self.state.mood.load(Ordering::SeqCst) {
            0 => {}
            1 => return Err(StoreError::new("the store is down")),
            2 => std::future::pending().await,
            // Without the panic hook's message: this one is meant.
            _ => std::panic::resume_unwind(Box::new("the store was told to panic")),
        }
        if !self.state.latency.is_zero() {
            tokio::time::sleep(self.state.latency).await;
        }
        self.tokens.find(id).await
    }
}

/// Argon2 that counts, and sees how many of one stored hash run at once.
#[derive(Clone)]
pub(crate) struct Hasher {
    within: Arc<Argon2Hasher>,
    state: Arc<HasherState>,
}

#[derive(Default)]
struct HasherState {
    verifications: AtomicUsize,
    running: Mutex<HashMap<String, usize>>,
    most_of_one: AtomicUsize,
}

impl Hasher {
    /// The default parameters: 19 MiB, two passes.
    pub(crate) fn real() -> Self {
        Self { within: Arc::new(Argon2Hasher::new()), state: Arc::default() }
    }

    /// As little as argon2 allows, where only the number of hashes is of interest.
    pub(crate) fn cheap() -> Self {
        let within = Argon2Hasher::new().with_cost(Argon2Cost::new(8, 1, 1)).unwrap();
        Self { within: Arc::new(within), state: Arc::default() }
    }

    pub(crate) fn verifications(&self) -> usize {
        self.state.verifications.load(Ordering::SeqCst)
    }

    pub(crate) fn most_of_one(&self) -> usize {
        self.state.most_of_one.load(Ordering::SeqCst)
    }
}

impl SecretHasher for Hasher {
    fn recognises(&self, hash: &SecretHash) -> bool {
        self.within.recognises(hash)
    }

    fn cost(&self) -> HashCost {
        HashCost::Offload
    }

    fn hash(&self, secret: &TokenSecret, scratch: &mut Scratch) -> Result<SecretHash, HashError> {
        self.within.hash(secret, scratch)
    }

    fn verify(&self, secret: &TokenSecret, hash: &SecretHash, scratch: &mut Scratch) -> Result<bool, HashError> {
        self.state.verifications.fetch_add(1, Ordering::SeqCst);
        let now = *self.state.running.lock().unwrap().entry(hash.to_text()).and_modify(|n| *n += 1).or_insert(1);
        self.state.most_of_one.fetch_max(now, Ordering::SeqCst);
        let verified = self.within.verify(secret, hash, scratch);
        self.state.running.lock().unwrap().entry(hash.to_text()).and_modify(|n| *n -= 1);
        verified
    }

    fn is_current(&self, hash: &SecretHash) -> bool {
        self.within.is_current(hash)
    }
}

/// A gate, its store and its hasher.
#[derive(Clone)]
pub(crate) struct Castle {
    pub(crate) store: Store,
    pub(crate) hasher: Hasher,
    pub(crate) auth: TokenAuthLayer,
}

impl Castle {
    pub(crate) fn new(store: Store, hasher: Hasher) -> Self {
        Self::with(store, hasher, |builder| builder)
    }

    pub(crate) fn with(
        store: Store,
        hasher: Hasher,
        configure: impl FnOnce(TokenAuthBuilder) -> TokenAuthBuilder,
    ) -> Self {
        let limits = VerifyLimits::default().own_workers(workers());
        let builder = TokenAuthLayer::builder(store.clone()).hasher(hasher.clone()).verification(limits);
        let auth = configure(builder.audit(NoAudit::new())).build().unwrap();
        Self { store, hasher, auth }
    }

    /// A new token in the store.
    pub(crate) async fn token(&self) -> PlaintextToken {
        let token = PlaintextToken::generate(&Prefix::default()).unwrap();
        let hash = self.hasher.hash(token.secret(), &mut Scratch::new()).unwrap();
        self.store.keep(record(token.id(), hash.with_precheck(&token.id(), token.secret()))).await;
        token
    }

    /// Many tokens in the store; all have the same secret, so that it is hashed once.
    pub(crate) async fn tokens(&self, count: usize) -> Vec<String> {
        let model = PlaintextToken::generate(&Prefix::default()).unwrap();
        let hash = self.hasher.hash(model.secret(), &mut Scratch::new()).unwrap();
        let mut texts = Vec::with_capacity(count);
        for _ in 0..count {
            let id = TokenId::generate().unwrap();
            self.store.keep(record(id, hash.clone().with_precheck(&id, model.secret()))).await;
            texts.push(forge(&id, model.secret()));
        }
        texts
    }

    /// Look-ups and hashes so far.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.store.calls(), self.hasher.verifications())
    }

    /// A real server on a free port.
    pub(crate) async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().route("/", get(|| async { "well" })).route_layer(self.auth.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    }

    /// One GET in process, through the whole service.
    pub(crate) async fn get(&self, token: &str) -> u16 {
        let inner = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
        self.auth.layer(inner).oneshot(request(token)).await.unwrap().status().as_u16()
    }
}

pub(crate) fn request(token: &str) -> Request<Body> {
    Request::get("/").header(AUTHORIZATION, format!("Bearer {token}")).body(Body::empty()).unwrap()
}

pub(crate) fn record(id: TokenId, hash: SecretHash) -> TokenRecord {
    let (owner, label) = (OwnerId::new("alice").unwrap(), Label::new("siege").unwrap());
    TokenRecord::new(id, owner, label, Scope::ReadOnly, hash, Timestamp::from_unix_seconds(1))
}

/// The text of a token of this id and secret, whoever it belongs to.
pub(crate) fn forge(id: &TokenId, secret: &TokenSecret) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut text = format!("tta_{id}_{}", secret.expose());
    let checksum = crc32fast::hash(text.as_bytes());
    let digit = |place: u32| char::from(DIGITS[(checksum / 62_u32.pow(place) % 62) as usize]);
    text.extend((0..6).rev().map(digit));
    text
}

/// A token of this id with a secret that somebody has guessed.
pub(crate) fn guess(id: &TokenId) -> String {
    forge(id, &TokenSecret::generate().unwrap())
}
