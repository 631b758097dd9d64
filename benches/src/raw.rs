//! What was measured, as lines of JSON: `report.py` makes the tables and charts of them.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use serde_json::Value;

/// The file named by `--raw`, or none.
#[derive(Debug)]
pub struct Raw(Option<File>);

impl Raw {
    /// # Panics
    /// Where the file cannot be made.
    pub fn open() -> Self {
        let path = crate::arguments::value::<PathBuf>("--raw");
        Self(path.map(|path| File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))))
    }

    /// # Panics
    /// Where the file cannot be written.
    pub fn line(&mut self, value: &Value) {
        if let Some(file) = &mut self.0 {
            writeln!(file, "{value}").expect("the raw file takes a line");
        }
    }
}
