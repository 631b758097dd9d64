//! What the audit trail tells people, and what it leaves for programs.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tower_token_auth::{Action, ApplicationFilter, AuditEvent, HistoryFilter, Timestamp, TokenApplications};

use super::Fallible;
use super::table::listing;
use super::tour::Tour;

pub(crate) fn applications(tour: &mut Tour) -> Fallible<()> {
    tour.table.chapter(
        "Which applications connect?",
        &[
            "Programs by the name they give themselves, from requests that proved a token. What merely claims a token",
            "is a number: anybody can do that, so it must not push anything out.",
        ],
    );
    let page = tour.app.history.applications_seen(&ApplicationFilter::all(), None)?;
    let mut tokens = page.tokens;
    tokens.sort_by(|a, b| a.label.cmp(&b.label));
    let of = |label: &str| tokens.iter().find(|token| token.label.as_str() == label);
    tour.table.step("with \"dashboard\"", "dashboard/1.0, curl/8.9, grafana/9", names(of("dashboard")));
    tour.table.step("with \"nightly export\"", "export/1.0, export/2.0", names(of("nightly export")));
    let unproved = of("nightly export").map_or(0, |token| token.unproved);
    tour.table.step("  refused attempts with its id", "4", unproved.to_string());
    let rows = tokens.iter().flat_map(|token| {
        token.applications.iter().map(|application| {
            [
                token.label.to_string(),
                token.owner.to_string(),
                application.user_agent.to_string(),
                minute(application.first_at),
                minute(application.last_at),
                application.allowed.to_string(),
                application.forbidden.to_string(),
                application.would_forbid.to_string(),
            ]
        })
    });
    let head = ["token", "owner", "application", "first seen", "last seen", "allowed", "forbidden", "would forbid"];
    listing(head, &rows.collect::<Vec<_>>());
    Ok(())
}

fn names(token: Option<&TokenApplications>) -> String {
    let names = token.into_iter().flat_map(|token| &token.applications).map(|seen| seen.user_agent.to_string());
    names.collect::<Vec<_>>().join(", ")
}

pub(crate) fn history(tour: &mut Tour) -> Fallible<()> {
    tour.table.chapter(
        "What happened?",
        &["The newest first, a page at a time; by token, owner, outcome, action or period."],
    );
    let token = HistoryFilter::all().token(tour.id("nightly export")?);
    let events = all(tour, &token.clone().page_size(6))?;
    let newest_first = events.is_sorted_by(|newer, older| newer.at() >= older.at());
    tour.table.step("all of \"nightly export\", in pages of 6", "newest first", order(newest_first));
    let at_once = tour.app.history.events(&token, None)?.events.len();
    tour.table.step("  none left out, none twice", format!("{at_once} events"), format!("{} events", events.len()));
    let oldest = events.last().map_or("none", |event| event.action().as_str());
    tour.table.step("  the oldest", "issue", oldest);
    listing(EVENT, &events.iter().map(event).collect::<Vec<_>>());

    let changes = all(tour, &HistoryFilter::all().action(Action::ChangePolicy))?;
    println!();
    tour.table.step("all changes of the policy, refused ones too", "11 events", format!("{} events", changes.len()));
    let limits = changes.iter().filter_map(|event| event.after()).find(|after| after.contains("365d"));
    let rows = limits.into_iter().flat_map(str::split_whitespace).filter_map(|rule| rule.split_once('='));
    let rows = rows.map(|(rule, set)| [rule, set].map(str::to_owned));
    listing(["the policy with limits", "as the trail has it"], &rows.collect::<Vec<_>>());
    Ok(())
}

fn all(tour: &Tour, filter: &HistoryFilter) -> Fallible<Vec<AuditEvent<'static>>> {
    let (mut events, mut cursor) = (Vec::new(), None);
    loop {
        let page = tour.app.history.events(filter, cursor.as_ref())?;
        events.extend(page.events);
        if page.next.is_none() {
            return Ok(events);
        }
        cursor = page.next;
    }
}

fn order(newest_first: bool) -> &'static str {
    if newest_first { "newest first" } else { "in disorder" }
}

const EVENT: [&str; 6] = ["at", "action", "outcome", "reason", "secret", "by"];

fn event(event: &AuditEvent<'_>) -> [String; 6] {
    let by = event.actor().map(ToString::to_string).or_else(|| event.user_agent().map(str::to_owned));
    [
        minute(event.at()),
        event.action().to_string(),
        event.outcome().to_string(),
        event.reason().map_or(String::new(), |reason| reason.to_string()),
        event.secret_slot().map_or(String::new(), |slot| slot.to_string()),
        by.unwrap_or_default(),
    ]
}

fn minute(time: Timestamp) -> String {
    time.to_string().replace('T', " ").chars().take(16).collect()
}

pub(crate) async fn json_lines(tour: &mut Tour, file: &Path) -> Fallible<()> {
    tour.table.chapter(
        "The record",
        &["The same events in a file, one JSON object a line, written behind a queue so that no request waits for a disk."],
    );
    let flushed = tour.app.shutdown().await;
    tour.did("what waits in the queue", "is written", "is written", &flushed)?;
    let written = std::fs::read_to_string(file)?;
    let lines = written.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let events = all(tour, &HistoryFilter::all())?;
    tour.table.step(
        "lines of JSON",
        format!("{}, as the history has", events.len()),
        format!("{}, as the history has", lines.len()),
    );
    let of_lines = count(lines.iter().filter_map(|line| line.get("outcome")?.as_str()));
    let of_events = count(events.iter().map(|event| event.outcome().as_str()));
    for (outcome, many) in of_events {
        let found = of_lines.get(outcome).copied().unwrap_or_default();
        tour.table.step(format_args!("  {outcome}"), many.to_string(), found.to_string());
    }
    tour.table.step("secrets among them", "none", if tour.betrays(&written) { "some" } else { "none" });
    let rotation = written.lines().find(|line| line.contains(r#""action":"rotate""#));
    println!("\n      │ one of the lines:\n      │ {}", rotation.unwrap_or_default());
    Ok(())
}

fn count<'a>(words: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    words.fold(BTreeMap::new(), |mut counted, word| {
        *counted.entry(word).or_default() += 1;
        counted
    })
}
