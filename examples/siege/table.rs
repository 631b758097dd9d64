//! The table: attack, expected, measured, verdict.

use std::time::Duration;

/// One line of the table.
pub(crate) struct Row {
    pub(crate) attack: String,
    pub(crate) expected: String,
    pub(crate) measured: String,
    pub(crate) held: bool,
}

const ATTACK: usize = 54;
const EXPECTED: usize = 65;

pub(crate) fn row(attack: impl Into<String>, expected: &str, measured: impl Into<String>, held: bool) -> Row {
    Row { attack: attack.into(), expected: expected.to_owned(), measured: measured.into(), held }
}

pub(crate) fn head() {
    println!("{:ATTACK$}  {:EXPECTED$}  verdict  measured", "attack", "expected");
    println!("{}", "-".repeat(ATTACK + EXPECTED + 30));
}

impl Row {
    pub(crate) fn print(&self) {
        let verdict = if self.held { "held" } else { "MISSED" };
        println!("{:ATTACK$}  {:EXPECTED$}  {verdict:7}  {}", self.attack, self.expected, self.measured);
    }
}

/// The value below which `part` of the values lie.
pub(crate) fn quantile(values: &mut [Duration], part: f64) -> Duration {
    values.sort_unstable();
    let at = (values.len() as f64 * part) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or_default()
}

pub(crate) fn median(mut values: Vec<Duration>) -> Duration {
    quantile(&mut values, 0.5)
}

/// This process's resident memory now, in KiB; `None` where the system does not tell.
pub(crate) fn resident_kib() -> Option<u64> {
    status("VmRSS:")
}

/// The most resident memory this process had since [`forget_peak`], in KiB.
pub(crate) fn peak_kib() -> Option<u64> {
    status("VmHWM:")
}

/// Makes the peak what memory is now; answers with that, in KiB.
pub(crate) fn forget_peak() -> Option<u64> {
    // Linux resets VmHWM when it reads a 5 there (proc(5), clear_refs).
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    resident_kib()
}

fn status(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().next()?.parse().ok()
}

/// How much memory grew, and whether that is within `limit` MiB. What cannot be measured is not missed.
pub(crate) fn growth(before: Option<u64>, after: Option<u64>, limit: u64) -> (String, bool) {
    match (before, after) {
        (Some(before), Some(after)) => {
            let grown = after.saturating_sub(before);
            (format!("memory +{:.1} MiB", grown as f64 / 1024.0), grown <= limit * 1024)
        }
        _ => ("memory not measured on this system".to_owned(), true),
    }
}
