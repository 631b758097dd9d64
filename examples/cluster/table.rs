//! What is printed: columns as wide as what is in them.

use std::time::Duration;

pub(crate) fn print<const COLUMNS: usize>(head: [&str; COLUMNS], rows: &[[String; COLUMNS]]) {
    let widths = head.map(|title| title.chars().count());
    let widths = rows.iter().fold(widths, |mut widths, row| {
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = cell.chars().count().max(*width));
        widths
    });
    let line = |cells: [&str; COLUMNS]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        println!("  {}", padded.collect::<Vec<_>>().join("   ").trim_end());
    };
    line(head);
    line(widths.map(|width| "─".repeat(width)).each_ref().map(String::as_str));
    rows.iter().for_each(|row| line(row.each_ref().map(String::as_str)));
}

pub(crate) fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1_000.0)
}

pub(crate) fn verdict(kept: bool) -> String {
    if kept { "kept" } else { "BROKEN" }.to_owned()
}

/// The value below which `part` of the sorted values lie.
pub(crate) fn quantile(sorted: &[Duration], part: f64) -> Duration {
    let at = (sorted.len() as f64 * part) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}
