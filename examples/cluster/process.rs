//! The servers, as the experiment has them: children that are asked over a pipe.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::serve::{BY_NOBODY, BY_THE_FEED, SUBCOMMAND};

/// Who tells a server of a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Teller {
    Desk,
    Feed,
    Nobody,
}

pub(crate) const CLUSTER: [(&str, Teller); 4] = [
    ("the desk's", Teller::Desk),
    ("second", Teller::Feed),
    ("third", Teller::Feed),
    ("without a feed", Teller::Nobody),
];

/// A server that has nothing more to do gets so long to end.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Process {
    pub(crate) name: &'static str,
    pub(crate) teller: Teller,
    pub(crate) address: String,
    child: Child,
    commands: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Stats {
    pub(crate) hashes: u64,
    pub(crate) connected: bool,
}

/// Starts all at once, and waits until each serves.
pub(crate) fn start(url: &str) -> Vec<Process> {
    let mut processes = CLUSTER.map(|(name, teller)| Process::spawn(name, teller, url));
    for process in &mut processes {
        process.address = process.answer().as_str().unwrap().to_owned();
    }
    processes.into()
}

impl Process {
    fn spawn(name: &'static str, teller: Teller, url: &str) -> Self {
        let by = if teller == Teller::Nobody { BY_NOBODY } else { BY_THE_FEED };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([SUBCOMMAND, url, by])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { name, teller, address: String::new(), child, commands, answers }
    }

    fn ask(&mut self, command: &str) -> Value {
        writeln!(self.commands.as_mut().unwrap(), "{command}").unwrap();
        self.answer()
    }

    fn answer(&mut self) -> Value {
        serde_json::from_str(&self.answers.next().expect("the server has ended").unwrap()).unwrap()
    }

    pub(crate) fn issue(&mut self, count: usize) -> Vec<String> {
        serde_json::from_value(self.ask(&format!("issue {count}"))).unwrap()
    }

    /// Whether it is acknowledged.
    pub(crate) fn revoke(&mut self, id: &str) -> bool {
        self.ask(&format!("revoke {id}")).get("Ok").is_some()
    }

    pub(crate) fn stats(&mut self) -> Stats {
        let stats = self.ask("stats");
        Stats { hashes: stats["hashes"].as_u64().unwrap(), connected: stats["connected"].as_bool().unwrap() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.commands.take());
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
