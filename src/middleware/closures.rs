//! The application's closures, which describe a request.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use http::HeaderValue;
use http::header::USER_AGENT;

use crate::access::Access;
use crate::audit::RequestFacts;
use crate::request::RequestHead;

type Ask<T> = Option<Arc<dyn Fn(&RequestHead<'_>) -> Option<T> + Send + Sync>>;

/// The application's closures.
#[derive(Clone, Default)]
pub(super) struct Closures {
    pub(super) access: Ask<Access>,
    pub(super) client_address: Ask<IpAddr>,
    pub(super) route: Ask<String>,
    pub(super) request_id: Ask<String>,
}

impl Closures {
    pub(super) fn facts<'a>(&self, head: &RequestHead<'a>) -> RequestFacts<'a> {
        let user_agent = head.headers.get(USER_AGENT).map(HeaderValue::as_bytes);
        let facts = RequestFacts::new(head.method.as_str(), head.uri.path(), user_agent)
            .with_route(ask(&self.route, head))
            .with_request_id(ask(&self.request_id, head));
        RequestFacts { client_address: ask(&self.client_address, head), ..facts }
    }
}

/// Asks a closure; one that panics has nothing to say, and is told of.
pub(super) fn ask<T>(closure: &Ask<T>, head: &RequestHead<'_>) -> Option<T> {
    let answer = catch_unwind(AssertUnwindSafe(|| closure.as_ref()?(head)));
    answer.unwrap_or_else(|_| {
        tracing::error!("a closure that describes requests for the audit trail panicked");
        None
    })
}
