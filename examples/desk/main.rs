//! The desk at work: who may create which token, what becomes of it, and what people can ask afterwards.
//!
//! ```text
//! cargo run --example desk
//! ```
//! A walk of a dozen chapters through an issue tracker with an API, over real HTTP on a free port of this machine. Each
//! line of its tables is one step: what was done, what had to come of it, and what did. Exits with 1, and names the
//! steps, when any of them differs.
//!
//! Time is a clock that is turned by hand: months pass at once, and every run is the same. Secrets are hashed with
//! [`Sha256Hasher`](tower_token_auth::Sha256Hasher), so that nobody waits for argon2, the default; nothing else depends
//! on it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a demonstration talks to whoever started it")]

mod app;
mod asked;
mod clients;
mod issuing;
mod life;
mod owners;
mod record;
mod rotation;
mod table;
mod tour;
mod trial;

use std::error::Error;
use std::future::IntoFuture;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::timeout;
use tower_token_auth::{Actor, Permissions};

use self::app::App;
use self::tour::Tour;

pub(crate) type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);
/// A walk takes a second or two; one that takes so long has found a hang.
const DEADLINE: Duration = Duration::from_secs(60);

/// Somebody at the desk: an application knows from its own session who that is, and what they may do.
pub(crate) struct Person {
    pub(crate) name: &'static str,
    pub(crate) actor: Actor,
}

impl Person {
    fn new(name: &'static str, permissions: Permissions) -> Self {
        Self { name, actor: Actor::user(name, permissions) }
    }
}

pub(crate) struct People {
    /// May look at issues, and nothing at the desk.
    pub(crate) guest: Person,
    /// May create tokens for herself, as most may.
    pub(crate) alice: Person,
    pub(crate) carol: Person,
    /// Support: also creates tokens on behalf of others, and looks after them.
    pub(crate) sam: Person,
    /// Administrator: also changes the policy, and bars owners.
    pub(crate) root: Person,
}

impl People {
    fn new() -> Self {
        let create = Permissions::none().and_create();
        Self {
            guest: Person::new("guest", Permissions::none()),
            alice: Person::new("alice", create),
            carol: Person::new("carol", create),
            sam: Person::new("sam", create.and_on_behalf()),
            root: Person::new("root", create.and_on_behalf().and_administer()),
        }
    }
}

// One thread, so that what runs in the background has its turn at the same moments in every run.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let file = std::env::temp_dir().join(format!("tower-token-auth-desk-{}.jsonl", std::process::id()));
    // One that another run has left would be gone on with. Where there is none, there is nothing to remove.
    let remove = || drop(std::fs::remove_file(&file));
    remove();
    let walked = timeout(DEADLINE, walk(file.clone())).await;
    remove();
    match walked {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(error)) => fail(&error.to_string()),
        Err(_) => fail("the walk did not end"),
    }
}

fn fail(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::FAILURE
}

async fn walk(file: PathBuf) -> Fallible<ExitCode> {
    let (app, people) = (App::new(&file)?, People::new());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    println!("\nAn issue tracker's API on http://{address}, the desk that issues its tokens, and people who use both.");
    println!(
        "Each line is a step: what was done, what had to come of it, and what did. Of a request that is the status"
    );
    println!("which its client got, and the audit trail's word for it, which the client is not told.");

    let background = tokio::spawn(app.background());
    let router = app.router().into_make_service_with_connect_info::<SocketAddr>();
    let server = tokio::spawn(axum::serve(listener, router).into_future());
    let mut tour = Tour::new(app, address)?;
    let walked = chapters(&mut tour, &people, &file).await;
    server.abort();
    background.abort();
    walked?;
    Ok(tour.table.conclude())
}

async fn chapters(tour: &mut Tour, people: &People, file: &Path) -> Fallible<()> {
    issuing::permissions(tour, people).await?;
    issuing::the_switch(tour, people).await?;
    issuing::limits(tour, people).await?;
    owners::barred(tour, people).await?;
    life::one_token(tour, people).await?;
    life::all_of_an_owner(tour, people).await?;
    rotation::with_overlap(tour, people).await?;
    rotation::after_a_leak(tour, people).await?;
    trial::report_only(tour, people).await?;
    clients::own_token(tour, people).await?;
    asked::reports(tour, people).await?;
    record::applications(tour)?;
    record::history(tour)?;
    record::json_lines(tour, file).await
}
