//! Names and words of the audit trail fill the columns of a table.

use std::fmt::Display;

use tower_token_auth::{
    Access, Action, Label, Outcome, OwnerId, Reason, Scope, SecretSlot, TokenId, TokenState, UnavailableCause,
    UserAgent,
};

#[track_caller]
fn assert_fills(word: impl Display) {
    let text = word.to_string();
    assert_eq!(format!("{word:<30}|"), format!("{text:<30}|"));
    assert_eq!(format!("{word:>30}|"), format!("{text:>30}|"));
}

#[test]
fn words_are_padded_to_the_width_asked_for() {
    assert_fills(Access::Write);
    assert_fills(Action::ChangePolicy);
    assert_fills(Outcome::WouldForbid);
    assert_fills(Reason::Mismatch);
    assert_fills(UnavailableCause::StoreFailed);
    assert_fills(Scope::ReadOnly);
    assert_fills(SecretSlot::Retiring);
    assert_fills(TokenState::Paused);
    assert_fills(TokenId::generate().unwrap());
    assert_fills(OwnerId::new("alice").unwrap());
    assert_fills(Label::new("nightly export").unwrap());

    assert_fills(UserAgent::Unnamed);
}
