//! What is printed: chapters with steps, and what had to come of each.

use std::fmt::{self, Display};
use std::process::ExitCode;

use tower_token_auth::IssueRefusal;

const STEP: usize = 58;
const EXPECTED: usize = 36;

/// What came of a step, or had to: a short form, and the words somebody was told, where those matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    short: String,
    told: Option<String>,
}

impl Answer {
    pub(crate) fn refused(code: &str, told: impl Display) -> Self {
        Self { short: format!("refused: {code}"), told: Some(format!("refused: {told}")) }
    }

    fn meets(&self, expected: &Self) -> bool {
        self.short == expected.short && (expected.told.is_none() || expected.told == self.told)
    }
}

impl<T: Into<String>> From<T> for Answer {
    fn from(short: T) -> Self {
        Self { short: short.into(), told: None }
    }
}

/// A refusal with what would be allowed: both have to be as they are here.
pub(crate) fn refused(refusal: IssueRefusal) -> Answer {
    Answer::refused(refusal.as_str(), refusal)
}

impl Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.told.as_ref().unwrap_or(&self.short))
    }
}

/// Prints each step when it is done, and remembers those that differ.
#[derive(Default)]
pub(crate) struct Table {
    chapters: usize,
    steps: usize,
    differing: Vec<String>,
}

impl Table {
    pub(crate) fn chapter(&mut self, title: &str, about: &[&str]) {
        self.chapters += 1;
        println!("\n\n{:>2}  {title}\n", self.chapters);
        for line in about {
            println!("    {line}");
        }
        println!("\n      {:STEP$}  {:EXPECTED$}  what happened", "step", "expected");
        println!("    {}", "─".repeat(STEP + EXPECTED + 34));
    }

    pub(crate) fn step(&mut self, step: impl Display, expected: impl Into<Answer>, happened: impl Into<Answer>) {
        let (step, expected, happened) = (step.to_string(), expected.into(), happened.into());
        let ok = happened.meets(&expected);
        self.steps += 1;
        println!("    {} {step:STEP$}  {:EXPECTED$}  {happened}", if ok { '✓' } else { '✗' }, expected.short);
        if !ok {
            self.differing.push(format!("chapter {}: {step}: expected {expected}, got {happened}", self.chapters));
        }
    }

    /// What the world does between two steps.
    pub(crate) fn note(&self, what: &str) {
        println!("    · {what}");
    }

    /// The last words, and the exit code.
    pub(crate) fn conclude(&self) -> ExitCode {
        if self.differing.is_empty() {
            println!("\n\n{} steps, each as expected.", self.steps);
            return ExitCode::SUCCESS;
        }
        eprintln!("\n\n{} of {} steps differ:", self.differing.len(), self.steps);
        self.differing.iter().for_each(|step| eprintln!("  {step}"));
        ExitCode::FAILURE
    }
}

/// A listing for people, under the steps that asked for it: as wide as what is in it.
pub(crate) fn listing<const COLUMNS: usize>(head: [&str; COLUMNS], rows: &[[String; COLUMNS]]) {
    let widths = head.map(|title| title.chars().count());
    let widths = rows.iter().fold(widths, |mut widths, row| {
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = cell.chars().count().max(*width));
        widths
    });
    let line = |cells: [&str; COLUMNS]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        println!("      │ {}", padded.collect::<Vec<_>>().join("   ").trim_end());
    };
    println!();
    line(head);
    line(widths.map(|width| "─".repeat(width)).each_ref().map(String::as_str));
    rows.iter().for_each(|row| line(row.each_ref().map(String::as_str)));
}
