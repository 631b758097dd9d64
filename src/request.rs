//! What the application's own closures may see of a request.

use http::{Extensions, HeaderMap, Method, Request, Uri};

/// The head of a request, without its credentials.
///
/// Closures given to the builder (access, client address, route, request id) see this. The `Authorization` header
/// has been taken out of `headers` before: no closure can log a secret.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RequestHead<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's target.
    pub uri: &'a Uri,
    /// The request's headers, without `Authorization`.
    pub headers: &'a HeaderMap,
    /// What layers further out have attached.
    pub extensions: &'a Extensions,
}

impl<'a> RequestHead<'a> {
    /// The head of a request from which the caller has taken `Authorization`.
    #[inline(always)]
    pub(crate) fn of<B>(request: &'a Request<B>) -> Self {
        let (headers, extensions) = (request.headers(), request.extensions());
        Self { method: request.method(), uri: request.uri(), headers, extensions }
    }
}
