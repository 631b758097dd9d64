//! Events as lines of JSON, into a file or any other writer.
//!
//! One event is one line and one valid JSON object (the form called JSON Lines), for programs that ship, search and
//! archive logs. Text is as clean as in every event: no control and no bidi characters, so a line can also be printed.
//!
//! # When things fail
//! | what | what happens |
//! |---|---|
//! | a write fails, as on a full disk | the event's error; behind a [`QueuedSink`](crate::QueuedSink) it is counted, logged and later reported as [`Action::ReportLoss`](crate::Action::ReportLoss). The next event is tried anew |
//! | a write fails in the middle of a line | a file is cut back to where the line began; elsewhere, and where that fails too, the next line begins with a line feed, so that no event is glued to the fragment |
//! | the process is killed | what was recorded is with the operating system, but for a line in the middle; [`open`](JsonLinesSink::open) notices that and begins with a line feed. What still waits in a queue is gone: see [`QueuedSink::shutdown`](crate::QueuedSink::shutdown) |
//! | the machine loses power | what the operating system had not written yet is gone, as with any log: nothing here waits for the disk |
//! | [`reopen`](JsonLinesSink::reopen) fails | its error, and the old file goes on |
//!
//! # Cost
//! A mutex, one write per event from a buffer that is used again, and no allocation. Behind a queue, one write for what
//! waits there together, some dozens of events under load.

use std::fmt::{self, Display};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{AuditBatch, AuditError, AuditEvent, AuditSink, Flush};

/// Writes each event as one line of JSON. A clone is another handle to the same writer.
///
/// It belongs behind a [`QueuedSink`](crate::QueuedSink): it writes on the thread that records.
///
/// Names and meaning of the fields are covered by semantic versioning, and those of
/// [`TracingSink`](crate::TracingSink): `version` (a number), `at` (RFC 3339, UTC, milliseconds), `action`, `outcome`,
/// `reason`, `token_id`, `claimed_id`, `owner`, `label`, `scope`, `secret`, `access`, `method`, `path`, `route`,
/// `user_agent`, `client_address`, `request_id`, `actor`, `before`, `after`, `detail`, and of an event that stands for several
/// `count` (a number) and `first_at`. A field without a value is left out.
///
/// # Example
/// ```
/// use tower_token_auth::{JsonLinesSink, MemoryStore, QueuedSink, TokenAuthLayer};
///
/// # let folder = std::env::temp_dir().join(format!("json-lines-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// let lines = JsonLinesSink::open(folder.join("audit.jsonl"))?;
/// let queue = QueuedSink::new(lines.clone())?;
/// let auth = TokenAuthLayer::builder(MemoryStore::new()).audit(queue).build()?;
///
/// // After a tool such as logrotate has renamed the file, in the handler of the signal it sends:
/// lines.reopen()?;
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct JsonLinesSink(Arc<Shared>);

struct Shared {
    path: Option<PathBuf>,
    lines: Mutex<Lines>,
}

/// A writer and what it was given.
struct Lines {
    writer: Writer,
    /// Whether the last line has no end.
    torn: bool,
    buffer: Vec<u8>,
    /// Where in the buffer its lines end.
    ends: Vec<usize>,
}

/// So many bytes are written at once: more do not make it faster.
const ENOUGH: usize = 32 * 1024;

enum Writer {
    File(File),
    Other(Box<dyn Write + Send>),
}

impl JsonLinesSink {
    /// Into any writer, such as standard output.
    ///
    /// Each line is one `write_all`, or several lines are behind a [`QueuedSink`](crate::QueuedSink). A writer with a buffer of its own (`BufWriter`) learns of a failure too late for
    /// the event to be counted as lost, and is only flushed by [`AuditSink::flush`].
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        Self::of(None, Lines::new(Writer::Other(Box::new(writer)), false))
    }

    /// Appends to a file, which is made if it is not there.
    ///
    /// One file is for one process: another one's lines could be cut off with a fragment of ours. It is made with the
    /// rights that the process gives to new files (its umask); an audit trail names people, so see that they are tight.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let lines = Lines::open(&path)?;
        Ok(Self::of(Some(path), lines))
    }

    fn of(path: Option<PathBuf>, lines: Lines) -> Self {
        Self(Arc::new(Shared { path, lines: Mutex::new(lines) }))
    }

    /// Opens the path anew and lets go of the old file: after another program has renamed it.
    ///
    /// Every event is written whole, to the one or to the other.
    ///
    /// # Errors
    /// When the file cannot be opened: then the old one goes on. [`io::ErrorKind::Unsupported`] for a sink that was not
    /// made by [`open`](Self::open).
    pub fn reopen(&self) -> io::Result<()> {
        let path = self.0.path.as_deref().ok_or(io::ErrorKind::Unsupported)?;
        let opened = Lines::open(path)?;
        let closed = std::mem::replace(&mut *self.0.lines(), opened);
        // Out of the lock: closing may wait for the disk.
        drop(closed);
        Ok(())
    }
}

impl Shared {
    /// A writer that panicked has left its line torn, and that is on record.
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    const fn new(writer: Writer, torn: bool) -> Self {
        Self { writer, torn, buffer: Vec::new(), ends: Vec::new() }
    }

    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let torn = is_torn(path, &file);
        Ok(Self::new(Writer::File(file), torn))
    }

    /// Writes a line for each event, up to the first that fails; tells of each line that is there as a whole.
    fn write<'e, 'a: 'e>(
        &mut self,
        events: impl IntoIterator<Item = &'e AuditEvent<'a>>,
        mut recorded: impl FnMut(),
    ) -> io::Result<()> {
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            let formatted = self.format(&mut events);
            self.put(&mut recorded)?;
            formatted?;
        }
        Ok(())
    }

    /// Fills the buffer with whole lines.
    fn format<'e, 'a: 'e>(&mut self, events: &mut impl Iterator<Item = &'e AuditEvent<'a>>) -> io::Result<()> {
        let Self { torn, buffer, ends, .. } = self;
        buffer.clear();
        ends.clear();
        if *torn {
            buffer.push(b'\n');
        }
        while let Some(event) = (buffer.len() < ENOUGH).then(|| events.next()).flatten() {
            let start = buffer.len();
            Line::write(event, buffer).inspect_err(|_| buffer.truncate(start))?;
            ends.push(buffer.len());
        }
        Ok(())
    }

    /// Writes what is in the buffer. What comes after the last whole line is taken back where that is possible.
    fn put(&mut self, mut recorded: impl FnMut()) -> io::Result<()> {
        let Self { writer, torn, buffer, ends } = self;
        if ends.is_empty() {
            return Ok(());
        }
        // For the case that the writer panics.
        let was_torn = std::mem::replace(torn, true);
        let (mut written, mut whole, mut ends) = (0, 0, ends.iter().peekable());
        let result = writer.write(buffer, |more| {
            written += more;
            while let Some(end) = ends.next_if(|end| **end <= written) {
                whole = *end;
                recorded();
            }
        });
        let fragment = written - whole;
        let cut = result.is_err() && fragment > 0 && writer.cut(fragment).is_ok();
        let kept = if cut { whole } else { written };
        *torn = buffer.get(..kept).and_then(<[u8]>::last).map_or(was_torn, |last| *last != b'\n');
        result
    }
}

impl Writer {
    fn as_write(&mut self) -> &mut dyn Write {
        match self {
            Self::File(file) => file,
            Self::Other(writer) => writer,
        }
    }

    /// `write_all`, which also tells how much each write took.
    fn write(&mut self, bytes: &[u8], mut taken: impl FnMut(usize)) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.as_write().write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(most) => {
                    let (done, left) = rest.split_at(most.min(rest.len()));
                    taken(done.len());
                    rest = left;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes the last bytes back.
    fn cut(&self, bytes: usize) -> io::Result<()> {
        let Self::File(file) = self else { return Err(io::ErrorKind::Unsupported.into()) };
        let length = file.metadata()?.len().checked_sub(bytes as u64).ok_or(io::ErrorKind::InvalidInput)?;
        file.set_len(length)
    }
}

/// Whether a file ends in the middle of a line. One that cannot be read is taken to: an empty line does less harm.
fn is_torn(path: &Path, file: &File) -> bool {
    // Reading from a pipe would wait.
    if !file.metadata().is_ok_and(|about| about.is_file() && about.len() > 0) {
        return false;
    }
    let last = || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::End(-1))?;
        let mut last = [0];
        file.read_exact(&mut last).map(|()| last)
    };
    !last().is_ok_and(|last: [u8; 1]| last == *b"\n")
}

/// One line in the making.
struct Line<'b>(&'b mut Vec<u8>);

impl Line<'_> {
    fn write(event: &AuditEvent<'_>, buffer: &mut Vec<u8>) -> io::Result<()> {
        write!(buffer, "{{\"version\":{}", AuditEvent::VERSION)?;
        let mut line = Line(buffer);
        line.shown("at", Some(event.at()))?;
        line.text("action", Some(event.action().as_str()))?;
        line.text("outcome", Some(event.outcome().as_str()))?;
        line.text("reason", event.reason().map(|reason| reason.as_str()))?;
        line.text("token_id", event.token_id().as_ref().map(|id| id.as_str()))?;
        line.text("claimed_id", event.claimed_id().as_ref().map(|id| id.as_str()))?;
        line.text("owner", event.owner().map(|owner| owner.as_str()))?;
        line.text("label", event.label().map(|label| label.as_str()))?;
        line.text("scope", event.scope().map(|scope| scope.as_str()))?;
        line.text("secret", event.secret_slot().map(|slot| slot.as_str()))?;
        line.text("access", event.access().map(|access| access.as_str()))?;
        line.text("method", event.method())?;
        line.text("path", event.path())?;
        line.text("route", event.route())?;
        line.text("user_agent", event.user_agent())?;
        line.shown("client_address", event.client_address())?;
        line.text("request_id", event.request_id())?;
        line.shown("actor", event.actor())?;
        line.text("before", event.before())?;
        line.text("after", event.after())?;
        line.text("detail", event.detail().as_deref())?;
        line.number("count", Some(event.count()).filter(|count| *count != 1))?;
        line.shown("first_at", Some(event.first_at()).filter(|first| *first != event.at()))?;
        buffer.write_all(b"}\n")
    }

    /// Text that is there already: serde_json copies what needs no escape, which is several times as fast as
    /// [`shown`](Self::shown).
    fn text(&mut self, name: &'static str, value: Option<&str>) -> io::Result<()> {
        let Some(value) = value else { return Ok(()) };
        self.name(name);
        Ok(serde_json::to_writer(&mut *self.0, value)?)
    }

    fn shown(&mut self, name: &'static str, value: Option<impl Display>) -> io::Result<()> {
        let Some(value) = value else { return Ok(()) };
        self.name(name);
        Ok(serde_json::to_writer(&mut *self.0, &format_args!("{value}"))?)
    }

    fn number(&mut self, name: &'static str, value: Option<u64>) -> io::Result<()> {
        let Some(value) = value else { return Ok(()) };
        self.name(name);
        write!(self.0, "{value}")
    }

    fn name(&mut self, name: &'static str) {
        for part in [",\"", name, "\":"] {
            self.0.extend_from_slice(part.as_bytes());
        }
    }
}

impl AuditSink for JsonLinesSink {
    fn record(&self, event: &AuditEvent<'_>) -> Result<(), AuditError> {
        self.0.lines().write([event], || ()).map_err(AuditError::new)
    }

    fn record_batch(&self, batch: &mut AuditBatch<'_>) -> Result<(), AuditError> {
        self.0.lines().write(batch.left(), || batch.recorded(1)).map_err(AuditError::new)
    }

    /// Flushes the writer, which matters only to one with a buffer of its own. A failure is logged.
    fn flush(&self) -> Flush {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            if let Err(error) = shared.lines().writer.as_write().flush() {
                tracing::error!(cause = error.to_string(), "audit events may not have been written");
            }
        })
    }
}

impl fmt::Debug for JsonLinesSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonLinesSink").field("path", &self.0.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::{HashMap, VecDeque};

    use proptest::prelude::*;
    use tinyjson::JsonValue;

    use super::*;
    use crate::audit::event::Repeated;
    use crate::audit::fixtures::{allowed, any_event};
    use crate::clock::Timestamp;

    /// Takes so many bytes in each of the writes to come, and then fails; without an order, takes all.
    #[derive(Clone, Default)]
    struct Disk {
        written: Arc<Mutex<Vec<u8>>>,
        orders: Arc<Mutex<VecDeque<Order>>>,
    }

    #[derive(Debug, Clone, Copy)]
    enum Order {
        Take(usize),
        Fail,
        Interrupt,
    }

    impl Disk {
        fn order(&self, orders: &[Order]) {
            self.orders.lock().unwrap().extend(orders);
        }

        fn text(&self) -> String {
            String::from_utf8(self.written.lock().unwrap().clone()).expect("all of it is UTF-8")
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = match self.orders.lock().unwrap().pop_front() {
                None => bytes.len(),
                Some(Order::Take(most)) => bytes.len().min(most),
                Some(Order::Fail) => return Err(io::ErrorKind::StorageFull.into()),
                Some(Order::Interrupt) => return Err(io::ErrorKind::Interrupted.into()),
            };
            self.written.lock().unwrap().extend(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    type Fields = HashMap<String, JsonValue>;

    /// By another crate than the one that escapes.
    fn parsed(line: &str) -> Option<Fields> {
        line.parse::<JsonValue>().ok()?.try_into().ok()
    }

    /// Every field of the line is the event's, and there is no other.
    fn assert_tells(line: &str, event: &AuditEvent<'_>) {
        let mut fields = parsed(line).unwrap_or_else(|| panic!("no object: {line}"));
        let mut take = |name: &str| fields.remove(name);
        let text = |value: Option<JsonValue>| value.map(|value| value.get::<String>().expect("text").clone());
        assert_eq!(take("version"), Some(1.0.into()));
        assert_eq!(take("count").map_or(1.0, |count| *count.get::<f64>().expect("number")), event.count() as f64);
        let first_at = text(take("first_at")).unwrap_or_else(|| event.at().to_string());
        assert_eq!(first_at, event.first_at().to_string());
        for (name, told) in [
            ("at", Some(event.at().to_string())),
            ("action", Some(event.action().as_str().to_owned())),
            ("outcome", Some(event.outcome().to_string())),
            ("reason", event.reason().map(|it| it.to_string())),
            ("token_id", event.token_id().map(|it| it.to_string())),
            ("claimed_id", event.claimed_id().map(|it| it.to_string())),
            ("owner", event.owner().map(|it| it.to_string())),
            ("label", event.label().map(|it| it.to_string())),
            ("scope", event.scope().map(|it| it.to_string())),
            ("secret", event.secret_slot().map(|it| it.as_str().to_owned())),
            ("access", event.access().map(|it| it.to_string())),
            ("method", event.method().map(str::to_owned)),
            ("path", event.path().map(str::to_owned)),
            ("route", event.route().map(str::to_owned)),
            ("user_agent", event.user_agent().map(str::to_owned)),
            ("client_address", event.client_address().map(|it| it.to_string())),
            ("request_id", event.request_id().map(str::to_owned)),
            ("actor", event.actor().map(|it| it.to_string())),
            ("before", event.before().map(str::to_owned)),
            ("after", event.after().map(str::to_owned)),
            ("detail", event.detail().map(Cow::into_owned)),
        ] {
            assert_eq!(text(take(name)), told, "{name}");
        }
        assert!(fields.is_empty(), "{fields:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

        /// 10,000 events.
        #[test]
        fn every_event_is_one_line_of_valid_json_that_says_the_same(
            events in prop::collection::vec(any_event(), 100),
        ) {
            let disk = Disk::default();
            let sink = JsonLinesSink::new(disk.clone());
            events.iter().for_each(|event| sink.record(event).unwrap());
            let text = disk.text();
            prop_assert!(text.ends_with('\n'));
            prop_assert!(!text.contains(|c: char| c.is_control() && c != '\n'));
            let lines: Vec<_> = text.lines().collect();
            prop_assert_eq!(lines.len(), events.len());
            lines.iter().zip(&events).for_each(|(line, event)| assert_tells(line, event));
        }

        #[test]
        fn whatever_fails_no_event_is_glued_to_a_fragment(
            orders in prop::collection::vec(
                prop_oneof![
                    2 => (0..400_usize).prop_map(|most| vec![Order::Take(most), Order::Fail]),
                    1 => Just(vec![Order::Take(10), Order::Interrupt, Order::Take(10)]),
                    1 => Just(vec![Order::Take(1), Order::Take(0)]),
                    1 => Just(vec![Order::Fail]),
                    2 => Just(vec![]),
                ],
                1..30,
            ),
        ) {
            let disk = Disk::default();
            let sink = JsonLinesSink::new(disk.clone());
            let (mut recorded, mut failed) = (Vec::new(), 0);
            for (at, orders) in orders.iter().enumerate() {
                disk.order(orders);
                match sink.record(&allowed(0).at_milli(at as u64)) {
                    Ok(()) => recorded.push(Timestamp::from_unix_millis(at as u64).to_string()),
                    Err(_) => failed += 1,
                }
                disk.orders.lock().unwrap().clear();
            }
            let text = disk.text();
            let (whole, fragments): (Vec<_>, Vec<_>) =
                text.lines().partition(|line| parsed(line).is_some());
            prop_assert!(fragments.len() <= failed, "{}", text);
            prop_assert!(!text.contains("\n\n") && !text.starts_with('\n'), "an empty line is no JSON: {}", text);
            let told: Vec<_> = whole.iter().map(|line| parsed(line).unwrap()["at"].get::<String>().unwrap().clone()).collect();
            // A line that lacked nothing but its line feed counts as failed, and is whole all the same.
            let told: Vec<_> = told.into_iter().filter(|at| recorded.contains(at)).collect();
            prop_assert_eq!(told, recorded);
        }
    }

    #[test]
    fn what_stands_for_several_says_how_many_and_since_when() {
        let disk = Disk::default();
        let repeated = Some(Repeated { count: 7, first_at: Timestamp::from_unix_millis(1) });
        let event = AuditEvent { repeated, ..allowed(1) };
        JsonLinesSink::new(disk.clone()).record(&event).unwrap();
        assert_tells(&disk.text(), &event);
        assert!(disk.text().contains(r#","count":7,"first_at":"1970-01-01T00:00:00.001Z"}"#));
    }

    #[test]
    fn a_line_is_written_at_once_and_in_a_fixed_order() {
        let disk = Disk::default();
        JsonLinesSink::new(disk.clone()).record(&allowed(2)).unwrap();
        let expected = concat!(
            r#"{"version":1,"at":"1970-01-01T00:16:40.000Z","action":"authenticate","outcome":"allowed","#,
            r#""token_id":"0000000000000002","owner":"alice","label":"export","scope":"read-only","secret":"current","#,
            r#""access":"read","method":"GET","path":"/issues","user_agent":"curl/8"}"#,
            "\n"
        );
        assert_eq!(disk.text(), expected);
    }

    /// Panics on its first write, in the middle of the line.
    struct Panicking(Disk, bool);

    impl Write for Panicking {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if std::mem::replace(&mut self.1, false) {
                self.0.write_all(&bytes[..5])?;
                panic!("the disk is on fire");
            }
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_writer_that_panicked_has_left_a_fragment_and_the_next_line_stands_alone() {
        let disk = Disk::default();
        let sink = JsonLinesSink::new(Panicking(disk.clone(), true));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sink.record(&allowed(1))));
        assert!(caught.is_err());
        sink.record(&allowed(1)).unwrap();
        let text = disk.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((lines.len(), lines[0]), (2, "{\"ver"));
        assert_tells(lines[1], &allowed(1));
    }

    #[test]
    fn a_writer_has_no_path_to_be_opened_anew() {
        let error = JsonLinesSink::new(io::sink()).reopen().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    }
}
