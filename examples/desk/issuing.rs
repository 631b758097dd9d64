//! Who may create which token.

use tower_token_auth::{IssuePolicy, IssueRefusal, Scope};

use super::table::refused;
use super::tour::{Call, Tour, Wish};
use super::{DAY, Fallible, People, Person};
use Scope::{ReadOnly, ReadWrite};

pub(crate) async fn permissions(tour: &mut Tour, people: &People) -> Fallible<()> {
    tour.table.chapter(
        "Who may create which token",
        &[
            "guest may do nothing at the desk. alice may create tokens for herself, sam on behalf of others too,",
            "and root also administers. Each token is read-only or read & write: its creator has to say which.",
        ],
    );
    let People { guest, alice, sam, .. } = people;
    tour.asks(guest, Wish::new("a look", ReadOnly), refused(IssueRefusal::CreateNotPermitted)).await?;
    tour.asks(alice, Wish::new("dashboard", ReadOnly), "issued").await?;
    tour.call(Call::get("dashboard"), "200 allowed").await?;
    tour.call(Call::post("dashboard").by("curl/8.9"), "403 forbidden").await?;
    tour.asks(alice, Wish::new("importer", ReadWrite), "issued").await?;
    tour.call(Call::post("importer"), "200 allowed").await?;
    let backup = Wish::new("backup", ReadWrite).of("bob");
    tour.asks(alice, backup, refused(IssueRefusal::OnBehalfNotPermitted)).await?;
    tour.asks(sam, backup, "issued").await?;
    tour.call(Call::post("backup"), "200 allowed").await?;
    let bobs = tour.id("backup")?;
    let revoked = tour.desk.revoke(&alice.actor, &bobs).await;
    tour.did("alice revokes \"backup\", which is bob's", "refused: unknown", "revoked", &revoked)
}

pub(crate) async fn the_switch(tour: &mut Tour, people: &People) -> Fallible<()> {
    tour.table.chapter(
        "The read-only switch",
        &[
            "With it on, ordinary users create read-only tokens only. This gate also applies the policy at use:",
            "read-write tokens that ordinary users made before do not write while it is on.",
        ],
    );
    let People { alice, sam, root, .. } = people;
    let on = IssuePolicy::default().force_read_only(true);
    change(tour, alice, "the switch on", on.clone(), Some(IssueRefusal::AdministerNotPermitted)).await?;
    change(tour, root, "the switch on", on, None).await?;
    tour.asks(alice, Wish::new("sync", ReadWrite), refused(IssueRefusal::ReadOnlyEnforced)).await?;
    tour.asks(alice, Wish::new("wiki mirror", ReadOnly), "issued").await?;
    tour.asks(sam, Wish::new("migration", ReadWrite).of("alice"), "issued").await?;
    tour.call(Call::get("importer"), "200 allowed").await?;
    tour.call(Call::post("importer"), "403 policy").await?;
    tour.call(Call::post("migration"), "200 allowed").await?;
    change(tour, root, "the switch off", IssuePolicy::default(), None).await?;
    tour.call(Call::post("importer"), "200 allowed").await.map(drop)
}

pub(crate) async fn limits(tour: &mut Tour, people: &People) -> Fallible<()> {
    tour.table.chapter(
        "Limits, and rules of your own",
        &[
            "Every token ends within a year, one that writes within 90 days; an owner has 5 tokens at most; robots",
            "only read. Who is refused is told what would be allowed. The first rule that fails is the answer.",
        ],
    );
    let People { alice, carol, sam, root, .. } = people;
    let policy = IssuePolicy::default()
        .max_lifetime(Some(365 * DAY))
        .max_lifetime_of(ReadWrite, Some(90 * DAY))
        .max_live_tokens(Some(5))
        .rule(|wish| match (wish.owner().as_str().starts_with("robot-"), wish.scope()) {
            (true, ReadWrite) => Err(ROBOTS),
            _ => Ok(()),
        });
    change(tour, root, "limits and a rule", policy, None).await?;
    let (year, quarter) = (refused(too_long(365)), refused(too_long(90)));
    tour.asks(carol, Wish::new("ci", ReadWrite), quarter.clone()).await?;
    tour.asks(carol, Wish::new("ci", ReadWrite).days(120), quarter).await?;
    tour.asks(carol, Wish::new("ci", ReadWrite).days(90), "issued").await?;
    tour.asks(alice, Wish::new("quarterly report", ReadOnly).days(400), year).await?;
    tour.asks(alice, Wish::new("quarterly report", ReadOnly).days(365), "issued").await?;
    let full = refused(IssueRefusal::TooManyTokens { max: 5 });
    tour.asks(alice, Wish::new("a sixth", ReadOnly).days(30), full).await?;
    let robots = Wish::new("build", ReadWrite).of("robot-7").days(30);
    tour.asks(sam, robots, refused(IssueRefusal::Rule(ROBOTS))).await?;
    tour.asks(sam, Wish::new("build", ReadOnly).of("robot-7").days(30), "issued").await?;
    change(tour, root, "no limits", IssuePolicy::default(), None).await
}

const ROBOTS: &str = "robots get read-only tokens";

const fn too_long(days: u32) -> IssueRefusal {
    IssueRefusal::LifetimeTooLong { max: DAY.saturating_mul(days) }
}

/// Somebody changes the policy, and may, unless a refusal is expected.
pub(crate) async fn change(
    tour: &mut Tour,
    who: &Person,
    to: &str,
    policy: IssuePolicy,
    refusal: Option<IssueRefusal>,
) -> Fallible<()> {
    let changed = tour.desk.change_policy(&who.actor, policy).await;
    let expected = refusal.map_or_else(|| "changed".into(), refused);
    tour.did(format_args!("{} changes the policy: {to}", who.name), expected, "changed", &changed)
}
