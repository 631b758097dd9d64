//! Trying a rule before it is enforced.

use tower_token_auth::{HistoryFilter, IssuePolicy, Outcome};

use super::issuing::change;
use super::table::listing;
use super::tour::{Call, Tour};
use super::{Fallible, People};

pub(crate) async fn report_only(tour: &mut Tour, people: &People) -> Fallible<()> {
    tour.table.chapter(
        "Report only",
        &[
            "A second gate, before /trial, refuses nothing by scope or policy and says what it would have: built with",
            "insecure_report_only_policy and insecure_report_only_scope. Dead tokens are refused as ever.",
        ],
    );
    let root = &people.root;
    change(tour, root, "the switch on", IssuePolicy::default().force_read_only(true), None).await?;
    tour.call(Call::post("importer"), "403 policy").await?;
    tour.call(Call::post("importer").at("/trial"), "200 would_forbid: policy").await?;
    tour.call(Call::post("dashboard").at("/trial"), "200 would_forbid: forbidden").await?;
    tour.call(Call::get("importer").at("/trial"), "200 allowed").await?;
    tour.call(Call::post("backup").at("/trial"), "200 allowed").await?;
    tour.call(Call::post("laptop").at("/trial"), "401 revoked").await?;
    change(tour, root, "the switch off", IssuePolicy::default(), None).await?;
    tour.call(Call::post("importer").at("/trial"), "200 allowed").await?;

    let page = tour.app.history.events(&HistoryFilter::all().outcome(Outcome::WouldForbid), None)?;
    tour.table.step("whom would it break?", "2 requests", format!("{} requests", page.events.len()));
    let rows = page.events.iter().map(|event| {
        let reason = event.reason().map_or("", |reason| reason.as_str());
        let label = event.label().map_or("", |label| label.as_str());
        [event.owner().map_or("", |owner| owner.as_str()), label, event.user_agent().unwrap_or(""), reason]
            .map(str::to_owned)
    });
    listing(["owner", "token", "application", "would be refused by"], &rows.collect::<Vec<_>>());
    Ok(())
}
