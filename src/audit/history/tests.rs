use std::borrow::Cow;
use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::audit::event::{Edit, Repeated, RequestFacts, Subject};
use crate::audit::fixtures::{allowed, anonymous, claimed, desk, forbidden, id, owner, would_forbid};
use crate::audit::{Action, Outcome};
use crate::clock::Timestamp;
use crate::decision::{AuthenticatedToken, Reason, UnavailableCause};
use crate::id::OwnerId;
use crate::scope::Scope;
use crate::token::Attributes;

fn report() -> AuditEvent<'static> {
    let of = Repeated { count: 50, first_at: Timestamp::from_unix_seconds(1) };
    AuditEvent::of_several(Action::ReportThreshold, Outcome::Refused, Subject::Claimed(id(1)), of.first_at, of)
}

fn record(history: &AuditHistory, events: impl IntoIterator<Item = AuditEvent<'static>>) {
    events.into_iter().for_each(|event| history.record(&event).unwrap());
}

/// All pages.
fn listed(history: &AuditHistory, filter: &HistoryFilter) -> Vec<AuditEvent<'static>> {
    let (mut events, mut cursor) = (Vec::new(), None);
    loop {
        let page = history.events(filter, cursor.as_ref()).unwrap();
        assert!(page.events.len() <= filter.page_size);
        events.extend(page.events);
        cursor = page.next;
        if cursor.is_none() {
            return events;
        }
    }
}

fn sizes(history: &AuditHistory) -> [usize; Kind::ALL.len()] {
    let rooms = lock(&history.0.rooms);
    Kind::ALL.map(|kind| rooms.len(kind))
}

#[test]
fn every_event_has_its_room() {
    let undecided = AuditEvent {
        outcome: Outcome::Unavailable,
        reason: Some(Reason::Unavailable(UnavailableCause::StoreFailed)),
        ..claimed(Reason::Mismatch, 1)
    };
    let about_nobody = AuditEvent { subject: Subject::Nobody, ..desk(1) };
    let asked = |action, outcome| AuditEvent { action, outcome, ..desk(1) };
    for (event, kind) in [
        (desk(1), Kind::Desk),
        (about_nobody, Kind::Desk),
        (asked(Action::Issue, Outcome::Refused), Kind::Declined),
        (asked(Action::Revoke, Outcome::Unavailable), Kind::Declined),
        (asked(Action::Rename, Outcome::Abandoned), Kind::Declined),
        (asked(Action::ChangePolicy, Outcome::Allowed), Kind::Governing),
        (asked(Action::BarOwner, Outcome::Allowed), Kind::Governing),
        (asked(Action::LiftOwner, Outcome::Unavailable), Kind::Governing),
        (asked(Action::Prune, Outcome::Abandoned), Kind::Governing),
        (asked(Action::ChangePolicy, Outcome::Refused), Kind::Declined),
        (report(), Kind::Report),
        (allowed(1), Kind::Allowed),
        (forbidden(1), Kind::Forbidden),
        (would_forbid(1), Kind::Forbidden),
        (claimed(Reason::Mismatch, 1), Kind::Mismatching),
        (claimed(Reason::Expired, 1), Kind::Mismatching),
        (claimed(Reason::Revoked, 1), Kind::Mismatching),
        (claimed(Reason::Paused, 1), Kind::Mismatching),
        (claimed(Reason::OwnerBarred, 1), Kind::Mismatching),
        (claimed(Reason::Unknown, 1), Kind::Anonymous),
        (undecided, Kind::Anonymous),
        (anonymous(), Kind::Anonymous),
    ] {
        assert_eq!(Kind::of(&event), kind, "{event:?}");
    }
}

#[test]
fn a_room_of_zero_keeps_nothing() {
    let history = AuditHistory::builder().anonymous(0).build();
    record(&history, [anonymous(), allowed(1)]);
    assert_eq!(listed(&history, &HistoryFilter::all()).len(), 1);
}

#[test]
fn each_filter_lets_through_what_it_names_and_nothing_else() {
    let at = Timestamp::from_unix_millis;
    let all = HistoryFilter::all;
    for (filter, inside, outside) in [
        (all().token(id(1)), allowed(1), allowed(2)),
        (all().token(id(1)), claimed(Reason::Mismatch, 1), claimed(Reason::Mismatch, 2)),
        (all().token(id(1)), desk(1), anonymous()),
        (all().owner(owner("alice")), allowed(2), allowed(1)),
        (all().owner(owner("alice")), desk(1), claimed(Reason::Mismatch, 2)),
        (all().outcome(Outcome::Refused), forbidden(1), allowed(1)),
        (all().outcome(Outcome::WouldForbid), would_forbid(1), forbidden(1)),
        (all().action(Action::Issue), desk(1), allowed(1)),
        (all().reason(Reason::Paused), claimed(Reason::Paused, 1), claimed(Reason::Mismatch, 1)),
        (all().reason(Reason::Forbidden), forbidden(1), allowed(1)),
        (all().since(at(7)), allowed(1).at_milli(7), allowed(1).at_milli(6)),
        (all().before(at(7)), allowed(1).at_milli(6), allowed(1).at_milli(7)),
        (all().token(id(1)).outcome(Outcome::Refused), forbidden(1), allowed(1)),
    ] {
        let history = AuditHistory::new();
        record(&history, [outside, inside.clone()]);
        let found = listed(&history, &filter);
        assert_eq!(found.len(), 1, "{filter:?}");
        assert_eq!(format!("{:?}", found[0]), format!("{inside:?}"), "all of it is kept");
    }
}

#[test]
fn the_newest_come_first_whatever_their_room() {
    let history = AuditHistory::new();
    let events = [allowed(1), anonymous(), desk(1), allowed(2), forbidden(1), report(), anonymous()];
    record(&history, events.clone());
    for page_size in 1..=8 {
        let found = listed(&history, &HistoryFilter::all().page_size(page_size));
        let expected: Vec<_> = events.iter().rev().map(|event| format!("{event:?}")).collect();
        assert_eq!(found.iter().map(|event| format!("{event:?}")).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn the_last_page_says_that_it_is_the_last() {
    let history = AuditHistory::new();
    record(&history, (0..4).map(allowed));
    for (page_size, more) in [(3, true), (4, false), (5, false)] {
        let page = history.events(&HistoryFilter::all().page_size(page_size), None).unwrap();
        assert_eq!(page.next.is_some(), more);
    }
    let unlimited = HistoryFilter { page_size: 0, ..HistoryFilter::all() };
    assert_eq!(history.events(&unlimited, None).unwrap().events.len(), 1, "0 counts as 1");
}

#[test]
fn a_listing_looks_at_more_than_one_stride() {
    let history = AuditHistory::new();
    record(&history, [forbidden(7)]);
    record(&history, (0..3 * STRIDE as u64).map(allowed));
    assert_eq!(listed(&history, &HistoryFilter::all().outcome(Outcome::Refused)).len(), 1);
    assert_eq!(listed(&history, &HistoryFilter::all().page_size(700)).len(), 3 * STRIDE + 1);
    assert_eq!(all_applications(&history, &ApplicationFilter::all().page_size(700)).len(), 3 * STRIDE);
}

#[test]
fn a_cursor_of_another_history_is_an_error() {
    let (history, other) = (AuditHistory::new(), AuditHistory::new());
    for history in [&history, &other] {
        record(history, (0..4).map(allowed));
    }
    let filter = HistoryFilter::all().page_size(1);
    let next = history.events(&filter, None).unwrap().next.unwrap();
    let travelled = HistoryCursor::new(next.as_str());
    assert_eq!(history.events(&filter, Some(&travelled)).unwrap().events.len(), 1);
    assert!(matches!(other.events(&filter, Some(&next)), Err(HistoryError::Cursor)));
    for wrong in ["", "-", "7", "x-7", &format!("{}x", next.as_str()), &next.as_str()[..9]] {
        let wrong = HistoryCursor::new(wrong);
        assert!(matches!(history.events(&filter, Some(&wrong)), Err(HistoryError::Cursor)), "{wrong:?}");
    }
    let wrong = HistoryCursor::new("nonsense");
    assert!(history.applications(&ApplicationFilter::all(), Some(&wrong)).is_err());
}

const ROOM: usize = 5;

fn of_kind(kind: usize, at: u64) -> AuditEvent<'static> {
    let kinds = [
        AuditEvent { action: Action::BarOwner, ..desk(1) },
        desk(1),
        AuditEvent { outcome: Outcome::Refused, ..desk(1) },
        report(),
        allowed(at % 4),
        forbidden(1),
        claimed(Reason::Mismatch, at % 4),
        anonymous(),
    ];
    kinds[kind].clone().at_milli(at)
}

#[derive(Debug, Clone)]
enum Step {
    Record(usize),
    NextPage,
    StartAgain,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..Kind::ALL.len()).prop_map(Step::Record),
        3 => Just(Step::NextPage),
        1 => Just(Step::StartAgain),
    ]
}

/// What was kept of each kind, by its number; an event's time is its number.
#[derive(Default)]
struct Model {
    rooms: [VecDeque<u64>; Kind::ALL.len()],
}

impl Model {
    fn keep(&mut self, kind: usize, number: u64) {
        self.rooms[kind].push_back(number);
        if self.rooms[kind].len() > ROOM {
            self.rooms[kind].pop_front();
        }
    }

    fn page(&self, filter: &HistoryFilter, before: u64) -> Vec<u64> {
        let kinds = self.rooms.iter().enumerate();
        let all = kinds.flat_map(|(kind, numbers)| numbers.iter().map(move |number| (kind, *number)));
        let matching = all.filter(|(kind, number)| *number < before && filter.matches(&of_kind(*kind, *number)));
        let mut numbers: Vec<_> = matching.map(|(_, number)| number).collect();
        numbers.sort_unstable_by(|one, other| other.cmp(one));
        numbers
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pages_are_complete_and_without_repetition_while_events_come_and_go(
        steps in prop::collection::vec(step(), 1..80), page_size in 1..6_usize, narrowed in 0..4_usize,
    ) {
        let filter = HistoryFilter::all().page_size(page_size);
        let filter = match narrowed {
            0 => filter,
            1 => filter.token(id(1)),
            2 => filter.outcome(Outcome::Refused),
            _ => filter.owner(owner("bob")),
        };
        let history = AuditHistory::builder()
            .governing(ROOM).desk(ROOM).declined(ROOM).reports(ROOM).allowed(ROOM).forbidden(ROOM).mismatching(ROOM).anonymous(ROOM).build();
        let (mut model, mut number) = (Model::default(), 0);
        let (mut cursor, mut before) = (None, u64::MAX);
        for step in steps {
            match step {
                Step::Record(kind) => {
                    record(&history, [of_kind(kind, number)]);
                    model.keep(kind, number);
                    number += 1;
                }
                Step::StartAgain => (cursor, before) = (None, u64::MAX),
                Step::NextPage => {
                    let page = history.events(&filter, cursor.as_ref()).unwrap();
                    let found: Vec<_> = page.events.iter().map(|event| event.at().unix_millis()).collect();
                    let left = model.page(&filter, before);
                    prop_assert_eq!(&found[..], &left[..left.len().min(page_size)]);
                    prop_assert_eq!(page.next.is_some(), left.len() > page_size);
                    before = found.last().copied().unwrap_or(before);
                    if page.next.is_none() {
                        before = u64::MAX;
                    }
                    cursor = page.next;
                }
            }
        }
    }
}

fn all_applications(history: &AuditHistory, filter: &ApplicationFilter) -> Vec<TokenApplications> {
    let (mut tokens, mut cursor) = (Vec::new(), None);
    loop {
        let page = history.applications(filter, cursor.as_ref()).unwrap();
        assert!(page.tokens.len() <= filter.page_size);
        tokens.extend(page.tokens);
        cursor = page.next;
        if cursor.is_none() {
            return tokens;
        }
    }
}

#[test]
fn applications_are_counted_by_what_became_of_their_requests() {
    let history = AuditHistory::new();
    let unnamed = AuditEvent { request: None, ..allowed(1).at_milli(50) };
    record(&history, [allowed(1).at_milli(20), allowed(1).at_milli(10), forbidden(1).at_milli(40), unnamed]);
    record(&history, [would_forbid(1).at_milli(30).by("cron/1"), claimed(Reason::Mismatch, 1).by("evil/1")]);
    let seen = history.applications_of(&id(1)).unwrap();
    assert_eq!((seen.token, seen.owner.as_str(), seen.label.as_str(), seen.unproved), (id(1), "bob", "export", 1));
    let of = |application: &ApplicationSeen| {
        let ApplicationSeen { user_agent, first_at, last_at, allowed, forbidden, would_forbid } = application;
        let times = (first_at.unix_millis(), last_at.unix_millis());
        (user_agent.to_string(), times, (*allowed, *forbidden, *would_forbid))
    };
    let applications: Vec<_> = seen.applications.iter().map(of).collect();
    assert_eq!(
        applications,
        [
            ("curl/8".to_owned(), (10, 40), (2, 1, 0)),
            ("(unnamed)".to_owned(), (50, 50), (1, 0, 0)),
            ("cron/1".to_owned(), (30, 30), (0, 0, 1)),
        ]
    );
}

#[test]
fn a_claim_makes_no_application_and_a_report_is_no_claim() {
    let history = AuditHistory::new();
    record(&history, [claimed(Reason::Mismatch, 1), claimed(Reason::Unknown, 2), desk(3), anonymous()]);
    assert_eq!([1, 2, 3].map(|number| history.applications_of(&id(number))), [None, None, None]);
    record(&history, [allowed(1), claimed(Reason::Expired, 1), report()]);
    assert_eq!(history.applications_of(&id(1)).unwrap().unproved, 1);
}

#[test]
fn sixteen_applications_are_told_apart_and_all_others_are_one() {
    let history = AuditHistory::new();
    record(&history, (0..40).map(|number| allowed(1).by(&format!("agent/{number}"))));
    record(&history, [allowed(1).by("agent/3"), allowed(1).by("(other)")]);
    let applications = history.applications_of(&id(1)).unwrap().applications;
    assert_eq!(applications.len(), TokenApplications::MAX_AGENTS + 1);
    assert_eq!((&applications[3].user_agent, applications[3].allowed), (&UserAgent::Named("agent/3".to_owned()), 2));
    assert_eq!((&applications[16].user_agent, applications[16].allowed), (&UserAgent::Other, 24 + 1));
}

#[test]
fn the_token_proved_longest_ago_is_forgotten_and_claims_keep_none() {
    let history = AuditHistory::builder().tokens(2).build();
    record(&history, [allowed(1), allowed(2), allowed(1), claimed(Reason::Mismatch, 2), allowed(3)]);
    let known: Vec<_> = all_applications(&history, &ApplicationFilter::all()).iter().map(|it| it.token).collect();
    assert_eq!(known, [id(1), id(3)]);
}

#[test]
fn applications_are_listed_by_owner_in_pages() {
    let history = AuditHistory::new();
    record(&history, (0..10).map(allowed));
    for page_size in 1..=6 {
        let filter = ApplicationFilter::all().owner(owner("bob")).page_size(page_size);
        let tokens: Vec<_> = all_applications(&history, &filter).iter().map(|it| it.token).collect();
        assert_eq!(tokens, [1, 3, 5, 7, 9].map(id));
    }
    assert_eq!(all_applications(&history, &ApplicationFilter::all()).len(), 10);
}

const AGENTS: [&str; 4] = ["\u{202E}evil\n", "\"}{\"", "\u{1b}[2J", "plain"];

/// A million requests, each with another user agent: unknown ids, guesses at one id, nobody.
#[test]
fn a_million_hostile_requests_push_out_neither_proved_events_nor_acts_at_the_desk() {
    let history = AuditHistory::new();
    let edit = Some(Edit::new("read-write", "read-only"));
    record(
        &history,
        [AuditEvent { edit, ..desk(1) }, report(), allowed(1).by("honest/1"), forbidden(1).by("honest/1")],
    );
    for number in 0..1_000_000_u64 {
        let agent = format!("{}{number}", AGENTS[number as usize / 4 % 4]);
        let event = match number % 4 {
            0 | 3 => claimed(Reason::Unknown, number),
            1 => claimed(Reason::Mismatch, 1),
            _ => anonymous(),
        };
        let request = Some(RequestFacts::new("GET", "/issues", Some(agent.as_bytes())));
        history.record(&AuditEvent { request, ..event }).unwrap();
    }
    assert_eq!(sizes(&history), [0, 1, 0, 1, 1, 1, 5_000, 1_000]);
    assert_eq!(lock(&history.0.applications).0.sizes(), (1, 1));
    let seen = history.applications_of(&id(1)).unwrap();
    assert_eq!((seen.applications.len(), seen.applications[0].allowed, seen.unproved), (1, 1, 250_000));
    for filter in
        [HistoryFilter::all().outcome(Outcome::Allowed), HistoryFilter::all().token(id(1)).action(Action::Issue)]
    {
        assert!(!listed(&history, &filter).is_empty(), "{filter:?}");
    }
}

/// The same from inside: holders of tokens who call themselves something else in each request.
#[test]
fn a_hundred_thousand_hostile_agents_of_proved_tokens_stay_within_the_bounds_and_all_are_counted() {
    const TOKENS: u64 = 200;
    let history = AuditHistory::builder().allowed(100).forbidden(50).tokens(TOKENS as usize / 2).build();
    record(&history, [desk(1), claimed(Reason::Mismatch, 1)]);
    for number in 0..100_000 {
        let event = if number % 3 == 0 { forbidden } else { allowed };
        let agent = format!("{}{number}", AGENTS[number as usize % 4]);
        record(&history, [event(number % TOKENS).by(&agent)]);
    }
    assert_eq!(sizes(&history), [0, 1, 0, 0, 100, 50, 1, 0]);
    let known = all_applications(&history, &ApplicationFilter::all());
    assert_eq!(known.len() as u64, TOKENS / 2);
    for token in known {
        assert!(token.applications.len() <= TokenApplications::MAX_AGENTS + 1, "{token:?}");
    }
    // One whose place nobody takes: every request of it is in the account.
    let history = AuditHistory::new();
    for number in 0..1_000 {
        record(&history, [allowed(1).by(&format!("{}{number}", AGENTS[number % 4]))]);
    }
    let applications = history.applications_of(&id(1)).unwrap().applications;
    assert_eq!(applications.len(), TokenApplications::MAX_AGENTS + 1);
    assert_eq!(applications.iter().map(|it| it.allowed).sum::<u64>(), 1_000);
}

#[test]
fn the_holder_of_a_token_fills_no_more_than_the_rooms_of_holders() {
    let history = AuditHistory::builder().allowed(100).forbidden(50).tokens(10).build();
    record(&history, [desk(1)]);
    for number in 0..10_000 {
        record(&history, [allowed(number % 1_000).by(&number.to_string()), forbidden(1)]);
    }
    assert_eq!(sizes(&history), [0, 1, 0, 0, 100, 50, 0, 0]);
    assert_eq!(lock(&history.0.applications).0.sizes(), (10, 10));
}

/// What the module's documentation says of an event's memory, with and without attributes.
#[test]
fn an_event_takes_no_more_memory_than_is_said() {
    const EVENTS: u64 = 1_024;
    let worst = |attributes: Attributes| {
        let token = AuthenticatedToken::builder("o".repeat(OwnerId::MAX_LEN), "l".repeat(128), Scope::ReadOnly);
        let token = token.attributes(attributes).build().unwrap();
        let long = "x".repeat(2_000);
        let request = RequestFacts::new(&long, &long, Some(long.as_bytes()))
            .with_route(Some(long.clone()))
            .with_request_id(Some(long.clone()));
        AuditEvent { request: Some(request), subject: Subject::Proved(Cow::Owned(token)), ..allowed(1) }.into_owned()
    };
    let pairs = || (0..Attributes::MAX_COUNT).map(|at| (format!("{at:064}"), "v".repeat(Attributes::MAX_VALUE_LEN)));
    let per_event = |attributes: &dyn Fn() -> Attributes| {
        let history = AuditHistory::new();
        let taken = allocation_counter::measure(|| {
            (0..EVENTS).for_each(|_| record(&history, [worst(attributes())]));
        });
        taken.bytes_current as u64 / EVENTS
    };
    let (bare, full) = (per_event(&Attributes::default), per_event(&|| Attributes::new(pairs()).unwrap()));
    assert!(bare > 1_024 && bare <= 2_560, "{bare} bytes: at most 2.5 KiB");
    assert!(full > bare + 5_000 && full <= bare + 6 * 1_024, "{full} bytes: at most 6 KiB more");
}
