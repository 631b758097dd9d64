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

mod line;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use line::Line;

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
    /// Each line is one `write_all`; directly behind a [`QueuedSink`](crate::QueuedSink) several lines are. A writer with a
    /// buffer of its own (`BufWriter`) learns of a failure too late for the event to be counted as lost, and is only flushed
    /// by [`AuditSink::flush`].
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
mod tests;
