//! What is there after `kill -9`.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use tower_token_auth::test_util::mint;
use tower_token_auth::{
    Change, Revision, Scope, SqliteStore, Timestamp, TokenFilter, TokenRegistry, TokenState, TokenStore,
};

use super::{Folder, open};

/// Where a child process is told which database to write to.
const CHILD: &str = "TOWER_TOKEN_AUTH_TEST_CRASH";
const ISSUES: usize = 1_000;
const WRITERS: usize = 4;

#[expect(clippy::print_stdout, reason = "how the child acknowledges")]
fn acknowledge(what: &str, id: &str) {
    // A line of its own, whatever the test harness has begun.
    println!("\nacknowledged {what} {id}");
    std::io::stdout().flush().unwrap();
}

async fn issue_and_revoke(store: SqliteStore) {
    for _ in 0..ISSUES / WRITERS {
        let id = mint(&store, "alice", Scope::ReadOnly).await.unwrap().id();
        acknowledge("issue", id.as_str());
        let revoke = Change::Revoke { at: Timestamp::from_unix_seconds(1) };
        store.update(&id, Revision::FIRST, revoke).await.unwrap();
        acknowledge("revoke", id.as_str());
    }
}

/// Does nothing unless it is started by the test below.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let store = open(path.as_ref()).await;
    let writers: Vec<_> = (0..WRITERS).map(|_| tokio::spawn(issue_and_revoke(store.clone()))).collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

/// Runs a child until it has acknowledged `enough`, kills it, and answers with all it has acknowledged.
fn acknowledged(path: &std::path::Path, enough: usize) -> Vec<(String, String)> {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "sqlite::crash::child", "--nocapture"]).env(CHILD, path);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
        let words: Vec<_> = line.split(' ').collect();
        if let ["acknowledged", what, id] = words[..] {
            lines.push((what.to_owned(), id.to_owned()));
        }
        if lines.len() == enough {
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success(), "it was killed");
    lines
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let folder = Folder::new();
    let mut known = HashSet::new();
    for enough in [1, 400, 1_100] {
        let lines = acknowledged(&folder.database(), enough);
        assert!(lines.len() >= enough, "{} lines", lines.len());
        let store = open(&folder.database()).await;
        for (what, id) in &lines {
            let record = store.find(&id.parse().unwrap()).await.unwrap().expect("an acknowledged token");
            let expected = if what == "issue" { Revision::FIRST } else { Revision::new(2) };
            assert!(record.revision() >= expected, "{what} {id}");
            assert_eq!(record.state() == TokenState::Revoked, record.revision() == Revision::new(2), "half done");
        }
        known.extend(lines.iter().map(|(_, id)| id.clone()));
        let all = store.list(&TokenFilter::all().page_size(usize::MAX - 1), None).await.unwrap().records;
        let (stored, most) = (all.len(), known.len() + 3 * WRITERS);
        assert!(known.len() <= stored && stored <= most, "{stored} stored, {} known", known.len());
    }
}
