//! What must hold for any bytes at all, through the public face of the crate.
//!
//! Shared by the fuzz targets and, over the committed corpus and random bytes, by the crate's own tests.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_token_auth::test_util::{ScriptedStore, draft};
use tower_token_auth::{
    Argon2Hasher, NoAudit, OnAuditFailure, Prefix, Scope, Scratch, SecretHash, SecretHasher, Sha256Hasher,
    TokenAuthLayer, TokenRegistry, TokenSecret,
};

/// Where in the bytes a second `Authorization` line begins.
const LINE: u8 = 0xff;
/// What the planted token stands for in the bytes.
const PLANTED: &[u8] = b"$TOKEN";

/// `Authorization` lines: no panic, only the statuses of the table, never in without the planted token, and the store is
/// asked only for what has our shape.
///
/// # Panics
/// When that does not hold.
pub fn header(data: &[u8]) {
    let store = ScriptedStore::default();
    let (token, record) = draft("alice", Scope::ReadOnly).expect("a token");
    store.insert(record).now_or_never().expect("at once").expect("a new id");
    let builder = TokenAuthLayer::builder(store.clone()).hasher(Sha256Hasher::new()).audit(NoAudit::new());
    let auth = builder.on_audit_failure(OnAuditFailure::Continue).build().expect("the defaults are valid");
    let Some(lines) = lines(data, token.expose()) else { return };
    let mut request = Request::new(());
    for line in &lines {
        request.headers_mut().append(AUTHORIZATION, line.clone());
    }
    let inner = service_fn(|request: Request<()>| async move {
        assert!(!request.headers().contains_key(AUTHORIZATION), "the header is removed");
        Ok::<_, Infallible>(Response::new(Bytes::new()))
    });
    let response = auth.layer(inner).oneshot(request).now_or_never().expect("decided at once").expect("infallible");
    let (status, challenge) = (response.status().as_u16(), response.headers().get(WWW_AUTHENTICATE));
    let presents_it = |line: &HeaderValue| is_planted(line.as_bytes(), token.expose().as_bytes());
    match status {
        200 => assert!(lines.len() == 1 && lines.iter().all(presents_it), "let in: {lines:?}"),
        400 => assert!(is(challenge, "error=\"invalid_request\"")),
        401 => assert!(challenge.is_some() && !lines.iter().all(presents_it) || lines.is_empty()),
        _ => assert_eq!(status, 401, "{lines:?}"),
    }
    // 58 bytes is our shape with the default prefix.
    let could_be_ours = |line: &HeaderValue| line.as_bytes().len() >= "Bearer ".len() + 58;
    assert!(store.finds() == 0 || lines.iter().any(could_be_ours), "the store was asked for {lines:?}");
}

/// The lines of a request, where they are legal field values at all.
fn lines(data: &[u8], token: &str) -> Option<Vec<HeaderValue>> {
    data.splitn(2, |byte| *byte == LINE)
        .map(|line| {
            let at = line.windows(PLANTED.len()).position(|window| window == PLANTED);
            let line = match at {
                Some(at) => [&line[..at], token.as_bytes(), &line[at + PLANTED.len()..]].concat(),
                None => line.to_vec(),
            };
            HeaderValue::from_bytes(&line).ok()
        })
        .collect()
}

/// The planted token, as RFC 9110 §11.4 allows it: a scheme in any case, spaces, the token, white space around.
fn is_planted(line: &[u8], token: &[u8]) -> bool {
    let line = line.trim_ascii();
    let Some((scheme, rest)) = line.split_at_checked(6) else { return false };
    let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
    scheme.eq_ignore_ascii_case(b"bearer") && spaces > 0 && &rest[spaces..] == token
}

fn is(challenge: Option<&HeaderValue>, part: &str) -> bool {
    challenge.and_then(|challenge| challenge.to_str().ok()).is_some_and(|challenge| challenge.contains(part))
}

/// A token's text: any change of a good one is not accepted, and nothing else is.
///
/// # Panics
/// When that does not hold.
pub fn token_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let prefix = match text.parse::<Prefix>() {
        Ok(prefix) => prefix,
        Err(_) => return header(&[b"Bearer ", data].concat()),
    };
    let token = tower_token_auth::PlaintextToken::generate(&prefix).expect("randomness");
    assert!(token.expose().starts_with(&format!("{text}_")));
    assert_eq!(token.expose().len(), text.len() + 1 + 16 + 1 + 32 + 6);
}

/// A stored hash: it prints as it was read, and verifying it neither panics nor obeys absurd parameters.
///
/// # Panics
/// When that does not hold.
pub fn stored_hash(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(hash) = SecretHash::parse(text) else { return };
    assert_eq!(SecretHash::parse(&hash.to_text()).expect("it was printed").to_text(), hash.to_text());
    let secret = TokenSecret::generate().expect("randomness");
    // 1 MiB at most: a cap is to be obeyed, not to be slow.
    let argon2 = Argon2Hasher::new().with_max_memory_kib(1024);
    let hashers: [&dyn SecretHasher; 2] = [&argon2, &Sha256Hasher::new()];
    for hasher in hashers.into_iter().filter(|hasher| hasher.recognises(&hash)) {
        assert!(!matches!(hasher.verify(&secret, &hash, &mut Scratch::new()), Ok(true)), "a random secret fits {text}");
    }
}

/// A realm: one that is accepted comes back exactly, by the grammar of RFC 9110 §11.2; one that is not could not.
///
/// # Panics
/// When that does not hold.
pub fn challenge(data: &[u8]) {
    let Ok(realm) = std::str::from_utf8(data) else { return };
    let built = TokenAuthLayer::builder(ScriptedStore::default()).realm(realm).audit(NoAudit::new()).build();
    let Ok(auth) = built else {
        let plain = realm.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\');
        return assert!(!plain || realm.is_empty() || realm.len() > 128, "refused: {realm:?}");
    };
    for line in [None, Some("Bearer"), Some("Bearer nonsense")] {
        let mut request = Request::new(());
        let value = line.map(HeaderValue::from_static);
        value.into_iter().for_each(|value| drop(request.headers_mut().insert(AUTHORIZATION, value)));
        let inner = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Bytes::new())) });
        let response = auth.layer(inner).oneshot(request).now_or_never().expect("at once").expect("infallible");
        let parameters = parameters(response.headers());
        assert_eq!(parameters.first(), Some(&("realm".to_owned(), realm.to_owned())));
        assert!(parameters[1..].iter().all(|(name, _)| name == "error"), "{parameters:?}");
    }
}

/// The auth-params of the one challenge: `Bearer` SP name `=` quoted-string, comma separated. No realm has a `"` or `\`,
/// so a quoted-string ends at the next `"`.
fn parameters(headers: &HeaderMap) -> Vec<(String, String)> {
    assert_eq!(headers.get_all(WWW_AUTHENTICATE).iter().count(), 1);
    let challenge = headers[WWW_AUTHENTICATE].to_str().expect("ASCII");
    let mut rest = challenge.strip_prefix("Bearer ").expect("the scheme");
    let mut parameters = Vec::new();
    loop {
        let (name, value) = rest.split_once("=\"").expect("a parameter");
        let (value, after) = value.split_once('"').expect("its end");
        parameters.push((name.to_owned(), value.to_owned()));
        match after.strip_prefix(", ") {
            Some(more) => rest = more,
            None => {
                assert_eq!(after, "");
                return parameters;
            }
        }
    }
}
