//! Changes as a short text, for a channel or a table.

use crate::id::OwnerId;
use crate::store::Notice;
use crate::token::Revision;

/// Reads `token <id> <revision>`, `token <id>`, `owner <owner>` or `all`. What is none of these may be anything, and
/// so means everything: a notice can only distrust, which costs look-ups and nothing else.
pub(super) fn parse(text: &str) -> Notice {
    known(text).unwrap_or(Notice::All)
}

fn known(text: &str) -> Option<Notice> {
    match text.split_once(' ')? {
        ("owner", owner) => OwnerId::new(owner).ok().map(Notice::Owner),
        ("token", token) => {
            let (id, revision) = match token.split_once(' ') {
                Some((id, revision)) => (id, Some(Revision::new(revision.parse().ok()?))),
                None => (token, None),
            };
            Some(Notice::Token { id: id.parse().ok()?, revision })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_read() {
        let id = "0123456789abcdef".parse().unwrap();
        for (text, notice) in [
            ("token 0123456789abcdef 7", Notice::Token { id, revision: Some(Revision::new(7)) }),
            ("token 0123456789abcdef", Notice::Token { id, revision: None }),
            ("owner a team of two", Notice::Owner(OwnerId::new("a team of two").unwrap())),
            ("all", Notice::All),
        ] {
            assert_eq!(parse(text), notice);
        }
    }

    #[test]
    fn what_is_none_of_them_means_everything() {
        let long = format!("owner {}", "x".repeat(257));
        for text in ["", "token", "token ", "token short 1", "token 0123456789abcdef -1", "owner ", "owner \n", &long] {
            assert_eq!(parse(text), Notice::All, "{text:?}");
        }
    }
}
