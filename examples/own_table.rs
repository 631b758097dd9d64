//! A gate over a table that is there already: implement one method, and tell the gate of changes.
//!
//! `cargo run --example own_table` maps rows of an application's own `api_keys` table to records, asks the guarded
//! app, and shows what a changed and an unreadable row do.
#![expect(clippy::print_stdout, reason = "a demonstration talks to whoever started it")]

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::{Router, routing::get};
use http::{Method, Request};
use tower::ServiceExt;
use tower_token_auth::{
    Label, OwnerId, PlaintextToken, Prefix, Scratch, SecretHash, SecretHasher, Sha256Hasher, StoreError, Timestamp,
    TokenAuthLayer, TokenId, TokenRecord, TokenState, TokenStore,
};

type AnyError = Box<dyn Error + Send + Sync>;

/// A row as the application has always kept it: texts and numbers.
#[derive(Clone)]
struct Row {
    user_id: u64,
    name: String,
    /// `r` or `rw`; older rows may hold anything.
    rights: String,
    hash: String,
    disabled: bool,
    created_unix: u64,
}

/// The application's table; a database in earnest.
#[derive(Clone, Default)]
struct ApiKeys(Arc<Mutex<HashMap<TokenId, Row>>>);

impl ApiKeys {
    fn put(&self, id: TokenId, row: Row) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, row);
    }

    fn row(&self, id: &TokenId) -> Option<Row> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }
}

impl TokenStore for ApiKeys {
    async fn find(&self, id: &TokenId) -> Result<Option<TokenRecord>, StoreError> {
        self.row(id).map(|row| record(*id, &row)).transpose()
    }
}

/// A row that cannot be read is an error, never a guess: the gate answers 503 and says so in its log.
fn record(id: TokenId, row: &Row) -> Result<TokenRecord, StoreError> {
    let scope = match row.rights.as_str() {
        "r" => tower_token_auth::Scope::ReadOnly,
        "rw" => tower_token_auth::Scope::ReadWrite,
        other => return Err(StoreError::new(format!("api_keys.rights is {other:?}"))),
    };
    let label = Label::new(&row.name).map_err(StoreError::new)?;
    let hash = SecretHash::parse(&row.hash).map_err(StoreError::new)?;
    let created = Timestamp::from_unix_seconds(row.created_unix);
    let state = if row.disabled { TokenState::Paused } else { TokenState::Active };
    Ok(TokenRecord::new(id, OwnerId::from(row.user_id), label, scope, hash, created).with_state(state))
}

fn app(auth: &TokenAuthLayer) -> Router {
    Router::new().route("/", get(|| async { "read" }).post(|| async { "written" })).route_layer(auth.clone())
}

async fn status(app: &Router, method: Method, token: &PlaintextToken) -> Result<u16, AnyError> {
    let request = Request::builder().method(method).uri("/");
    let request = request.header("authorization", format!("Bearer {}", token.expose())).body(Body::empty())?;
    Ok(app.clone().oneshot(request).await?.status().as_u16())
}

fn told(what: &str, found: u16, expected: u16) -> bool {
    println!("{what:<40} {found}");
    found == expected
}

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let table = ApiKeys::default();
    let auth = TokenAuthLayer::builder(table.clone()).prefix("acme").hasher(Sha256Hasher::new()).build()?;
    let (app, gate) = (app(&auth), auth.handle());

    let token = PlaintextToken::generate(&"acme".parse::<Prefix>()?)?;
    let hash = Sha256Hasher::new().hash(token.secret(), &mut Scratch::new())?;
    let hash = hash.with_precheck(&token.id(), token.secret()).to_text();
    let row = Row { user_id: 7, name: "export".into(), rights: "r".into(), hash, disabled: false, created_unix: 0 };
    table.put(token.id(), row.clone());

    let mut good = told("GET with rights `r`", status(&app, Method::GET, &token).await?, 200);
    good &= told("POST with rights `r`", status(&app, Method::POST, &token).await?, 403);

    table.put(token.id(), Row { rights: "rw".into(), ..row.clone() });
    gate.invalidate(&token.id());
    good &= told("POST after the row says `rw`", status(&app, Method::POST, &token).await?, 200);

    table.put(token.id(), Row { disabled: true, ..row.clone() });
    gate.invalidate(&token.id());
    good &= told("GET after the row is disabled", status(&app, Method::GET, &token).await?, 401);

    table.put(token.id(), Row { rights: "admin?".into(), ..row });
    gate.invalidate(&token.id());
    good &= told("GET while the row is unreadable", status(&app, Method::GET, &token).await?, 503);
    if good { Ok(()) } else { Err("an answer differs from what it should be".into()) }
}
