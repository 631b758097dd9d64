//! What the clients of each server saw while the database was away, and after it.

use std::time::{Duration, Instant};

use crate::load::Sample;
use crate::process::{Process, Teller};
use crate::revoked::{Lags, TICK};
use crate::serve::TTL;
use crate::table;

/// A server that takes longer to be well again is not.
pub(crate) const RECOVERY: Duration = Duration::from_secs(15);

/// When what happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// The last process of the database was gone.
    pub(crate) killed: Instant,
    /// It was asked to start again.
    pub(crate) restarted: Instant,
    /// It said that it was ready.
    pub(crate) ready: Instant,
}

/// What the clients of one server saw.
#[derive(Default)]
pub(crate) struct Answers {
    /// 200 while the database was away.
    from_memory: usize,
    /// From the kill to the last request that got one.
    until: Duration,
    unavailable: usize,
    refused: usize,
    other: usize,
    /// From the moment at which the database was ready to the last answer that was no 200.
    well_after: Duration,
    /// 200 for tokens that had been revoked before.
    revived: usize,
}

impl Answers {
    fn add(&mut self, sample: &Sample, times: Times) {
        match sample.status {
            200 if sample.answered < times.restarted => {
                self.from_memory += 1;
                self.until = self.until.max(sample.sent - times.killed);
            }
            200 => {}
            503 => self.unavailable += 1,
            401 => self.refused += 1,
            _ => self.other += 1,
        }
        if sample.status != 200 {
            self.well_after = self.well_after.max(sample.answered.saturating_duration_since(times.ready));
        }
    }

    /// `revoked` tokens were so before the outage, and those from `stay` on never were.
    pub(crate) fn of(samples: &[Sample], times: Times, revoked: usize, stay: usize) -> Self {
        let mut answers = Self::default();
        for sample in samples.iter().filter(|sample| sample.sent >= times.killed) {
            if sample.token >= stay {
                answers.add(sample, times);
            }
            answers.revived += usize::from(sample.token < revoked && sample.status == 200);
        }
        answers
    }
}

/// What came of one server.
pub(crate) struct Outcome {
    pub(crate) answers: Answers,
    /// From the moment at which the database was ready to a feed that is connected; `None` where that never was.
    pub(crate) told_after: Option<Duration>,
    /// How often argon2 ran since the kill.
    pub(crate) hashes: u64,
    /// Revocations after the outage.
    pub(crate) then: Lags,
}

impl Outcome {
    pub(crate) fn kept(&self, teller: Teller) -> bool {
        let Answers { from_memory, until, unavailable, refused, other, well_after, revived } = self.answers;
        let answered = from_memory > 0 && until <= TTL + TICK && unavailable > 0 && well_after < RECOVERY;
        let told_again = teller == Teller::Nobody || self.told_after.is_some();
        answered && [refused, other, revived] == [0; 3] && self.hashes == 0 && told_again && self.then.kept()
    }

    fn row(&self, process: &Process) -> [String; 11] {
        let told_after = self.told_after.map_or_else(|| "never".to_owned(), table::millis);
        let answers = &self.answers;
        [
            process.name.to_owned(),
            format!("{}, for {}", answers.from_memory, table::millis(answers.until)),
            answers.unavailable.to_string(),
            answers.refused.to_string(),
            answers.other.to_string(),
            answers.revived.to_string(),
            table::millis(answers.well_after),
            if process.teller == Teller::Nobody { "–".to_owned() } else { told_after },
            self.hashes.to_string(),
            table::millis(self.then.max()),
            table::verdict(self.kept(process.teller)),
        ]
    }
}

/// Prints the table.
pub(crate) fn print(processes: &[Process], outcomes: &[Outcome]) {
    let head = [
        "process",
        "200 meanwhile",
        "503",
        "401",
        "other",
        "revived",
        "200 again",
        "feed again",
        "argon2",
        "max lag then",
        "verdict",
    ];
    let rows: Vec<_> = processes.iter().zip(outcomes).map(|(process, outcome)| outcome.row(process)).collect();
    table::print(head, &rows);
}
