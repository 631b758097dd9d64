//! What a client can learn of its own token.

use reqwest::Response;
use reqwest::header::CACHE_CONTROL;
use serde_json::Value;
use tower_token_auth::{IssuePolicy, TOKEN_EXPIRES_AT, TOKEN_SCOPE};

use super::issuing::change;
use super::table::listing;
use super::tour::{Call, Tour};
use super::{Fallible, People};

pub(crate) async fn own_token(tour: &mut Tour, people: &People) -> Fallible<()> {
    tour.table.chapter(
        "What clients are told of their token",
        &[
            "The handler who_am_i answers with the token's facts, token_headers puts its scope and end on each answer",
            "to a proved request. Whoever has not proved a token learns nothing.",
        ],
    );
    let ends = "2026-04-01T00:00:00.000Z";
    let answer = tour.call(Call::get("ci").at("/whoami"), "200 allowed").await?;
    tour.table.step("  header token-scope", "read-write", header(&answer, TOKEN_SCOPE.as_str()));
    tour.table.step("  header token-expires-at", ends, header(&answer, TOKEN_EXPIRES_AT.as_str()));
    tour.table.step("  header cache-control", "no-store", header(&answer, CACHE_CONTROL.as_str()));
    let told: Value = answer.json().await?;
    tour.table.step("  body: expires_at", ends, text(&told, "expires_at"));

    change(tour, &people.root, "the switch on", IssuePolicy::default().force_read_only(true), None).await?;
    let answer = tour.call(Call::get("ci").at("/whoami"), "200 allowed").await?;
    let narrowed: Value = answer.json().await?;
    tour.table.step("  body: scope", "read-only", text(&narrowed, "scope"));
    tour.table.step("  body: issued_scope", "read-write", text(&narrowed, "issued_scope"));
    change(tour, &people.root, "the switch off", IssuePolicy::default(), None).await?;

    let refused = tour.call(Call::get("laptop").at("/whoami"), "401 revoked").await?;
    tour.table.step("  header token-scope", "none", header(&refused, TOKEN_SCOPE.as_str()));

    let rows = told
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| [name.clone(), value.as_str().unwrap_or("null").to_owned()]);
    listing(["who_am_i", "with \"ci\""], &rows.collect::<Vec<_>>());
    Ok(())
}

fn header(answer: &Response, name: &str) -> String {
    answer.headers().get(name).map_or("none".into(), |value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

fn text(object: &Value, field: &str) -> String {
    object.get(field).map_or("none".into(), |value| value.as_str().unwrap_or("no text").to_owned())
}
