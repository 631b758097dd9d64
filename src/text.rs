//! Making foreign text safe to print: capped, without control or bidi characters.
//!
//! Whatever a caller or an administrator types ends up in somebody's log or terminal. A line feed forges a log line,
//! an escape sequence rewrites a terminal, a bidi override makes text read backwards (CVE-2021-42574).

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// Why a piece of text cannot be a label, an owner or an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TextError {
    /// The text is empty.
    Empty,
    /// The text is longer than `max` bytes of UTF-8.
    TooLong {
        /// The greatest accepted length, in bytes.
        max: usize,
    },
    /// The text holds a control, line-separator or bidirectional-formatting character.
    Unprintable,
    /// The text is not a hyphenated UUID.
    NotAUuid,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the text is empty"),
            Self::TooLong { max } => write!(f, "the text is longer than {max} bytes"),
            Self::Unprintable => f.write_str("the text holds a control or bidirectional character"),
            Self::NotAUuid => f.write_str("the text is not a hyphenated UUID"),
        }
    }
}

impl std::error::Error for TextError {}

impl From<std::convert::Infallible> for TextError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// Refuses text that is empty, longer than `max` bytes, or unsafe to print.
pub(crate) fn check(text: &str, max: usize) -> Result<(), TextError> {
    if text.is_empty() {
        return Err(TextError::Empty);
    }
    if text.len() > max {
        return Err(TextError::TooLong { max });
    }
    if text.chars().any(is_unprintable) {
        return Err(TextError::Unprintable);
    }
    Ok(())
}

/// `bytes` as at most `max` bytes of printable text; what had to go is shown as `U+FFFD`, a cut as `…`.
///
/// Borrows when nothing has to change, which is the ordinary case.
pub(crate) fn clean(bytes: &[u8], max: usize) -> Cow<'_, str> {
    if bytes.len() <= max && bytes.iter().all(|byte| (0x20..0x7f).contains(byte)) {
        return String::from_utf8_lossy(bytes);
    }
    // Only what can be kept is looked at: an attacker's megabyte costs no more than the cap.
    let head = bytes.get(..max).unwrap_or(bytes);
    let mut text = String::with_capacity(max.min(bytes.len()));
    let mut cut = bytes.len() > max;
    for char in String::from_utf8_lossy(head).chars() {
        let char = if is_unprintable(char) { char::REPLACEMENT_CHARACTER } else { char };
        if text.len() + char.len_utf8() > max {
            cut = true;
            break;
        }
        text.push(char);
    }
    if cut {
        mark_cut(&mut text, max);
    }
    Cow::Owned(text)
}

fn mark_cut(text: &mut String, max: usize) {
    while text.len() + '…'.len_utf8() > max && text.pop().is_some() {}
    if text.len() + '…'.len_utf8() <= max {
        text.push('…');
    }
}

fn is_unprintable(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' // bidi
            | '\u{2028}' | '\u{2029}' // line and paragraph separators
            | '\u{FEFF}' // byte order mark
        )
}

/// What caused an error, outermost first, in one line.
pub(crate) struct Causes<'a>(pub(crate) &'a dyn StdError);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, "{error}")?;
            cause = error.source();
            f.write_str(if cause.is_some() { ": " } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_is_borrowed_as_it_is() {
        assert!(matches!(clean(b"/issues/7", 64), Cow::Borrowed("/issues/7")));
    }

    #[test]
    fn control_and_bidi_characters_are_replaced() {
        assert_eq!(clean("a\nb\u{202E}c\u{1b}[31m".as_bytes(), 64), "a\u{FFFD}b\u{FFFD}c\u{FFFD}[31m");
        assert_eq!(clean(b"\xff\xfe", 64), "\u{FFFD}\u{FFFD}");
    }

    #[test]
    fn no_output_is_longer_than_the_cap() {
        for max in 0..40 {
            for input in ["x".repeat(200), "é".repeat(100), "\n".repeat(100), "😀".repeat(30)] {
                let text = clean(input.as_bytes(), max);
                assert!(text.len() <= max, "{max}: {text:?}");
            }
        }
        assert_eq!(clean(b"abcdefgh", 6), "abc…");
    }

    #[test]
    fn checked_text_names_what_is_wrong() {
        assert_eq!(check("ok é", 16), Ok(()));
        assert_eq!(check("", 16), Err(TextError::Empty));
        assert_eq!(check("12345", 4), Err(TextError::TooLong { max: 4 }));
        assert_eq!(check("a\tb", 16), Err(TextError::Unprintable));
        assert_eq!(check("a\u{2066}b", 16), Err(TextError::Unprintable));
    }
}
