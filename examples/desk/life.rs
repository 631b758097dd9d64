//! Stopping tokens: for a while, at a time, in part, for good; one, and all of an owner.

use tower_token_auth::test_util::ManualClock;
use tower_token_auth::{OwnerId, Scope, TokenFilter};

use super::tour::{Call, Tour, Wish};
use super::{DAY, Fallible, People};

pub(crate) async fn one_token(tour: &mut Tour, people: &People) -> Fallible<()> {
    tour.table.chapter(
        "The life of a token",
        &[
            "Whoever may see a token may take away from it, and the very next request notices. Nothing ever gives back",
            "more than there was: no scope gets wider, no expiry later, and a revoked token stays revoked.",
        ],
    );
    let People { alice, sam, .. } = people;
    let mirror = tour.id("wiki mirror")?;
    tour.did("alice pauses \"wiki mirror\"", "paused", "paused", &tour.desk.pause(&alice.actor, &mirror).await)?;
    tour.call(Call::get("wiki mirror"), "401 paused").await?;
    tour.did("alice resumes it", "resumed", "resumed", &tour.desk.resume(&alice.actor, &mirror).await)?;
    tour.call(Call::get("wiki mirror"), "200 allowed").await?;

    let report = tour.id("quarterly report")?;
    for (days, expected) in [(80, "moved"), (100, "refused: unacceptable")] {
        let moved = tour.desk.expire_at(&alice.actor, &report, ManualClock::START + days * DAY).await;
        tour.did(format_args!("alice lets \"quarterly report\" end on day {days}"), expected, "moved", &moved)?;
    }

    let migration = tour.id("migration")?;
    tour.call(Call::post("migration"), "200 allowed").await?;
    let narrowed = tour.desk.narrow(&sam.actor, &migration).await;
    tour.did("sam narrows \"migration\" to reading", "narrowed", "narrowed", &narrowed)?;
    tour.call(Call::post("migration"), "403 forbidden").await?;
    tour.call(Call::get("migration"), "200 allowed").await?;

    let build = tour.id("build")?;
    tour.call(Call::get("build"), "200 allowed").await?;
    tour.did("sam revokes \"build\"", "revoked", "revoked", &tour.desk.revoke(&sam.actor, &build).await)?;
    tour.call(Call::get("build"), "401 revoked").await?;
    tour.did("sam resumes it", "refused: revoked", "resumed", &tour.desk.resume(&sam.actor, &build).await)
}

pub(crate) async fn all_of_an_owner(tour: &mut Tour, people: &People) -> Fallible<()> {
    tour.table.chapter(
        "All tokens of an owner",
        &["mallory leaves. What a filter lets through is revoked, one event each; others' tokens look absent to alice."],
    );
    let People { alice, sam, .. } = people;
    tour.asks(sam, Wish::new("laptop", Scope::ReadWrite).of("mallory"), "issued").await?;
    tour.asks(sam, Wish::new("phone", Scope::ReadOnly).of("mallory"), "issued").await?;
    let mallorys = TokenFilter::all().owner(OwnerId::new("mallory")?);
    for (who, count) in [(alice, 0), (sam, 2)] {
        tour.call(Call::get("laptop"), "200 allowed").await?;
        let report = tour.desk.revoke_matching(&who.actor, mallorys.clone()).await?;
        let happened =
            if report.is_complete() { format!("{} revoked", report.revoked.len()) } else { "incomplete".into() };
        tour.table.step(format_args!("{} revokes all of mallory's", who.name), format!("{count} revoked"), happened);
    }
    tour.call(Call::get("laptop"), "401 revoked").await?;
    tour.call(Call::get("phone"), "401 revoked").await?;
    tour.call(Call::get("dashboard"), "200 allowed").await.map(drop)
}
