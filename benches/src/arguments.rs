//! Arguments of the form `--name value`.

use std::str::FromStr;

/// What follows `name` on the command line.
///
/// # Panics
/// Where it cannot be understood.
pub fn value<T: FromStr>(name: &str) -> Option<T> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name).skip(1);
    arguments.next().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} {text}: what is that?")))
}
