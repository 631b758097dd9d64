//! JSON lines: what was decided is in the file, whole and valid, whatever was sent and whatever fails. They are read by
//! another program's parser than the one that belongs to their writer.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use http::header::{AUTHORIZATION, USER_AGENT};
use http::{HeaderValue, Request, Response};
use tinyjson::JsonValue;
use tower::{Layer, ServiceExt, service_fn};
use tower_token_auth::test_util::{RecordedEvent, RecordingSink};
use tower_token_auth::{AuditSink, FanOut, JsonLinesSink, OnAuditFailure, PlaintextToken, QueuedSink, Scope};

use crate::cache_rules::bench::{Bench, forge};

/// A folder of one test, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let path = std::env::temp_dir().join(format!("tta-{name}-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone: io::Result<()> = fs::remove_dir_all(&self.0);
    }
}

type Line = HashMap<String, JsonValue>;

fn parse(line: &str) -> Option<Line> {
    line.parse::<JsonValue>().ok()?.try_into().ok()
}

fn text<'l>(line: &'l Line, name: &str) -> Option<&'l str> {
    line.get(name).map(|value| value.get::<String>().expect("a text").as_str())
}

/// Every line of a file, each a valid object.
fn lines(path: &Path) -> Vec<Line> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is whole");
    let lines: Vec<_> = text.lines().filter_map(parse).collect();
    assert_eq!(lines.len(), text.lines().count(), "every line is an object");
    lines
}

fn assert_says(line: &Line, event: &RecordedEvent) {
    for (name, told) in [
        ("at", Some(event.at.to_string())),
        ("outcome", Some(event.outcome.as_str().to_owned())),
        ("reason", event.reason.map(|it| it.as_str().to_owned())),
        ("token_id", event.token_id.map(|it| it.to_string())),
        ("claimed_id", event.claimed_id.map(|it| it.to_string())),
        ("owner", event.owner.clone()),
        ("label", event.label.clone()),
        ("method", event.method.clone()),
        ("path", event.path.clone()),
        ("user_agent", event.user_agent.clone()),
    ] {
        assert_eq!(text(line, name), told.as_deref(), "{name} of {line:?}");
    }
}

fn hostile(number: usize, token: &PlaintextToken, stranger: &PlaintextToken) -> Request<Body> {
    const AGENTS: [&[u8]; 8] = [
        b"\",\"outcome\":\"allowed",
        b"\\\"\\u0000}{\t",
        b"\xff\xfe\x80\xc0",
        "\u{202E}\u{2066}\u{85}\u{2028}".as_bytes(),
        "😀é".as_bytes(),
        b"",
        &[b'"'; 5_000],
        &[0xf0; 300],
    ];
    const PATHS: [&str; 5] = ["/\"}{\"", "/%00%0a%22", "/é😀", "/a\u{202E}b", "/\\"];
    let path = format!("{}{number}{}", PATHS[number % 5], "x".repeat(number % 7 * 100));
    let authorization = match number % 4 {
        0 | 1 => format!("Bearer {}", token.expose()),
        2 => format!("Bearer {}", forge(&token.id(), stranger)),
        _ => "Bearer \"}{".to_owned(),
    };
    let request = Request::get(path).header(AUTHORIZATION, authorization);
    request.header(USER_AGENT, HeaderValue::from_bytes(AGENTS[number % 8]).unwrap()).body(Body::empty()).unwrap()
}

async fn answer(bench: &Bench, request: Request<Body>) -> u16 {
    let inner = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    bench.auth.layer(inner).oneshot(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn ten_thousand_hostile_requests_are_ten_thousand_valid_lines_that_say_what_was_decided() {
    let (folder, heard) = (Folder::new("hostile"), RecordingSink::new());
    let path = folder.at("audit.jsonl");
    let queue =
        QueuedSink::builder(JsonLinesSink::open(&path).unwrap()).capacity(30_000).noise(15_000).build().unwrap();
    let both = FanOut::new([Arc::new(heard.clone()) as Arc<dyn AuditSink>, Arc::new(queue)]);
    let bench = Bench::with(|builder| builder.audit(both));
    let (token, stranger) = (bench.token(Scope::ReadOnly).await, bench.stranger());
    for number in 0..10_000 {
        let expected = [200, 200, 401, 400][number % 4];
        assert_eq!(answer(&bench, hostile(number, &token, &stranger)).await, expected);
    }
    bench.auth.handle().shutdown(Duration::from_secs(60)).await.unwrap();
    let audit = bench.auth.handle().stats().audit;
    assert_eq!((audit.events, audit.written, audit.lost), (10_000, 10_000, 0));
    let (mut lines, mut events) = (lines(&path), heard.take());
    assert_eq!(lines.len(), 10_000);
    // A queue may let proved events overtake noise; a path has a number of its own.
    lines.sort_by_key(|line| text(line, "path").map(str::to_owned));
    events.sort_by_key(|event| event.path.clone());
    lines.iter().zip(&events).for_each(|(line, event)| assert_says(line, event));
}

#[tokio::test]
async fn a_renamed_file_is_let_go_and_no_line_is_lost_on_the_way() {
    let folder = Folder::new("rotation");
    let (path, old) = (folder.at("audit.jsonl"), folder.at("audit.jsonl.1"));
    let sink = JsonLinesSink::open(&path).unwrap();
    let handler = sink.clone();
    let bench = Bench::with(|builder| builder.audit(sink));
    let token = bench.token(Scope::ReadOnly).await;
    for _ in 0..3 {
        assert_eq!(bench.status(&token).await, 200);
    }
    fs::rename(&path, &old).unwrap();
    assert_eq!(bench.status(&token).await, 200);
    assert!(!path.exists(), "renamed, and not yet told");
    handler.reopen().unwrap();
    assert_eq!(bench.status(&token).await, 200);
    assert_eq!((lines(&old).len(), lines(&path).len()), (4, 1));
    handler.reopen().unwrap();
    assert_eq!(bench.status(&token).await, 200);
    assert_eq!(lines(&path).len(), 2, "opened once more, it appends");
}

#[tokio::test]
async fn where_a_file_cannot_be_opened_anew_the_old_one_goes_on() {
    let folder = Folder::new("failed-rotation");
    let (inner, moved) = (folder.at("logs"), folder.at("moved"));
    fs::create_dir(&inner).unwrap();
    let sink = JsonLinesSink::open(inner.join("audit.jsonl")).unwrap();
    let handler = sink.clone();
    let bench = Bench::with(|builder| builder.audit(sink));
    let token = bench.token(Scope::ReadOnly).await;
    fs::rename(&inner, &moved).unwrap();
    assert_eq!(handler.reopen().unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(bench.status(&token).await, 200);
    assert_eq!(lines(&moved.join("audit.jsonl")).len(), 1);
    assert!(JsonLinesSink::open(inner.join("audit.jsonl")).is_err());
}

#[tokio::test]
async fn a_line_that_a_crash_has_torn_is_not_continued() {
    let folder = Folder::new("crash");
    for (found, expected) in [("{\"version\":1,\"at", 2), ("{\"version\":1}\n", 2), ("", 1)] {
        let path = folder.at("audit.jsonl");
        fs::write(&path, found).unwrap();
        let bench = Bench::with(|builder| builder.audit(JsonLinesSink::open(&path).unwrap()));
        assert_eq!(bench.status(&bench.token(Scope::ReadOnly).await).await, 200);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), expected, "no line is empty: {text}");
        let last = parse(text.lines().last().unwrap()).unwrap();
        assert_eq!(self::text(&last, "outcome"), Some("allowed"));
    }
}

/// Whether the process runs with no room for more than some lines in any file.
#[cfg(unix)]
const CONFINED: &str = "TTA_TEST_CONFINED_FOLDER";

/// Runs a test once more, in a process with a limit on the size of files, which acts as a full disk does: a short write,
/// and then an error. In that process, runs `fill`.
#[cfg(unix)]
fn on_a_full_disk<F: Future<Output = ()>>(name: &str, fill: impl FnOnce(PathBuf) -> F) {
    if let Some(path) = std::env::var_os(CONFINED) {
        tokio::runtime::Runtime::new().unwrap().block_on(fill(path.into()));
        return;
    }
    let folder = Folder::new(name);
    let mut confined = Command::new("sh");
    confined.args(["-c", "trap '' XFSZ; ulimit -f 4; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
    let name = format!("json_lines::{name}");
    let output = confined.args(["--exact", &name]).env(CONFINED, folder.at("audit.jsonl")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[cfg(unix)]
#[test]
fn on_a_full_disk_what_cannot_be_recorded_is_refused_and_leaves_no_fragment() {
    on_a_full_disk("on_a_full_disk_what_cannot_be_recorded_is_refused_and_leaves_no_fragment", |path| async move {
        fill(&path).await;
    });
}

#[cfg(unix)]
#[test]
fn a_disk_that_is_full_in_the_middle_of_a_batch_has_whole_lines_and_the_rest_is_counted() {
    on_a_full_disk(
        "a_disk_that_is_full_in_the_middle_of_a_batch_has_whole_lines_and_the_rest_is_counted",
        |path| async move { fill_through_a_queue(&path).await },
    );
}

#[cfg(unix)]
async fn fill_through_a_queue(path: &Path) {
    let queue = QueuedSink::new(JsonLinesSink::open(path).unwrap()).unwrap();
    let bench = Bench::with(|builder| builder.audit(queue.clone()));
    let token = bench.token(Scope::ReadOnly).await;
    for _ in 0..200 {
        assert_eq!(bench.status(&token).await, 200);
    }
    queue.flush().await;
    let tally = queue.tally().unwrap();
    let whole = lines(path).iter().filter(|line| text(line, "action") == Some("authenticate")).count() as u64;
    assert!((5..50).contains(&whole), "{whole} lines in some KiB");
    assert_eq!((tally.written, tally.lost, tally.queued), (whole, 200 - whole, 0));
    assert!(std::fs::read(path).unwrap().ends_with(b"}\n"), "cut back to whole lines");
}

#[cfg(unix)]
async fn fill(path: &Path) {
    let sink = JsonLinesSink::open(path).unwrap();
    let bench = Bench::with(|builder| builder.audit(sink).on_audit_failure(OnAuditFailure::Refuse));
    let token = bench.token(Scope::ReadOnly).await;
    let mut recorded = 0;
    while bench.status(&token).await == 200 {
        recorded += 1;
    }
    assert!((5..50).contains(&recorded), "{recorded} lines in some KiB");
    for _ in 0..3 {
        assert_eq!(bench.status(&token).await, 503);
        assert_eq!(lines(path).len(), recorded, "cut back to whole lines");
    }
    let audit = bench.auth.handle().stats().audit;
    assert_eq!((audit.written, audit.lost), (recorded as u64, 4));
    OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap();
    assert_eq!(bench.status(&token).await, 200);
    assert_eq!(lines(path).len(), 1, "there is room again");
}

/// Takes three bytes of each line while it is full.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<Room>>);

#[derive(Default)]
struct Room {
    written: Vec<u8>,
    full: bool,
}

impl Disk {
    fn set_full(&self, full: bool) {
        self.0.lock().unwrap().full = full;
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut room = self.0.lock().unwrap();
        let begins_a_line = bytes.starts_with(b"{") || bytes.starts_with(b"\n");
        let taken = match (room.full, begins_a_line) {
            (false, _) => bytes.len(),
            (true, true) => 3,
            (true, false) => return Err(io::ErrorKind::StorageFull.into()),
        };
        room.written.extend(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn behind_a_queue_a_full_disk_is_counted_and_reported_and_stops_nothing() {
    let disk = Disk::default();
    let queue = QueuedSink::new(JsonLinesSink::new(disk.clone())).unwrap();
    let bench = Bench::with(|builder| builder.audit(queue.clone()));
    let token = bench.token(Scope::ReadOnly).await;
    // The sixth that is lost finds out that there is room again.
    for (full, requests) in [(false, 2), (true, 5), (false, 1), (false, 3)] {
        disk.set_full(full);
        for _ in 0..requests {
            assert_eq!(bench.status(&token).await, 200);
        }
        queue.flush().await;
    }
    let audit = bench.auth.handle().stats().audit;
    assert_eq!((audit.events, audit.written, audit.lost), (11, 5, 6));
    let written = String::from_utf8(disk.0.lock().unwrap().written.clone()).unwrap();
    let valid: Vec<_> = written.lines().filter_map(parse).collect();
    let reports = valid.iter().filter(|line| text(line, "action") == Some("report_loss"));
    let reported: f64 = reports.map(|line| *line["count"].get::<f64>().unwrap()).sum();
    assert_eq!(reported, 6.0);
    assert_eq!(valid.iter().filter(|line| text(line, "outcome") == Some("allowed")).count(), 5);
}

/// A writer with a buffer of its own.
#[tokio::test]
async fn a_flush_of_the_queue_reaches_the_writer() {
    let disk = Disk::default();
    let queue = QueuedSink::new(JsonLinesSink::new(io::BufWriter::new(disk.clone()))).unwrap();
    let bench = Bench::with(|builder| builder.audit(queue));
    assert_eq!(bench.status(&bench.token(Scope::ReadOnly).await).await, 200);
    bench.auth.handle().shutdown(Duration::from_secs(60)).await.unwrap();
    assert!(disk.0.lock().unwrap().written.ends_with(b"}\n"));
}
