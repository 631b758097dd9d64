//! The assertion every guarded application should make.

use std::fmt::Debug;

use http::header::WWW_AUTHENTICATE;
use http::{Method, Request, Response, StatusCode};
use tower::{Service, ServiceExt};

const METHODS: [Method; 6] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Asserts that every path refuses a request without credentials, whatever its method: 401 with a `Bearer` challenge
/// (RFC 9110 §11.6.1).
///
/// GET, HEAD, POST, PUT, PATCH and DELETE are sent with an empty body. A 405 is no admission: routers answer it for
/// methods a route does not have. At least one method of each path has to be answered 401. Give it the whole application, and every path
/// that must not be open: it finds the route that was added after the layer. A path is what a request line has, such as
/// `/issues/7?full=1`.
///
/// An axum `Router` takes any body, so name one: `assert_refuses_anonymous::<_, axum::body::Body, _>(router, paths)`.
///
/// # Panics
/// When an answer is anything else, or none, when a path is no URI, and when there is no path, which would prove
/// nothing. The message names the method, path and status of every such answer.
///
/// # Cancellation
/// Dropped, it sends no further request.
///
/// # Example
/// ```
/// use http::{Request, Response, StatusCode, header::WWW_AUTHENTICATE};
/// use tower_token_auth::test_util::assert_refuses_anonymous;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// // Stands for an application behind a `TokenAuthLayer`.
/// let app = tower::service_fn(|_: Request<String>| async {
///     let refusal = Response::builder().status(StatusCode::UNAUTHORIZED).header(WWW_AUTHENTICATE, "Bearer realm=\"api\"");
///     refusal.body(String::new())
/// });
/// assert_refuses_anonymous(app, ["/issues", "/issues/7"]).await;
/// # }
/// ```
pub async fn assert_refuses_anonymous<'p, S, B, R>(app: S, paths: impl IntoIterator<Item = &'p str>)
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: Debug,
    B: Default,
{
    let mut paths = paths.into_iter().peekable();
    let mut complaints = Vec::new();
    if paths.peek().is_none() {
        complaints.push("no path was given".to_owned());
    }
    for path in paths {
        let mut refused = false;
        for method in METHODS {
            match try_anonymous(app.clone(), &method, path).await {
                Ok(Answer::Refused) => refused = true,
                Ok(Answer::NoSuchMethod) => {}
                Err(complaint) => complaints.push(format!("{method} {path}: {complaint}")),
            }
        }
        if !refused {
            complaints.push(format!("{path}: answered no method with 401"));
        }
    }
    let complaints = complaints.join("\n  ");
    assert!(complaints.is_empty(), "not every anonymous request gets 401 and a Bearer challenge:\n  {complaints}");
}

/// An answer that gives nothing away.
enum Answer {
    Refused,
    NoSuchMethod,
}

/// Sends one request; the error says what was wrong with the answer.
async fn try_anonymous<S, B, R>(app: S, method: &Method, path: &str) -> Result<Answer, String>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Debug,
    B: Default,
{
    let request = Request::builder().method(method).uri(path).body(B::default());
    let request = request.map_err(|error| format!("the path is no URI ({error})"))?;
    let response = app.oneshot(request).await.map_err(|error| format!("the service failed ({error:?})"))?;
    let mut challenges = response.headers().get_all(WWW_AUTHENTICATE).iter();
    match response.status() {
        StatusCode::UNAUTHORIZED if challenges.any(|one| one.as_bytes().starts_with(b"Bearer")) => Ok(Answer::Refused),
        StatusCode::METHOD_NOT_ALLOWED => Ok(Answer::NoSuchMethod),
        StatusCode::UNAUTHORIZED => Err("answered 401 without a Bearer challenge".to_owned()),
        status => Err(format!("answered {status}")),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::panic::AssertUnwindSafe;

    use futures_util::FutureExt;
    use tower::service_fn;

    use super::*;

    fn answer(status: u16, challenge: &str) -> Result<Response<()>, Infallible> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge.parse().unwrap());
        Ok(response)
    }

    /// What the assertion says of an application that answers GET and HEAD so, and refuses all else.
    async fn complaint(status: u16, challenge: &'static str, paths: &[&str]) -> Option<String> {
        let app = service_fn(move |request: Request<()>| async move {
            if request.method().is_safe() { answer(status, challenge) } else { answer(401, "Bearer") }
        });
        let assertion = assert_refuses_anonymous(app, paths.iter().copied());
        let panic = AssertUnwindSafe(assertion).catch_unwind().await.err()?;
        panic.downcast_ref::<String>().cloned()
    }

    #[tokio::test]
    async fn a_refusing_application_passes() {
        assert_eq!(complaint(401, "Bearer realm=\"api\"", &["/", "/a?b"]).await, None);
    }

    #[tokio::test]
    async fn an_open_one_is_named() {
        let open = complaint(200, "Bearer", &["/a"]).await.unwrap();
        assert!(open.ends_with("\n  GET /a: answered 200 OK\n  HEAD /a: answered 200 OK"), "{open}");
        let basic = complaint(401, "Basic", &["/a"]).await.unwrap();
        assert!(basic.contains("GET /a: answered 401 without a Bearer challenge"), "{basic}");
        assert!(complaint(401, "Bearer", &["not a path"]).await.unwrap().contains("no URI"));
        assert_eq!(complaint(405, "Bearer", &["/a"]).await, None, "POST is refused");
        assert!(complaint(401, "Bearer", &[]).await.unwrap().contains("no path was given"));
    }
}
