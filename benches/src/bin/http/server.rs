//! A server in a process of its own, seen from outside.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// What one load told of a server.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    pub per_second: f64,
    /// Processor time of all of the server's threads, for each request.
    pub cpu_micros: f64,
}

pub struct Server {
    pub name: &'static str,
    process: Child,
    address: String,
    header: String,
    value: String,
}

impl Server {
    pub fn start(name: &'static str) -> Self {
        let mut process = this(&["serve", name]).stdin(Stdio::piped()).spawn().expect("a server starts");
        let mut lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let mut line = || lines.next().expect("three lines").expect("it says where it is");
        Self { name, address: line(), header: line(), value: line(), process }
    }

    /// Has another process send it requests.
    pub fn load(&self) -> Told {
        let before = self.cpu_nanos();
        let load = this(&["load", &self.address, &self.header, &self.value]).output().expect("the load runs");
        let cpu_nanos = self.cpu_nanos() - before;
        let told: Value = serde_json::from_slice(&load.stdout).unwrap_or_else(|_| panic!("{}: {load:?}", self.name));
        let number = |key: &str| told[key].as_f64().expect("a number");
        Told { per_second: number("per_second"), cpu_micros: cpu_nanos as f64 / 1e3 / number("requests") }
    }

    /// What its threads have had of processors, as the kernel counts it.
    fn cpu_nanos(&self) -> u64 {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).expect("the server runs");
        let paths = threads.map(|thread| thread.expect("a thread").path().join("schedstat"));
        let nanos = paths.map(|path| std::fs::read_to_string(path).expect("a kernel with schedstat"));
        nanos.map(|line| line.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or_default()).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        // It ends by itself, now that its input has.
        let _ended = self.process.wait();
    }
}

fn this(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.args(arguments).stdout(Stdio::piped());
    command
}
