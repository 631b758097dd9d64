//! What is there after a process was killed in the middle of issuing and revoking.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use futures_util::future::join_all;
use tower_token_auth::test_util::{ManualClock, mint};
use tower_token_auth::{OwnerId, Revision, Scope, TokenFilter, TokenId, TokenRecord, TokenRegistry, TokenState};

use super::{Database, Gate, OWNER};
use crate::cache_rules::bench::status;

/// Where a child process is told which database to write to.
const CHILD: &str = "TOWER_TOKEN_AUTH_TEST_CRASH";
/// It is killed among so many issues and as many revocations.
const ISSUES: usize = 1_000;
const WRITERS: usize = 4;
const KILLS: usize = 2;

/// The database that a child process is to write to; in any other process there is none.
pub(super) fn place() -> Option<String> {
    std::env::var(CHILD).ok()
}

fn acknowledge(what: &str, token: &str) {
    // A line of its own, whatever the test harness has begun; at once, as nothing is printed after a kill.
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nacknowledged {what} {token}").unwrap();
    out.flush().unwrap();
}

/// What the child does, until it is killed; where nobody listens any more, it ends by itself.
pub(super) async fn issue_and_revoke<S: TokenRegistry + Clone + 'static>(store: S) {
    let write = |store: S| async move {
        for _ in 0..10 * ISSUES {
            let token = mint(&store, OWNER, Scope::ReadOnly).await.unwrap();
            acknowledge("issue", token.expose());
            super::revoke(&store, &token).await;
            acknowledge("revoke", token.expose());
        }
    };
    let writers: Vec<_> = (0..WRITERS).map(|_| tokio::spawn(write(store.clone()))).collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

/// Runs the child of a module until it has acknowledged `enough`, kills it, and answers with all the tokens of which it
/// has acknowledged something, and whether that was the revocation.
fn acknowledged(module: &str, place: &str, enough: usize) -> HashMap<String, bool> {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", &format!("processes::{module}::child"), "--nocapture"]).env(CHILD, place);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (mut lines, mut known) = (0, HashMap::new());
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
        if let ["acknowledged", what, token] = line.split(' ').collect::<Vec<_>>()[..] {
            known.insert(token.to_owned(), what == "revoke");
            lines += 1;
        }
        if lines == enough {
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success(), "it was killed");
    assert!(lines >= enough, "{lines} lines");
    known
}

/// A random number of acknowledgements, which is told where a test fails.
fn anywhere() -> usize {
    let random = TokenId::generate().unwrap();
    1 + random.as_str().bytes().fold(0, |number, byte| (number * 31 + usize::from(byte)) % (2 * ISSUES))
}

pub(super) async fn what_a_killed_process_acknowledged_is_there(database: &impl Database, module: &str, place: &str) {
    let store = database.open().await;
    let mut before = 0;
    for _ in 0..KILLS {
        let enough = anywhere();
        let known = acknowledged(module, place, enough);
        let gate = Gate::over(store.clone());
        let mut unasked = 0;
        let answers = join_all(known.keys().map(|token| status(&gate.auth, token))).await;
        for (answer, revoked) in answers.into_iter().zip(known.values()) {
            assert!(answer == 401 || answer == 200 && !*revoked, "{answer} after {enough}, revoked: {revoked}");
            unasked += usize::from(answer == 401 && !revoked);
        }
        assert!(unasked <= WRITERS, "{unasked} revoked without a word, after {enough}");
        let records = all(&store).await;
        let issued = before + known.len();
        assert!((issued..=issued + WRITERS).contains(&records.len()), "{} of {issued}, after {enough}", records.len());
        before = records.len();
        records.iter().for_each(assert_whole);
        for token in known.keys() {
            assert!(records.iter().any(|record| token.contains(record.id().as_str())), "after {enough}");
        }
    }
}

/// Every record there is, by id; by its owner there are the same.
async fn all(store: &impl TokenRegistry) -> Vec<TokenRecord> {
    let owner = OwnerId::new(OWNER).unwrap();
    let mut listings = Vec::new();
    for filter in [TokenFilter::all(), TokenFilter::all().owner(owner)] {
        let page = store.list(&filter.page_size(100_000), None).await.unwrap();
        assert!(page.next.is_none());
        listings.push(page.records);
    }
    assert_eq!(listings[0], listings[1]);
    listings.remove(0)
}

/// Issued or revoked, and nothing between.
fn assert_whole(record: &TokenRecord) {
    let revoked = (TokenState::Revoked, Revision::FIRST.next(), Some(ManualClock::START));
    let found = (record.state(), record.revision(), record.revoked_at());
    assert!(found == revoked || found == (TokenState::Active, Revision::FIRST, None), "{found:?}");
    assert_eq!((record.owner().as_str(), record.scope()), (OWNER, Scope::ReadOnly));
}
