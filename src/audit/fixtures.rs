//! Events for this module's tests.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use proptest::prelude::*;
use proptest::sample::select;

use super::event::{Edit, RequestFacts, Subject};
use super::{Action, AuditEvent, Outcome};
use crate::access::Access;
use crate::clock::Timestamp;
use crate::decision::{AuthenticatedToken, IssueRefusal, Reason, UnavailableCause};
use crate::id::{Label, OwnerId, TokenId};
use crate::scope::Scope;
use crate::token::CreatedBy;

pub(crate) fn id(number: u64) -> TokenId {
    format!("{number:016}").parse().unwrap()
}

pub(crate) fn owner(name: &str) -> OwnerId {
    OwnerId::new(name).unwrap()
}

/// Of alice, if its number is even, else of bob.
pub(crate) fn token(number: u64) -> AuthenticatedToken {
    let owner = if number % 2 == 0 { "alice" } else { "bob" };
    AuthenticatedToken::builder(owner, "export", Scope::ReadOnly).id(id(number)).build().unwrap()
}

fn event(outcome: Outcome, reason: Option<Reason>, subject: Subject<'static>) -> AuditEvent<'static> {
    AuditEvent {
        at: Timestamp::from_unix_seconds(1_000),
        repeated: None,
        action: Action::Authenticate,
        outcome,
        reason,
        subject,
        access: Some(Access::Read),
        request: Some(RequestFacts::new("GET", "/issues", Some(b"curl/8"))),
        actor: None,
        edit: None,
    }
}

fn proved(outcome: Outcome, reason: Option<Reason>, number: u64) -> AuditEvent<'static> {
    event(outcome, reason, Subject::Proved(Cow::Owned(token(number))))
}

pub(crate) fn allowed(number: u64) -> AuditEvent<'static> {
    proved(Outcome::Allowed, None, number)
}

pub(crate) fn forbidden(number: u64) -> AuditEvent<'static> {
    proved(Outcome::Refused, Some(Reason::Forbidden), number)
}

pub(crate) fn would_forbid(number: u64) -> AuditEvent<'static> {
    proved(Outcome::WouldForbid, Some(Reason::Forbidden), number)
}

pub(crate) fn claimed(reason: Reason, number: u64) -> AuditEvent<'static> {
    event(Outcome::Refused, Some(reason), Subject::Claimed(id(number)))
}

pub(crate) fn anonymous() -> AuditEvent<'static> {
    event(Outcome::Refused, Some(Reason::Missing), Subject::Nobody)
}

pub(crate) fn desk(number: u64) -> AuditEvent<'static> {
    let label = Some(Cow::Owned(Label::new("export").unwrap()));
    let owner = Some(Cow::Owned(owner("alice")));
    let subject = Subject::Handled { id: Some(id(number)), owner, label, scope: Some(Scope::ReadOnly) };
    let actor = Some(Cow::Owned("user:admin".parse::<CreatedBy>().unwrap()));
    AuditEvent { action: Action::Issue, actor, request: None, ..event(Outcome::Allowed, None, subject) }
}

impl AuditEvent<'static> {
    pub(crate) fn at_milli(self, milli: u64) -> Self {
        Self { at: Timestamp::from_unix_millis(milli), ..self }
    }

    pub(crate) fn by(self, agent: &str) -> Self {
        let (event, facts): (AuditEvent<'_>, _) = (self, RequestFacts::new("GET", "/issues", Some(agent.as_bytes())));
        AuditEvent { request: Some(facts), ..event }.into_owned()
    }
}

/// Bytes that break formats, terminals and parsers.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    const NASTY: [&str; 18] = [
        "\"",
        "\\",
        "\n",
        "\r\n",
        "\0",
        "\u{1b}[2J",
        "\u{202E}",
        "\u{2028}",
        "\u{85}",
        "\u{7f}",
        "\u{FEFF}",
        "\\u0000",
        "\",\"outcome\":\"allowed",
        "}\n{",
        "é",
        "😀",
        "\u{D7FF}",
        "a",
    ];
    let nasty = prop::collection::vec(select(&NASTY[..]), 0..20).prop_map(|parts| parts.concat().into_bytes());
    let bytes = prop::collection::vec(any::<u8>(), 0..40);
    let long = select(&NASTY[..]).prop_map(|part| part.repeat(2_000).into_bytes());
    prop_oneof![4 => nasty, 4 => bytes, 1 => long]
}

fn text() -> impl Strategy<Value = String> {
    hostile().prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// What is as hostile as a name may be.
fn name() -> impl Strategy<Value = String> {
    let parts = prop::collection::vec(select(&["\"", "\\", "}{", "é", "😀", " ", "a", ":", "\u{D7FF}"][..]), 1..16);
    parts.prop_map(|parts| parts.concat())
}

fn facts() -> impl Strategy<Value = RequestFacts<'static>> {
    let texts = (text(), text(), prop::option::of(text()), prop::option::of(text()));
    (texts, prop::option::of(hostile()), any::<bool>()).prop_map(|((method, path, route, id), agent, address)| {
        let facts = RequestFacts::new(&method, &path, agent.as_deref()).with_route(route).with_request_id(id);
        let client_address = address.then_some(Ipv4Addr::LOCALHOST.into());
        let owned = AuditEvent { request: Some(RequestFacts { client_address, ..facts }), ..anonymous() };
        owned.into_owned().request.unwrap()
    })
}

fn any_token() -> impl Strategy<Value = AuthenticatedToken> {
    (0..1_000_u64, name(), name()).prop_map(|(number, owner, label)| {
        AuthenticatedToken::builder(owner, label, Scope::ReadWrite).id(id(number)).build().unwrap()
    })
}

fn subject() -> impl Strategy<Value = Subject<'static>> {
    prop_oneof![
        Just(Subject::Nobody),
        (0..9_u64).prop_map(|number| Subject::Claimed(id(number))),
        any_token().prop_map(|token| Subject::Proved(Cow::Owned(token))),
        any_token().prop_map(|token| Subject::Handled {
            id: Some(token.id()),
            owner: Some(Cow::Owned(token.owner().clone())),
            label: Some(Cow::Owned(token.label().clone())),
            scope: None,
        }),
    ]
}

const ACTIONS: [Action; 6] = [
    Action::Authenticate,
    Action::Issue,
    Action::SetExpiry,
    Action::ChangePolicy,
    Action::ReportThreshold,
    Action::ReportLoss,
];

const OUTCOMES: [Outcome; 6] = [
    Outcome::Allowed,
    Outcome::Passed,
    Outcome::Refused,
    Outcome::WouldForbid,
    Outcome::Unavailable,
    Outcome::Abandoned,
];

const REASONS: [Reason; 6] = [
    Reason::Missing,
    Reason::Mismatch,
    Reason::Forbidden,
    Reason::Unavailable(UnavailableCause::StoreFailed),
    Reason::NotIssued(IssueRefusal::TooManyTokens { max: 2 }),
    Reason::NotIssued(IssueRefusal::Rule("\"}{\n")),
];

/// Events with the worst text that the gate lets into them.
pub(crate) fn any_event() -> impl Strategy<Value = AuditEvent<'static>> {
    let actor = prop::option::of(name().prop_map(|name| CreatedBy::User(owner(&name))));
    let edit = prop::option::of((text(), text()).prop_map(|(before, after)| Edit::new(before, after)));
    let kind = (select(&ACTIONS[..]), select(&OUTCOMES[..]), prop::option::of(select(&REASONS[..])), any::<u64>());
    let request = prop::option::weighted(0.9, facts());
    (kind, subject(), request, actor, edit).prop_map(
        |((action, outcome, reason, at), subject, request, actor, edit)| {
            let actor = actor.map(Cow::Owned);
            let event = event(outcome, reason, subject).at_milli(at);
            AuditEvent { action, request, actor, edit, ..event }
        },
    )
}
