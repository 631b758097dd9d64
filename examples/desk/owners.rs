//! All tokens of an owner stop, and resume.

use tower_token_auth::{IssueRefusal, OwnerId};

use super::table::refused;
use super::tour::{Call, Tour};
use super::{Fallible, People};

pub(crate) async fn barred(tour: &mut Tour, people: &People) -> Fallible<()> {
    tour.table.chapter(
        "Barred owners",
        &[
            "An administrator bars an owner at the desk. An application that keeps its users elsewhere answers by an",
            "OwnerDirectory instead, and tells the gate when that changes. Clients see an ordinary 401 either way.",
        ],
    );
    let People { sam, root, .. } = people;
    let bob = OwnerId::new("bob")?;
    let refusal = refused(IssueRefusal::AdministerNotPermitted);
    tour.did("sam bars bob", refusal, "barred", &tour.desk.bar_owner(&sam.actor, &bob).await)?;
    tour.call(Call::get("backup"), "200 allowed").await?;
    tour.did("root bars bob", "barred", "barred", &tour.desk.bar_owner(&root.actor, &bob).await)?;
    tour.call(Call::get("backup"), "401 owner_barred").await?;
    tour.call(Call::get("dashboard"), "200 allowed").await?;
    tour.did("root lifts the bar", "lifted", "lifted", &tour.desk.lift_owner(&root.actor, &bob).await)?;
    tour.call(Call::get("backup"), "200 allowed").await?;

    tour.app.staff.leaves(&bob);
    tour.app.gate.handle().invalidate_owner(&bob);
    tour.table.note("bob is away, says the directory, and the gate is told to ask it");
    tour.call(Call::get("backup"), "401 owner_barred").await?;
    tour.app.staff.returns(&bob);
    tour.table.note("bob is back");
    tour.app.gate.handle().invalidate_owner(&bob);
    tour.call(Call::get("backup"), "200 allowed").await.map(drop)
}
