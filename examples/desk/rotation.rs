//! A new secret for a token, without an outage, and after a leak.

use std::collections::BTreeSet;
use std::time::Duration;

use tower_token_auth::test_util::ManualClock;
use tower_token_auth::{HistoryFilter, IssuePolicy, IssueRefusal, IssuedToken, ManageError, Scope, SecretSlot};

use super::issuing::change;
use super::table::refused;
use super::tour::{Call, Tour, Wish};
use super::{DAY, Fallible, People, Person};

const OLD: &str = "nightly export";
const LOST: &str = "nightly export (lost)";
const NEW: &str = "nightly export (new)";
const NEWER: &str = "nightly export (newer)";
const CLEAN: &str = "nightly export (clean)";

pub(crate) async fn with_overlap(tour: &mut Tour, people: &People) -> Fallible<()> {
    tour.table.chapter(
        "Rotation with an overlap",
        &[
            "The new secret works at once, the old one for a day more. A rotation that is asked for again replaces a",
            "new secret that nobody has used yet, and moves no deadline; one that is in use stays.",
        ],
    );
    let carol = &people.carol;
    tour.asks(carol, Wish::new(OLD, Scope::ReadOnly), "issued").await?;
    tour.call(Call::get(OLD).by("export/1.0"), "200 allowed").await?;
    let first = rotate(tour, carol, DAY).await?;
    let deadline = first.summary().retiring_until;
    tour.table.step("carol rotates it, overlapping by a day", "a deadline", some("a deadline", deadline.is_some()));
    tour.keep(LOST, first);
    tour.table.note("an hour later: the new text was lost before anybody used it");
    tour.passes(super::HOUR);
    let second = rotate(tour, carol, DAY).await?;
    let stays = second.summary().retiring_until == deadline;
    tour.table.step("carol rotates it again", "the same deadline", some("the same deadline", stays));
    tour.keep(NEW, second);
    tour.call(Call::get(LOST).by("export/2.0"), "401 mismatch").await?;
    tour.call(Call::get(OLD).by("export/1.0"), "200 allowed").await?;
    tour.call(Call::get(NEW).by("export/2.0"), "200 allowed").await?;
    let third = rotate(tour, carol, DAY).await;
    tour.did("carol rotates it a third time", "refused: rotation_underway", "rotated", &third)?;
    let late = still_on_the_old_secret(tour)?;
    tour.table.step("who still presents the old secret?", "export/1.0", late);
    tour.table.note("the day is over");
    tour.passes(DAY);
    tour.call(Call::get(OLD).by("export/1.0"), "401 mismatch").await?;
    tour.call(Call::get(NEW).by("export/2.0"), "200 allowed").await.map(drop)
}

pub(crate) async fn after_a_leak(tour: &mut Tour, people: &People) -> Fallible<()> {
    tour.table.chapter(
        "Rotation after a leak",
        &[
            "An overlap of zero ends every older secret at once, also in the middle of another rotation. Whoever rotates",
            "has to be allowed to issue such a token today: one that lives too long by now has to end earlier first.",
        ],
    );
    let People { carol, root, .. } = people;
    let next = rotate(tour, carol, DAY).await;
    tour.did("carol rotates \"nightly export\" by a day", "rotated", "rotated", &next)?;
    tour.keep(NEWER, next?);
    tour.call(Call::get(NEW).by("export/2.0"), "200 allowed").await?;
    tour.call(Call::get(NEWER).by("export/2.0"), "200 allowed").await?;
    let limit = IssuePolicy::default().max_lifetime(Some(90 * DAY));
    change(tour, root, "90 days at most", limit, None).await?;
    let late = rotate(tour, carol, Duration::ZERO).await;
    let refusal = refused(IssueRefusal::LifetimeTooLong { max: 90 * DAY });
    tour.did("carol rotates it without an overlap", refusal, "rotated", &late)?;
    let ended = tour.desk.expire_at(&carol.actor, &tour.id(OLD)?, ManualClock::START + 90 * DAY).await;
    tour.did("carol lets it end on day 90", "moved", "moved", &ended)?;
    let clean = rotate(tour, carol, Duration::ZERO).await;
    tour.did("carol rotates it without an overlap", "rotated", "rotated", &clean)?;
    tour.keep(CLEAN, clean?);
    tour.call(Call::get(NEW).by("a thief"), "401 mismatch").await?;
    tour.call(Call::get(NEWER).by("a thief"), "401 mismatch").await?;
    tour.call(Call::get(CLEAN).by("export/2.0"), "200 allowed").await?;
    change(tour, root, "no limits", IssuePolicy::default(), None).await
}

async fn rotate(tour: &Tour, who: &Person, overlap: Duration) -> Result<IssuedToken, ManageError> {
    // All texts of the token have its one id.
    let id = tour.id(OLD).map_err(|_| ManageError::NotFound)?;
    tour.desk.rotate(&who.actor, &id, overlap).await
}

/// The programs to bring the new text to, from the audit trail.
fn still_on_the_old_secret(tour: &Tour) -> Fallible<String> {
    let page = tour.app.history.events(&HistoryFilter::all().token(tour.id(OLD)?), None)?;
    let retiring = page.events.iter().filter(|event| event.secret_slot() == Some(SecretSlot::Retiring));
    let agents: BTreeSet<&str> = retiring.filter_map(|event| event.user_agent()).collect();
    Ok(agents.into_iter().collect::<Vec<_>>().join(", "))
}

fn some(what: &'static str, holds: bool) -> &'static str {
    if holds { what } else { "none such" }
}
