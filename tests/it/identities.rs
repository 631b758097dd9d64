//! Under load, every inner call sees exactly the token of its own request.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Empty;
use tower::{Layer, ServiceExt, service_fn};
use tower_token_auth::test_util::mint;
use tower_token_auth::{
    AuthenticatedToken, CacheConfig, MemoryStore, NoAudit, Scope, Sha256Hasher, TokenAuthLayer, TokenId,
};

const TOKENS: usize = 64;
const TASKS: usize = 64;
const REQUESTS: usize = 1_000;

/// What the request's sender knows of its token, for the inner service to compare.
#[derive(Clone, Copy)]
struct Expected(TokenId);

/// The calls of the inner service, and those that saw another token than their sender's, or none.
#[derive(Default)]
struct Calls {
    all: AtomicUsize,
    mistaken: AtomicUsize,
}

/// Sends `REQUESTS` requests from each of `TASKS` tasks, each task beginning with another token.
async fn mismatches(cache: CacheConfig) -> usize {
    let store = MemoryStore::new();
    let mut tokens = Vec::new();
    for owner in 0..TOKENS {
        let scope = if owner % 2 == 0 { Scope::ReadOnly } else { Scope::ReadWrite };
        let token = mint(&store, &format!("owner-{owner}"), scope).await.unwrap();
        let header = HeaderValue::try_from(format!("Bearer {}", token.expose())).unwrap();
        tokens.push((Expected(token.id()), header));
    }
    let auth = TokenAuthLayer::builder(store).hasher(Sha256Hasher::new()).audit(NoAudit::new()).cache(cache);
    let (auth, tokens, calls) = (auth.build().unwrap(), Arc::new(tokens), Arc::new(Calls::default()));
    let inner = service_fn({
        let calls = Arc::clone(&calls);
        move |request: Request<Empty<Bytes>>| {
            let seen = request.extensions().get::<AuthenticatedToken>().map(AuthenticatedToken::id);
            let expected = request.extensions().get::<Expected>().map(|expected| expected.0);
            calls.all.fetch_add(1, Ordering::Relaxed);
            calls.mistaken.fetch_add(usize::from(seen.is_none() || seen != expected), Ordering::Relaxed);
            async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) }
        }
    });
    let gate = auth.layer(inner);
    let task = |task: usize| {
        let (gate, tokens) = (gate.clone(), Arc::clone(&tokens));
        tokio::spawn(async move {
            for at in task..task + REQUESTS {
                let (expected, header) = &tokens[at % TOKENS];
                let mut request = Request::new(Empty::<Bytes>::new());
                request.headers_mut().insert(AUTHORIZATION, header.clone());
                request.extensions_mut().insert(*expected);
                assert_eq!(gate.clone().oneshot(request).await.unwrap().status(), StatusCode::OK);
            }
        })
    };
    for task in (0..TASKS).map(task).collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(calls.all.load(Ordering::Relaxed), TASKS * REQUESTS);
    calls.mistaken.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_inner_call_sees_the_token_of_its_request() {
    assert_eq!(mismatches(CacheConfig::default()).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_inner_call_sees_the_token_of_its_request_while_the_cache_is_too_small() {
    assert_eq!(mismatches(CacheConfig::default().proved(8).unproved(2).negatives(1)).await, 0);
}
