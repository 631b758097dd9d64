use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use proptest::prelude::*;
use tinyjson::JsonValue;

use super::*;
use crate::audit::event::Repeated;
use crate::audit::fixtures::{allowed, any_event};
use crate::audit::places::Event;
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

/// Records events as a queue does; tells which are recorded.
fn record_all(sink: &JsonLinesSink, events: &[Event]) -> Vec<bool> {
    let mut told = Vec::new();
    while told.len() < events.len() {
        let mut batch = AuditBatch::new(&events[told.len()..]);
        let all = sink.record_batch(&mut batch).is_ok();
        let recorded = events.len() - told.len() - batch.left().len();
        told.extend((0..recorded).map(|_| true));
        told.extend((!all).then_some(false));
    }
    told
}

fn events(count: u64) -> Vec<Event> {
    (0..count).map(|at| Box::new(allowed(0).at_milli(at))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_fails_in_a_batch_each_event_is_a_whole_line_or_counts_as_lost(
        orders in prop::collection::vec(
            prop_oneof![
                3 => (0..2_000_usize).prop_map(Order::Take),
                1 => Just(Order::Interrupt),
                1 => Just(Order::Fail),
            ],
            0..30,
        ),
        count in 1..40_u64,
    ) {
        let disk = Disk::default();
        disk.order(&orders);
        let events = events(count);
        let told = record_all(&JsonLinesSink::new(disk.clone()), &events);
        let text = disk.text();
        prop_assert!(!text.contains("\n\n") && !text.starts_with('\n'), "an empty line is no JSON: {}", text);
        let at = |line: &str| parsed(line).map(|fields| fields["at"].get::<String>().unwrap().clone());
        let whole: Vec<_> = text.lines().filter_map(at).collect();
        let of = |recorded| {
            let all = events.iter().zip(&told).filter(move |(_, told)| **told == recorded);
            all.map(|(event, _)| event.at().to_string()).collect::<Vec<_>>()
        };
        let (recorded, lost) = (of(true), of(false));
        // A line that lacked nothing but its line feed counts as lost, and is whole all the same.
        let told: Vec<_> = whole.iter().filter(|at| !lost.contains(at)).cloned().collect();
        prop_assert_eq!(told, recorded);
        prop_assert!(lost.len() <= orders.len());
        prop_assert!(text.lines().count() <= events.len());
    }
}

#[test]
fn a_batch_is_one_write_unless_it_is_large() {
    for (count, writes) in [(1, 1), (64, 1), (300, 3)] {
        let disk = Disk::default();
        disk.order(&vec![Order::Take(usize::MAX); writes]);
        disk.order(&[Order::Fail]);
        let events = events(count);
        assert!(record_all(&JsonLinesSink::new(disk.clone()), &events).into_iter().all(|recorded| recorded));
        assert_eq!(disk.orders.lock().unwrap().len(), 1, "{count} events");
        disk.text().lines().zip(&events).for_each(|(line, event)| assert_tells(line, event));
        assert_eq!(disk.text().lines().count() as u64, count);
    }
}

#[test]
fn a_line_that_lacks_its_end_is_lost_and_those_around_it_are_recorded() {
    let (disk, events) = (Disk::default(), events(3));
    assert_eq!(record_all(&JsonLinesSink::new(disk.clone()), &events[..1]), [true]);
    let length = disk.text().len();
    for (taken, told) in [(2 * length - 1, [true, false, true]), (2 * length, [true, true, false])] {
        disk.order(&[Order::Take(taken), Order::Fail]);
        assert_eq!(record_all(&JsonLinesSink::new(disk.clone()), &events), told);
    }
}

/// Takes so many bytes, and panics in the write after that.
struct Collapsing(Disk, usize);

impl Write for Collapsing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match std::mem::replace(&mut self.1, usize::MAX) {
            0 => panic!("the disk is on fire"),
            usize::MAX => self.0.write(bytes),
            most => self.0.write(&bytes[..most]).inspect(|_| self.1 = 0),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_was_written_before_a_writer_panics_is_recorded() {
    let (disk, events) = (Disk::default(), events(5));
    let length = {
        JsonLinesSink::new(disk.clone()).record(&events[0]).unwrap();
        std::mem::take(&mut *disk.written.lock().unwrap()).len()
    };
    let sink = JsonLinesSink::new(Collapsing(disk.clone(), 2 * length + 5));
    let mut batch = AuditBatch::new(&events);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sink.record_batch(&mut batch)));
    assert!(caught.is_err());
    assert_eq!(batch.left().len(), 3);
    assert_eq!(record_all(&sink, &events[3..]), [true, true]);
    let text = disk.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((lines.len(), lines[2]), (5, "{\"ver"));
    for (line, event) in [(0, 0), (1, 1), (3, 3), (4, 4)] {
        assert_tells(lines[line], &events[event]);
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
