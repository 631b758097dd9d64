//! How long each server went on to let revoked tokens in.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::load::Sample;
use crate::process::{Process, Teller};
use crate::serve::TTL;
use crate::table;

/// The crate's clocks are coarse: they lag by a tick of the kernel, at most so much.
pub(crate) const TICK: Duration = Duration::from_millis(10);
/// What the feed is for.
const SOON: Duration = Duration::from_secs(1);

/// When the desk was asked to revoke a token, and when it had answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Revocation {
    pub(crate) asked: Instant,
    pub(crate) acknowledged: Instant,
}

/// What one server did with tokens that were revoked.
pub(crate) struct Lags {
    teller: Teller,
    /// From the acknowledgement to the last request that was begun after it and let in; sorted, zero where there is none.
    lags: Vec<Duration>,
    /// From that request to the first refusal, or from the acknowledgement where that is later: how fine was measured.
    steps: Vec<Duration>,
    /// Accepts past the bound.
    late: usize,
    /// Tokens that nobody saw refused.
    never: usize,
    /// Refusals of tokens that nobody had asked to revoke yet.
    wrongly: usize,
}

impl Lags {
    /// Of `revocations`, by token, those in a range.
    pub(crate) fn of(teller: Teller, samples: &[Sample], revocations: &[Revocation], range: Range<usize>) -> Self {
        let mut lags = Self { teller, lags: Vec::new(), steps: Vec::new(), late: 0, never: 0, wrongly: 0 };
        let mut by_token = vec![Vec::new(); range.len()];
        for sample in samples.iter().filter(|sample| range.contains(&sample.token)) {
            by_token[sample.token - range.start].push(*sample);
        }
        for (samples, revocation) in by_token.iter().zip(&revocations[range]) {
            lags.add(samples, *revocation);
        }
        lags.lags.sort_unstable();
        lags.steps.sort_unstable();
        lags
    }

    fn add(&mut self, samples: &[Sample], revocation: Revocation) {
        let since = |time: Instant| time.saturating_duration_since(revocation.acknowledged);
        let of = |status| samples.iter().filter(move |sample| sample.status == status);
        let accepts = of(200).map(|sample| since(sample.sent)).filter(|lag| !lag.is_zero());
        let lag = accepts.clone().max().unwrap_or_default();
        let refused = of(401).map(|sample| since(sample.answered)).min();
        self.late += accepts.filter(|lag| *lag > bound(self.teller)).count();
        self.wrongly += of(401).filter(|sample| sample.answered < revocation.asked).count();
        match refused {
            Some(refused) => self.steps.push(refused.saturating_sub(lag)),
            None => self.never += 1,
        }
        self.lags.push(lag);
    }

    pub(crate) fn p99(&self) -> Duration {
        table::quantile(&self.lags, 0.99)
    }

    pub(crate) fn max(&self) -> Duration {
        self.lags.last().copied().unwrap_or_default()
    }

    pub(crate) fn kept(&self) -> bool {
        let in_time = self.teller == Teller::Nobody || self.p99() < SOON;
        in_time && self.late == 0 && self.never == 0 && self.wrongly == 0
    }

    fn row(&self, process: &Process) -> [String; 9] {
        let quantile = |part| table::millis(table::quantile(&self.lags, part));
        let steps = table::millis(table::quantile(&self.steps, 0.5));
        [
            process.name.to_owned(),
            promise(self.teller),
            self.lags.len().to_string(),
            quantile(0.5),
            quantile(0.99),
            table::millis(self.max()),
            steps,
            self.late.to_string(),
            table::verdict(self.kept()),
        ]
    }
}

/// After which nothing may be let in.
fn bound(teller: Teller) -> Duration {
    match teller {
        Teller::Desk => Duration::ZERO,
        Teller::Feed | Teller::Nobody => TTL + TICK,
    }
}

fn promise(teller: Teller) -> String {
    match teller {
        Teller::Desk => "at once".to_owned(),
        Teller::Feed => format!("p99 < {} s", SOON.as_secs()),
        Teller::Nobody => format!("{} s, the TTL", TTL.as_secs()),
    }
}

/// Prints the table.
pub(crate) fn print(processes: &[Process], lags: &[Lags]) {
    let head = ["process", "promise", "revocations", "p50", "p99", "max", "to within", "late accepts", "verdict"];
    let rows: Vec<_> = processes.iter().zip(lags).map(|(process, lags)| lags.row(process)).collect();
    table::print(head, &rows);
    let (never, wrongly) = lags.iter().fold((0, 0), |sum, lags| (sum.0 + lags.never, sum.1 + lags.wrongly));
    println!("  revoked tokens never seen refused: {never}; tokens refused before they were revoked: {wrongly}");
}
