//! The axum extractors: the token, perhaps a token, and the mistake of having no layer.

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::Request;
use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_token_auth::test_util::assert_refuses_anonymous;
use tower_token_auth::{Access, AuthenticatedToken, OnMissing, Scope};

use crate::cache_rules::bench::{Bench, bearer};

async fn required(token: AuthenticatedToken) -> String {
    format!("{} writes: {}", token.id(), token.permits(Access::Write))
}

async fn perhaps(token: Option<AuthenticatedToken>) -> String {
    token.map_or_else(|| "nobody".to_owned(), |token| token.id().to_string())
}

fn routes() -> Router {
    Router::new().route("/required", get(required)).route("/perhaps", get(perhaps))
}

fn to(path: &str, mut request: Request<Body>) -> Request<Body> {
    *request.uri_mut() = path.parse().unwrap();
    request
}

fn anonymous() -> Request<Body> {
    Request::new(Body::empty())
}

async fn ask(app: &Router, request: Request<Body>) -> (u16, String) {
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn handlers_learn_whose_token_it_is() {
    let bench = Bench::new();
    let token = bench.token(Scope::ReadOnly).await;
    let app = routes().route_layer(bench.auth.clone());
    for _cold_then_hot in 0..2 {
        let (status, body) = ask(&app, to("/required", bearer(&token))).await;
        assert_eq!((status, body), (200, format!("{} writes: false", token.id())));
        let (status, body) = ask(&app, to("/perhaps", bearer(&token))).await;
        assert_eq!((status, body), (200, token.id().to_string()));
    }
}

#[tokio::test]
async fn every_property_of_the_token_is_told() {
    let bench = Bench::new();
    let token = bench.token(Scope::ReadWrite).await;
    let record = bench.record(&token).await;
    let tell = |token: AuthenticatedToken| async move {
        format!(
            "{:?} {:?} {:?} {:?} {:?}",
            token.owner(),
            token.label(),
            token.scope(),
            token.expires_at(),
            token.attributes()
        )
    };
    let app = Router::new().route("/", get(tell)).route_layer(bench.auth.clone());
    let told = format!(
        "{:?} {:?} {:?} {:?} {:?}",
        record.owner(),
        record.label(),
        record.scope(),
        record.expires_at(),
        record.attributes()
    );
    assert_eq!(ask(&app, to("/", bearer(&token))).await, (200, told));
}

#[tokio::test]
async fn anonymous_requests_do_not_reach_handlers() {
    let bench = Bench::new();
    let app = routes().route_layer(bench.auth.clone());
    assert_refuses_anonymous::<_, Body, _>(app, ["/required", "/perhaps"]).await;
}

#[tokio::test]
async fn a_passed_request_has_no_token_to_extract() {
    let bench = Bench::with(|builder| builder.on_missing(OnMissing::Pass));
    let app = routes().route_layer(bench.auth.clone());
    assert_eq!(ask(&app, to("/perhaps", anonymous())).await, (200, "nobody".to_owned()));
    let (status, body) = ask(&app, to("/required", anonymous())).await;
    assert_eq!(status, 500);
    assert!(body.contains("Option<AuthenticatedToken>"), "{body}");
}

#[tokio::test]
async fn without_the_layer_extracting_is_an_error_that_says_so() {
    for path in ["/required", "/perhaps"] {
        let (status, body) = ask(&routes(), to(path, anonymous())).await;
        assert_eq!(status, 500, "{path}");
        assert!(body.contains("not under a TokenAuthLayer"), "{path}: {body}");
    }
}

#[tokio::test]
async fn a_token_made_for_a_test_can_be_extracted() {
    let token = AuthenticatedToken::builder("alice", "laptop", Scope::ReadOnly).build().unwrap();
    let mut request = to("/required", anonymous());
    request.extensions_mut().insert(token.clone());
    let (status, body) = ask(&routes(), request).await;
    assert_eq!(status, 200);
    assert!(body.starts_with(&token.id().to_string()), "{body}");
}

#[tokio::test]
async fn a_gate_that_does_not_tell_guards_all_the_same() {
    for (tells, path, status) in [(true, "/required", 200), (false, "/required", 500), (false, "/plain", 200)] {
        let bench = Bench::with(|builder| if tells { builder } else { builder.without_extension() });
        let token = bench.hot(Scope::ReadOnly).await;
        let app = routes().route("/plain", get(|| async { "plain" })).layer(bench.auth.clone());
        assert_eq!(ask(&app, to(path, bearer(&token))).await.0, status, "{path}, tells: {tells}");
        assert_eq!(ask(&app, to(path, anonymous())).await.0, 401, "{path}, tells: {tells}");
    }
}

#[tokio::test]
async fn the_same_gate_met_twice_refuses_where_it_does_not_tell() {
    for (tells, status) in [(true, 200), (false, 401)] {
        let bench = Bench::with(|builder| if tells { builder } else { builder.without_extension() });
        let token = bench.hot(Scope::ReadOnly).await;
        let app = routes().route("/plain", get(|| async { "plain" }));
        let app = app.layer(bench.auth.requiring(Access::Read)).layer(bench.auth.clone());
        assert_eq!(ask(&app, to("/plain", bearer(&token))).await.0, status, "tells: {tells}");
    }
}
