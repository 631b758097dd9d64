//! What holds for any input: token texts, `Authorization` lines, accesses, stored hashes, realms.

use std::path::Path;

use axum::body::Body;
use futures_util::FutureExt;
use http::header::{AUTHORIZATION, HeaderName, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, Version};
use proptest::prelude::*;
use tower::{Layer, ServiceExt, service_fn};
use tower_token_auth::test_util::{CheapHasher, ScriptedStore, draft_with};
use tower_token_auth::{Access, NoAudit, PlaintextToken, Prefix, Scope, TokenAuthLayer, TokenRegistry};

use crate::oracles;

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// A gate over one token of each scope, decided at once.
struct Gate {
    auth: TokenAuthLayer,
    store: ScriptedStore,
    tokens: [PlaintextToken; 2],
}

fn gate(prefix: &Prefix, classified: Option<Access>) -> Gate {
    let (store, hasher) = (ScriptedStore::default(), CheapHasher::new().inline());
    let tokens = [Scope::ReadOnly, Scope::ReadWrite].map(|scope| {
        let (token, record) = draft_with(&hasher, prefix, "alice", scope).unwrap();
        store.insert(record).now_or_never().unwrap().unwrap();
        token
    });
    let builder = TokenAuthLayer::builder(store.clone()).hasher(hasher).audit(NoAudit::new()).prefix(prefix.as_str());
    let auth = builder.access(move |_| classified).build().unwrap();
    Gate { auth, store, tokens }
}

impl Gate {
    /// The status and the challenge.
    fn ask(&self, request: Request<Body>, required: Option<Access>) -> (u16, Option<String>) {
        let auth = required.map_or_else(|| self.auth.clone(), |access| self.auth.requiring(access));
        let inner =
            service_fn(|_: Request<Body>| async { Ok::<_, std::convert::Infallible>(Response::new(Body::empty())) });
        let response = auth.layer(inner).oneshot(request).now_or_never().expect("decided at once").unwrap();
        let challenge = response.headers().get(WWW_AUTHENTICATE).map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), challenge)
    }

    fn ask_with(&self, lines: &[HeaderValue]) -> (u16, Option<String>) {
        let mut request = Request::new(Body::empty());
        for line in lines {
            request.headers_mut().append(AUTHORIZATION, line.clone());
        }
        self.ask(request, None)
    }
}

fn prefix() -> impl Strategy<Value = Prefix> {
    "[a-z][a-z0-9_]{0,14}[a-z0-9]".prop_map(|text| text.parse().unwrap())
}

/// One slip of the finger.
#[derive(Debug, Clone, Copy)]
enum Slip {
    Change(usize, u8),
    Insert(usize, u8),
    Remove(usize),
    Swap(usize),
}

fn slip() -> impl Strategy<Value = Slip> {
    let (at, byte) = (0..64_usize, proptest::sample::select(b"0123456789ABCXYZabcxyz_-.".to_vec()));
    prop_oneof![
        (at.clone(), byte.clone()).prop_map(|(at, byte)| Slip::Change(at, byte)),
        (at.clone(), byte).prop_map(|(at, byte)| Slip::Insert(at, byte)),
        at.clone().prop_map(Slip::Remove),
        at.prop_map(Slip::Swap),
    ]
}

impl Slip {
    fn apply(self, text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        let within = |at: usize| at % text.len();
        match self {
            Self::Change(at, byte) => bytes[within(at)] = byte,
            Self::Insert(at, byte) => bytes.insert(within(at), byte),
            Self::Remove(at) => drop(bytes.remove(within(at))),
            Self::Swap(at) => bytes.swap(at % (text.len() - 1), at % (text.len() - 1) + 1),
        }
        String::from_utf8(bytes).unwrap()
    }
}

proptest! {
    #![proptest_config(config(10_000))]

    #[test]
    fn a_token_of_any_prefix_is_read_back(prefix in prefix()) {
        let gate = gate(&prefix, None);
        let text = gate.tokens[0].expose();
        prop_assert_eq!(text.len(), prefix.as_str().len() + 56);
        prop_assert_eq!(gate.ask_with(&[HeaderValue::try_from(format!("Bearer {text}")).unwrap()]), (200, None));
    }

    #[test]
    fn a_slip_of_the_finger_is_noticed_before_the_store(slip in slip()) {
        let gate = gate(&Prefix::default(), None);
        let text = gate.tokens[0].expose();
        let slipped = slip.apply(text);
        prop_assume!(slipped != text);
        let (status, challenge) = gate.ask_with(&[HeaderValue::try_from(format!("Bearer {slipped}")).unwrap()]);
        prop_assert_eq!(status, 401);
        prop_assert!(challenge.unwrap().contains("invalid_token"));
        prop_assert_eq!(gate.store.finds(), 0);
    }
}

/// What the table promises for `Authorization` lines, written from RFC 6750 §2.1 and RFC 9110 §5.6 and §11.4.
fn promised(lines: &[Vec<u8>], token: &str) -> (u16, &'static str) {
    const MALFORMED: (u16, &str) = (400, "invalid_request");
    let [line] = lines else { return if lines.is_empty() { (401, "") } else { MALFORMED } };
    if line.len() > 8 * 1024 {
        return MALFORMED;
    }
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = line.iter().position(|byte| !is_space(byte)).unwrap_or(line.len());
    let end = line.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
    let value = &line[start..end];
    let scheme_ends = value.iter().position(is_space).unwrap_or(value.len());
    let (scheme, rest) = value.split_at(scheme_ends);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return (401, "");
    }
    let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
    let text = &rest[spaces..];
    let unpadded = text.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
    let is_token68 = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    if spaces == 0 || unpadded == 0 || !text[..unpadded].iter().all(is_token68) {
        return MALFORMED;
    }
    if text == token.as_bytes() { (200, "") } else { (401, "invalid_token") }
}

/// Bytes near the grammar: schemes, spaces, tokens and padding in any order, with a foreign byte now and then.
fn line() -> impl Strategy<Value = Vec<Piece>> {
    let piece = prop_oneof![
        6 => proptest::sample::select(vec!["Bearer", "bearer", "BEARER", "Basic", "Bear", "Bearer,"]).prop_map(Piece::Text),
        8 => proptest::sample::select(vec![" ", "  ", "\t", " \t"]).prop_map(Piece::Text),
        6 => Just(Piece::Token),
        4 => proptest::sample::select(vec!["abc", "a.b-c~d+e/f", "=", "==", "tta_", "a b", ",", "\""]).prop_map(Piece::Text),
        1 => (0x21_u8..=0xff).prop_filter("legal in a field", |byte| *byte != 0x7f).prop_map(Piece::Byte),
    ];
    prop_oneof![
        3 => Just(vec![Piece::Text("Bearer"), Piece::Text(" "), Piece::Token]),
        9 => proptest::collection::vec(piece, 0..6),
    ]
}

#[derive(Debug, Clone, Copy)]
enum Piece {
    Text(&'static str),
    Token,
    Byte(u8),
}

fn spell(pieces: &[Piece], token: &str) -> Vec<u8> {
    let bytes = |piece: &Piece| match piece {
        Piece::Text(text) => text.as_bytes().to_vec(),
        Piece::Token => token.as_bytes().to_vec(),
        Piece::Byte(byte) => vec![*byte],
    };
    pieces.iter().flat_map(bytes).collect()
}

proptest! {
    #![proptest_config(config(20_000))]

    #[test]
    fn lines_are_answered_as_the_grammar_says(lines in proptest::collection::vec(line(), 0..3)) {
        let gate = gate(&Prefix::default(), None);
        let token = gate.tokens[0].expose();
        let lines: Vec<_> = lines.iter().map(|line| spell(line, token)).collect();
        let values: Vec<_> = lines.iter().map(|line| HeaderValue::from_bytes(line).unwrap()).collect();
        let (status, challenge) = gate.ask_with(&values);
        let (promised_status, error) = promised(&lines, token);
        prop_assert_eq!(status, promised_status, "{:?}", lines);
        prop_assert_eq!(challenge.is_some(), status != 200);
        let told = challenge.unwrap_or_default();
        prop_assert_eq!(told.contains("error="), !error.is_empty(), "{}", told);
        prop_assert!(told.contains(error));
    }
}

/// What a request does, written from the rules.
fn does(method: &str, headers: &[(String, String)], required: Option<Access>, classified: Option<Access>) -> Access {
    let is_read = |method: &str| matches!(method, "GET" | "HEAD" | "OPTIONS");
    let values =
        |name: &'static str| headers.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.trim());
    let overrides = ["x-http-method-override", "x-http-method", "x-method-override"];
    if overrides.iter().flat_map(|name| values(name)).any(|value| !is_read(value)) {
        return Access::Write;
    }
    if let Some(required) = required {
        return required;
    }
    let protocols: Vec<&str> = values("upgrade").collect();
    let upgrades = protocols.iter().any(|value| !value.is_empty() && !value.eq_ignore_ascii_case("h2c"));
    if upgrades || method == "CONNECT" {
        return Access::Write;
    }
    classified.unwrap_or(if is_read(method) { Access::Read } else { Access::Write })
}

fn method() -> impl Strategy<Value = String> {
    let known =
        vec!["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "QUERY", "get", "GETS"];
    prop_oneof![4 => proptest::sample::select(known).prop_map(str::to_owned), 1 => "[A-Za-z-]{1,12}"]
}

fn request_headers() -> impl Strategy<Value = Vec<(String, String)>> {
    let value = proptest::sample::select(vec!["GET", "POST", "get", "HEAD", "DELETE"]).prop_map(str::to_owned);
    let overriding = proptest::sample::select(vec!["x-http-method-override", "x-http-method", "x-method-override"]);
    let upgrade = proptest::sample::select(vec!["websocket", "h2c", "H2C", "foo/2", ""]).prop_map(str::to_owned);
    let header = prop_oneof![
        2 => (overriding.prop_map(str::to_owned), value),
        2 => (Just("upgrade".to_owned()), upgrade),
        2 => (Just("connection".to_owned()), Just("upgrade".to_owned())),
        3 => ("x-[a-z]{1,8}-junk", "[ -~]{0,12}"),
    ];
    proptest::collection::vec(header, 0..4)
}

fn access() -> impl Strategy<Value = Option<Access>> {
    proptest::sample::select(vec![None, None, Some(Access::Read), Some(Access::Write)])
}

proptest! {
    #![proptest_config(config(20_000))]

    #[test]
    fn the_verdict_depends_on_scope_and_access_alone(
        method in method(),
        headers in request_headers(),
        (required, classified) in (access(), access()),
        path in "/[a-z/]{0,10}(\\?[a-z=&]{0,8})?",
        old in any::<bool>(),
    ) {
        let gate = gate(&Prefix::default(), classified);
        let does = does(&method, &headers, required, classified);
        for (token, permitted) in [(&gate.tokens[0], does == Access::Read), (&gate.tokens[1], true)] {
            let mut request = Request::builder()
                .method(Method::from_bytes(method.as_bytes()).unwrap())
                .uri(path.as_str())
                .version(if old { Version::HTTP_10 } else { Version::HTTP_11 })
                .header(AUTHORIZATION, format!("Bearer {}", token.expose()));
            for (name, value) in &headers {
                let name = HeaderName::try_from(name.as_str()).unwrap();
                request = request.header(name, HeaderValue::from_str(value).unwrap());
            }
            let (status, _) = gate.ask(request.body(Body::empty()).unwrap(), required);
            prop_assert_eq!(status, if permitted { 200 } else { 403 }, "{} needs {:?}", method, does);
        }
    }
}

proptest! {
    #![proptest_config(config(10_000))]

    #[test]
    fn any_bytes_keep_what_the_fuzz_targets_assert(data in proptest::collection::vec(any::<u8>(), 0..80)) {
        oracles::header(&data);
        oracles::token_text(&data);
        oracles::stored_hash(&data);
        oracles::challenge(&data);
    }

    #[test]
    fn near_misses_keep_what_the_fuzz_targets_assert(
        line in "(Bearer|bearer|Basic)?[ \t]{0,2}(\\$TOKEN|[a-z=_,]{0,6})[ \t=]{0,2}",
        hash in "\\$(tta\\$[0-9a-f]{8}\\$)?(argon2id\\$v=19\\$m=[0-9]{1,10},t=[0-9],p=[0-9]\\$|sha256\\$v=1\\$)[A-Za-z0-9]{0,44}(\\$[A-Za-z0-9]{0,44})?",
        realm in "[ -~\u{e9}\n]{0,140}",
    ) {
        oracles::header(line.as_bytes());
        oracles::stored_hash(hash.as_bytes());
        oracles::challenge(realm.as_bytes());
    }
}

/// The committed corpus of the fuzz targets. A packaged crate has none, and says so.
#[test]
fn the_corpus_keeps_what_the_fuzz_targets_assert() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    if !corpus.exists() {
        assert!(!Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci").exists(), "a checkout has the corpus");
        return;
    }
    let targets = [
        ("header", oracles::header as fn(&[u8])),
        ("token_text", oracles::token_text),
        ("stored_hash", oracles::stored_hash),
        ("challenge", oracles::challenge),
    ];
    for (name, oracle) in targets {
        let files: Vec<_> = std::fs::read_dir(corpus.join(name)).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(files.len() >= 5, "{name}");
        files.iter().for_each(|file| oracle(&std::fs::read(file).unwrap()));
    }
}
