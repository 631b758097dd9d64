//! What a request does: read or write.
//!
//! # How it decides
//! The base, first match wins:
//! 1. what the router [requires](crate::TokenAuthLayer::requiring);
//! 2. what the application's [classifier](crate::TokenAuthBuilder::access) answers;
//! 3. the method: exactly the bytes `GET`, `HEAD` and `OPTIONS` are [`Access::Read`], everything else is
//!    [`Access::Write`]. `Method::is_safe` is not asked: the set it answers for grows with the `http` crate.
//!
//! Then, only ever upwards:
//! 4. a non-empty `Upgrade` header and the method CONNECT mean `Write`, because what is opened can write; a router
//!    that requires `Read` has said otherwise. `Upgrade: h2c` alone does not count: Java's client sends it on every
//!    plain request, so it is taken off and the request goes on as the plain request it is.
//! 5. `X-HTTP-Method-Override`, `X-HTTP-Method` and `X-Method-Override` mean `Write` unless they name `GET`, `HEAD`
//!    or `OPTIONS`, also where the router requires `Read`: something behind the gate may obey them.

use std::fmt;

use http::header::{HeaderName, UPGRADE};
use http::{HeaderMap, Method};

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a request reads or writes; a third kind would be another crate")]
pub enum Access {
    /// It changes nothing.
    Read,
    /// It may change something.
    Write,
}

impl Access {
    /// What a method does by itself: exactly GET, HEAD and OPTIONS read (RFC 9110 §9.2.1 names them safe; TRACE, also
    /// named there, is counted as a write because it reflects credentials).
    #[must_use]
    pub fn of_method(method: &Method) -> Self {
        // `Method` parses exactly these bytes to these constants.
        match *method {
            Method::GET | Method::HEAD | Method::OPTIONS => Self::Read,
            _ => Self::Write,
        }
    }

    fn of_method_name(name: &[u8]) -> Self {
        match name {
            b"GET" | b"HEAD" | b"OPTIONS" => Self::Read,
            _ => Self::Write,
        }
    }

    /// The stable text form, `read` or `write`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The access a request needs, and what made it so; a refusal tells its client why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Demand {
    pub(crate) access: Access,
    pub(crate) cause: DemandCause,
    /// Whether there is an `Upgrade` header, whatever it says.
    pub(crate) has_upgrade: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DemandCause {
    /// The method, the router or the classifier.
    Request,
    /// The request asks to change the protocol.
    Upgrade,
    /// A method-override header names a writing method.
    Override,
}

impl Demand {
    /// Judges a request; `classified` is the classifier's answer, which counts only where nothing is required.
    #[inline]
    pub(crate) fn judge(
        method: &Method,
        headers: &HeaderMap,
        required: Option<Access>,
        classified: Option<Access>,
    ) -> Self {
        let base = required.or(classified).unwrap_or_else(|| Access::of_method(method));
        let named = Named::of(headers);
        let demand = Self { access: base, cause: DemandCause::Request, has_upgrade: named.upgrade };
        if base == Access::Write {
            return demand;
        }
        if named.an_override && any_override_writes(headers) {
            return Self { access: Access::Write, cause: DemandCause::Override, ..demand };
        }
        let upgrades = method == Method::CONNECT || (named.upgrade && asks_for_upgrade(headers));
        if required.is_none() && upgrades {
            return Self { access: Access::Write, cause: DemandCause::Upgrade, ..demand };
        }
        demand
    }
}

const OVERRIDES: [HeaderName; 3] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];

/// Which headers that may raise an access there are, whatever they say.
struct Named {
    an_override: bool,
    upgrade: bool,
}

impl Named {
    /// Looks at all names, which costs less than hashing these four: few requests have thirty headers.
    fn of(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self { an_override: false, upgrade: false }, |named, name| Self {
            an_override: named.an_override || OVERRIDES.contains(name),
            upgrade: named.upgrade || name == UPGRADE,
        })
    }
}

fn any_override_writes(headers: &HeaderMap) -> bool {
    OVERRIDES
        .iter()
        .flat_map(|name| headers.get_all(name))
        .any(|value| Access::of_method_name(trim(value.as_bytes())) == Access::Write)
}

fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    protocols(headers).any(|protocol| !protocol.eq_ignore_ascii_case(b"h2c"))
}

/// Takes `Upgrade: h2c` off a request that asks for nothing else, with the settings that belong to it
/// (RFC 7540 §3.2; RFC 9113 §3.1 calls the mechanism obsolete).
pub(crate) fn strip_h2c(headers: &mut HeaderMap) {
    if headers.contains_key(UPGRADE) && !asks_for_upgrade(headers) && protocols(headers).next().is_some() {
        headers.remove(UPGRADE);
        headers.remove(HeaderName::from_static("http2-settings"));
    }
}

/// The non-empty elements of all `Upgrade` lines (RFC 9110 §7.8; empty elements are ignored, §5.6.1.2).
fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(UPGRADE)
        .into_iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(trim)
        .filter(|protocol| !protocol.is_empty())
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_text_form_is_stable() {
        assert_eq!([Access::Read, Access::Write].map(Access::as_str), ["read", "write"]);
        assert_eq!(Access::Read.to_string(), "read");
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[track_caller]
    fn demand(method: &str, lines: &[(&'static str, &'static str)], required: Option<Access>) -> Demand {
        Demand::judge(&method.parse().unwrap(), &headers(lines), required, None)
    }

    #[test]
    fn exactly_get_head_and_options_read() {
        for method in ["GET", "HEAD", "OPTIONS"] {
            assert_eq!(Access::of_method(&method.parse().unwrap()), Access::Read, "{method}");
        }
        for method in ["get", "Get", "POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "QUERY", "PROPFIND", "GETS"]
        {
            assert_eq!(Access::of_method(&method.parse().unwrap()), Access::Write, "{method}");
        }
    }

    #[test]
    fn an_upgrade_writes_and_connection_alone_does_not() {
        for value in ["websocket", "h2c, websocket", "WebSocket", "TLS/1.0", "h2", "h2c/1"] {
            let found = demand("GET", &[("upgrade", value)], None);
            let expected = Demand { access: Access::Write, cause: DemandCause::Upgrade, has_upgrade: true };
            assert_eq!(found, expected, "{value}");
        }
        for lines in [[("upgrade", "")], [("upgrade", " , ")], [("upgrade", "H2C")], [("connection", "upgrade")]] {
            assert_eq!(demand("GET", &lines, None).access, Access::Read, "{lines:?}");
        }
    }

    #[test]
    fn an_upgrade_header_is_told_of_whatever_becomes_of_the_request() {
        for (method, lines, has_upgrade) in [
            ("GET", &[("upgrade", "h2c")][..], true),
            ("POST", &[("upgrade", "h2c")], true),
            ("GET", &[("upgrade", "h2c"), ("x-http-method", "PUT")], true),
            ("GET", &[("connection", "upgrade")], false),
            ("POST", &[], false),
        ] {
            for required in [None, Some(Access::Read), Some(Access::Write)] {
                assert_eq!(demand(method, lines, required).has_upgrade, has_upgrade, "{method} {lines:?} {required:?}");
            }
        }
    }

    #[test]
    fn requiring_read_covers_upgrades_and_never_an_override() {
        assert_eq!(demand("CONNECT", &[], Some(Access::Read)).access, Access::Read);
        assert_eq!(demand("GET", &[("upgrade", "websocket")], Some(Access::Read)).access, Access::Read);
        let raised = demand("GET", &[("x-http-method", "DELETE")], Some(Access::Read));
        assert_eq!((raised.access, raised.cause), (Access::Write, DemandCause::Override));
    }

    #[test]
    fn an_override_only_raises() {
        for name in ["x-http-method-override", "x-http-method", "x-method-override"] {
            for value in ["POST", "get", "", "GET, POST", "DELETE"] {
                assert_eq!(demand("GET", &[(name, value)], None).access, Access::Write, "{name}: {value}");
            }
            for value in ["GET", "HEAD", "OPTIONS"] {
                assert_eq!(demand("GET", &[(name, value)], None).access, Access::Read, "{name}: {value}");
                assert_eq!(demand("POST", &[(name, value)], None).access, Access::Write, "{name}: {value}");
            }
        }
        assert_eq!(demand("GET", &[("x-http-method", "GET"), ("x-http-method", "PUT")], None).access, Access::Write);
    }

    #[test]
    fn the_classifier_decides_where_nothing_is_required() {
        let none = HeaderMap::new();
        let judge = |required, classified| Demand::judge(&Method::POST, &none, required, classified).access;
        assert_eq!(judge(None, None), Access::Write);
        assert_eq!(judge(None, Some(Access::Read)), Access::Read);
        assert_eq!(judge(Some(Access::Write), Some(Access::Read)), Access::Write);
        assert_eq!(judge(Some(Access::Read), Some(Access::Write)), Access::Read);
        let upgrade = headers(&[("upgrade", "websocket")]);
        let classified = Demand::judge(&Method::GET, &upgrade, None, Some(Access::Read));
        assert_eq!(classified.access, Access::Write, "a classifier does not speak for what is opened");
    }

    #[test]
    fn h2c_is_stripped_only_where_it_stands_alone() {
        let mut alone = headers(&[("upgrade", "h2c"), ("http2-settings", "AAMAAABk"), ("connection", "Upgrade")]);
        strip_h2c(&mut alone);
        assert_eq!(alone, headers(&[("connection", "Upgrade")]));
        for kept in [headers(&[("upgrade", "h2c, websocket")]), headers(&[("upgrade", "")]), HeaderMap::new()] {
            let mut stripped = kept.clone();
            strip_h2c(&mut stripped);
            assert_eq!(stripped, kept);
        }
    }
}
