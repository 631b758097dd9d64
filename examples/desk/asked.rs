//! What the desk can be asked: which tokens there are, and which nobody needs as they are.

use tower_token_auth::{Cursor, LastUsed, ListError, SummaryPage, Timestamp, TokenFilter, TokenSummary};

use super::table::listing;
use super::tour::{Call, Tour};
use super::{DAY, Fallible, People};

pub(crate) async fn reports(tour: &mut Tour, people: &People) -> Fallible<()> {
    tour.table.chapter(
        "Which tokens does nobody need?",
        &[
            "Two months pass, in which three programs go on. When a token was last used, from where and by whom, is",
            "collected in memory and written in batches by background(), and at shutdown(): no request waits for it.",
        ],
    );
    tour.passes(60 * DAY);
    tour.call(Call::get("dashboard").by("grafana/9"), "200 allowed").await?;
    tour.call(Call::get("importer"), "200 allowed").await?;
    tour.call(Call::get("ci"), "200 allowed").await?;
    let flushed = tour.app.shutdown().await;
    tour.did("shutdown: what waits to be written", "is written", "is written", &flushed)?;

    let (desk, sam, carol) = (tour.desk.clone(), &people.sam.actor, &people.carol.actor);
    let soon = pages(async |cursor| desk.expiring(sam, 30 * DAY, cursor).await).await?;
    tour.table.step("sam: what expires within 30 days?", "ci, nightly export, quarterly report", labels(&soon));
    let own = pages(async |cursor| desk.expiring(carol, 30 * DAY, cursor).await).await?;
    tour.table.step("carol: the same, of her own", "ci, nightly export", labels(&own));
    let unused = pages(async |cursor| desk.unused(sam, 45 * DAY, cursor).await).await?;
    tour.table.step("sam: what was not used for 45 days?", "5 tokens", format!("{} tokens", unused.len()));
    let never = unused.into_iter().filter(|token| token.last_used.is_none()).collect::<Vec<_>>();
    tour.table.step("  of these, what was never used?", "quarterly report", labels(&never));
    let unused = pages(async |cursor| desk.unused(carol, 45 * DAY, cursor).await).await?;
    tour.table.step("carol: what of her own was not used for 45 days?", "nightly export", labels(&unused));
    let reading = pages(async |cursor| desk.only_reading(sam, cursor).await).await?;
    tour.table.step("sam: which may write, and only ever read?", "ci", labels(&reading));
    let narrowed = match reading.first() {
        Some(token) => desk.narrow(sam, &token.id).await,
        None => return Ok(()),
    };
    tour.did("sam narrows it, which breaks nobody", "narrowed", "narrowed", &narrowed)?;

    let all = pages(async |cursor| desk.list(sam, TokenFilter::all().page_size(4), cursor).await).await?;
    tour.table.step("sam: all tokens, in pages of 4", "11 tokens", format!("{} tokens", all.len()));
    let head = ["token", "owner", "made by", "scope", "state", "expires", "last used", "last write", "from", "by"];
    listing(head, &all.iter().map(row).collect::<Vec<_>>());
    Ok(())
}

/// All pages of a listing; the desk's own order is that of the ids, which are random.
async fn pages(page: impl AsyncFn(Option<&Cursor>) -> Result<SummaryPage, ListError>) -> Fallible<Vec<TokenSummary>> {
    let (mut tokens, mut cursor) = (Vec::new(), None);
    loop {
        let SummaryPage { tokens: some, next, .. } = page(cursor.as_ref()).await?;
        tokens.extend(some);
        if next.is_none() {
            tokens.sort_by(|a, b| a.label.cmp(&b.label));
            return Ok(tokens);
        }
        cursor = next;
    }
}

fn labels(tokens: &[TokenSummary]) -> String {
    tokens.iter().map(|token| token.label.as_str()).collect::<Vec<_>>().join(", ")
}

fn row(token: &TokenSummary) -> [String; 10] {
    let used = token.last_used.as_ref();
    [
        token.label.to_string(),
        token.owner.to_string(),
        token.created_by.to_string(),
        token.scope.to_string(),
        token.state.to_string(),
        day(token.expires_at),
        day(used.map(|used| used.at)),
        day(used.and_then(|used| used.last_write)),
        used.and_then(|used| used.client_address).map_or("–".to_owned(), |address| address.to_string()),
        used.and_then(|used: &LastUsed| used.user_agent.clone()).unwrap_or("–".to_owned()),
    ]
}

fn day(time: Option<Timestamp>) -> String {
    time.map_or("–".to_owned(), |time| time.to_string().chars().take(10).collect())
}
