//! Reading `Authorization: Bearer …` (RFC 6750 §2.1, RFC 9110 §11).
//!
//! # How it decides
//! 1. No line, or a line of white space: [`Credentials::Missing`].
//! 2. Two or more lines, whatever their schemes: [`Credentials::Malformed`], because which one counts is a guess that
//!    two servers make differently.
//! 3. More than 8 KiB: `Malformed`.
//! 4. Another scheme than `Bearer`, in any case: [`Credentials::OtherScheme`].
//! 5. `Bearer`, then one or more spaces, then one `b64token`: [`Credentials::Bearer`]; anything else is `Malformed`.
//!
//! # Cost
//! One pass over the bytes, no allocation.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};

/// The greatest length of a header value that is looked into, in bytes.
pub(crate) const MAX_LEN: usize = 8 * 1024;

/// What a request presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credentials<'a> {
    Missing,
    OtherScheme,
    Malformed,
    /// A `b64token`, which need not be one of ours.
    Bearer(&'a [u8]),
}

/// The `Authorization` lines of a request, taken off it.
pub(crate) struct Authorization {
    first: Option<HeaderValue>,
    lines: usize,
}

impl Authorization {
    /// Takes all lines, and keeps the first: the one that counts, where it is the only one.
    pub(crate) fn take(headers: &mut HeaderMap) -> Self {
        // Removing looks for the name once; asking first would look twice, for every request.
        let before = headers.len();
        let first = headers.remove(AUTHORIZATION);
        Self { first, lines: before - headers.len() }
    }

    /// What follows the scheme in the one spelling that nearly all clients use. It need not be a token.
    pub(crate) fn plain(&self) -> Option<&[u8]> {
        let line = self.first.as_ref().filter(|_| self.lines == 1)?;
        line.as_bytes().strip_prefix(b"Bearer ")
    }

    pub(crate) fn read(&self) -> Credentials<'_> {
        parse(self.first.as_ref().map(HeaderValue::as_bytes), self.lines)
    }

    /// Puts a line back that an inner service is to see, and nobody to log.
    pub(crate) fn put_back(&mut self, headers: &mut HeaderMap) {
        if let Some(mut header) = self.first.take() {
            header.set_sensitive(true);
            headers.insert(AUTHORIZATION, header);
        }
    }
}

/// Reads the first of so many `Authorization` lines.
fn parse(first: Option<&[u8]>, lines: usize) -> Credentials<'_> {
    match first {
        None => Credentials::Missing,
        Some(_) if lines > 1 => Credentials::Malformed,
        Some(line) => parse_line(line),
    }
}

fn parse_line(line: &[u8]) -> Credentials<'_> {
    if line.len() > MAX_LEN {
        return Credentials::Malformed;
    }
    // What nearly every client sends; all other spellings take the long way to the same answer.
    if let Some(token) = line.strip_prefix(b"Bearer ").filter(|token| is_b64token(token)) {
        return Credentials::Bearer(token);
    }
    let line = trim_end(trim_start(line));
    if line.is_empty() {
        return Credentials::Missing;
    }
    let end = line.iter().position(|byte| is_blank(*byte)).unwrap_or(line.len());
    let (scheme, rest) = line.split_at(end);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Credentials::OtherScheme;
    }
    match trim_spaces(rest) {
        // HTAB is no separator here: RFC 9110 §11.4 asks for SP.
        token if rest.starts_with(b" ") && is_b64token(token) => Credentials::Bearer(token),
        _ => Credentials::Malformed,
    }
}

/// RFC 6750 §2.1: `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`.
fn is_b64token(token: &[u8]) -> bool {
    let body = trim_padding(token);
    // Without a branch for each byte: the compiler looks at sixteen at a time.
    !body.is_empty() && body.iter().fold(true, |all, byte| all & is_b64_byte(*byte))
}

const fn is_b64_byte(byte: u8) -> bool {
    // `|`, not `||` and not a table: what has no branch is vectorised.
    byte.is_ascii_alphanumeric()
        | (byte == b'-')
        | (byte == b'.')
        | (byte == b'_')
        | (byte == b'~')
        | (byte == b'+')
        | (byte == b'/')
}

const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

const fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes {
        if !is_blank(*first) {
            break;
        }
        bytes = rest;
    }
    bytes
}

const fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., last] = bytes {
        if !is_blank(*last) {
            break;
        }
        bytes = rest;
    }
    bytes
}

const fn trim_padding(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b'='] = bytes {
        bytes = rest;
    }
    bytes
}

const fn trim_spaces(mut bytes: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all<'a>(lines: &[&'a [u8]]) -> Credentials<'a> {
        parse(lines.first().copied(), lines.len())
    }

    #[track_caller]
    fn one(line: &str) -> Credentials<'_> {
        all(&[line.as_bytes()])
    }

    #[test]
    fn one_well_formed_token_is_read() {
        for line in ["Bearer a", "bEaReR a", "Bearer     a", " \t Bearer a \t "] {
            assert_eq!(one(line), Credentials::Bearer(b"a"), "{line:?}");
        }
        assert_eq!(one("Bearer -._~+/09AZaz=="), Credentials::Bearer(b"-._~+/09AZaz=="));
    }

    #[test]
    fn no_credentials_and_other_schemes_are_told_apart() {
        assert_eq!(all(&[]), Credentials::Missing);
        for line in ["", " ", " \t "] {
            assert_eq!(one(line), Credentials::Missing, "{line:?}");
        }
        for line in ["Basic YTpi", "BearerX a", "Bearer: a", "Bear a", "x", "Bearer\u{b}a"] {
            assert_eq!(one(line), Credentials::OtherScheme, "{line:?}");
        }
    }

    #[test]
    fn a_bearer_that_breaks_the_grammar_is_malformed() {
        for line in [
            "Bearer",
            "Bearer ",
            "Bearer\ta",
            "Bearer \ta",
            "Bearer a b",
            "Bearer a\tb",
            "Bearer =",
            "Bearer a=b",
            "Bearer a,b",
            "Bearer \"a\"",
            "Bearer é",
            "Bearer a\0",
        ] {
            assert_eq!(one(line), Credentials::Malformed, "{line:?}");
        }
    }

    #[test]
    fn two_lines_are_malformed_whatever_they_say() {
        for lines in [["Bearer a", "Bearer a"], ["Basic a", "Bearer b"], ["", ""], ["Basic a", "Basic b"]] {
            assert_eq!(all(&lines.map(str::as_bytes)), Credentials::Malformed, "{lines:?}");
        }
    }

    #[test]
    fn every_line_is_taken_and_counted() {
        for lines in 0..4 {
            let mut headers = HeaderMap::new();
            headers.insert("accept", HeaderValue::from_static("*/*"));
            for _ in 0..lines {
                headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer a"));
            }
            let taken = Authorization::take(&mut headers);
            assert_eq!((taken.lines, headers.len(), headers.contains_key(AUTHORIZATION)), (lines, 1, false));
            let read = [Credentials::Missing, Credentials::Bearer(b"a"), Credentials::Malformed];
            assert_eq!(taken.read(), read[lines.min(2)]);
        }
    }

    #[test]
    fn the_length_bound_is_exact() {
        let fits = format!("Bearer {}", "a".repeat(8_192 - 7));
        assert!(matches!(one(&fits), Credentials::Bearer(_)));
        assert_eq!(one(&format!("{fits}a")), Credentials::Malformed);
        assert_eq!(one(&format!("Basic {fits}")), Credentials::Malformed);
    }

    /// Vectors that other projects wrote; each character of a line stands for one octet.
    #[test]
    fn every_vector_of_other_projects_holds() {
        let vectors = include_str!("../tests/vectors/authorization.jsonl");
        for vector in vectors.lines() {
            let vector: serde_json::Value = serde_json::from_str(vector).unwrap();
            let octets = |text: &str| text.chars().map(|char| u8::try_from(char).unwrap()).collect::<Vec<u8>>();
            let lines = vector["authorization"].as_array().unwrap();
            let lines: Vec<Vec<u8>> = lines.iter().map(|line| octets(line.as_str().unwrap())).collect();
            let token = vector["token"].as_str().map(octets);
            match (vector["expect"].as_str().unwrap(), all(&lines.iter().map(Vec::as_slice).collect::<Vec<_>>())) {
                ("missing", Credentials::Missing | Credentials::OtherScheme) => assert_eq!(token, None, "{vector}"),
                ("malformed", Credentials::Malformed) => assert_eq!(token, None, "{vector}"),
                ("token", Credentials::Bearer(found)) => assert_eq!(Some(found), token.as_deref(), "{vector}"),
                (_, found) => panic!("{vector} was read as {found:?}"),
            }
        }
        assert_eq!(vectors.lines().count(), 82);
    }
}
