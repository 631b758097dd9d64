//! The attackers: a process of their own, which sends what it is told and answers with one line of JSON.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tower_token_auth::{PlaintextToken, Prefix, TokenId};

use crate::counted::guess;

/// How the example calls itself to be the other process.
pub(crate) const SUBCOMMAND: &str = "be-the-attackers";
/// The longest that any job takes.
const DEADLINE: Duration = Duration::from_secs(240);

/// What to present.
#[derive(Debug, Clone)]
pub(crate) enum Present {
    /// These tokens, in turn.
    Tokens(Vec<String>),
    /// Tokens of our shape that nobody has made.
    Unknown,
    /// Guesses at this token's secret.
    Guesses(TokenId),
    /// Credentials that break the grammar.
    Malformed,
}

/// What to send, and how.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) present: Present,
    pub(crate) requests: usize,
    pub(crate) connections: usize,
    /// Sends again what was answered 503.
    pub(crate) retry: bool,
    /// At most so many a second; 0 for as many as go.
    pub(crate) pace: usize,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers {
    pub(crate) statuses: BTreeMap<u16, usize>,
}

impl Answers {
    pub(crate) fn of(&self, status: u16) -> usize {
        self.statuses.get(&status).copied().unwrap_or_default()
    }

    /// Such as `200 × 100, 503 × 7`.
    pub(crate) fn told(&self) -> String {
        let each = self.statuses.iter().map(|(status, count)| format!("{status} × {count}"));
        each.collect::<Vec<_>>().join(", ")
    }
}

impl Job {
    pub(crate) fn new(present: Present, requests: usize, connections: usize) -> Self {
        Self { present, requests, connections, retry: false, pace: 0 }
    }

    fn to_json(&self, address: SocketAddr) -> Value {
        let (kind, tokens) = match &self.present {
            Present::Tokens(tokens) => ("tokens", tokens.clone()),
            Present::Unknown => ("unknown", Vec::new()),
            Present::Guesses(id) => ("guesses", vec![id.to_string()]),
            Present::Malformed => ("malformed", Vec::new()),
        };
        json!({ "address": address.to_string(), "kind": kind, "tokens": tokens, "requests": self.requests,
                "connections": self.connections, "retry": self.retry, "pace": self.pace })
    }

    fn of_json(job: &Value) -> (SocketAddr, Self) {
        let number = |key: &str| usize::try_from(job[key].as_u64().unwrap()).unwrap();
        let tokens: Vec<String> =
            job["tokens"].as_array().unwrap().iter().map(|token| token.as_str().unwrap().to_owned()).collect();
        let present = match job["kind"].as_str().unwrap() {
            "tokens" => Present::Tokens(tokens),
            "guesses" => Present::Guesses(tokens[0].parse().unwrap()),
            "malformed" => Present::Malformed,
            _ => Present::Unknown,
        };
        let retry = job["retry"].as_bool().unwrap();
        let (requests, connections, pace) = (number("requests"), number("connections"), number("pace"));
        (job["address"].as_str().unwrap().parse().unwrap(), Self { present, requests, connections, retry, pace })
    }

    /// Has another process do it.
    pub(crate) async fn send(&self, address: SocketAddr) -> Answers {
        let program = std::env::current_exe().unwrap();
        let mut child = tokio::process::Command::new(program)
            .arg(SUBCOMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(self.to_json(address).to_string().as_bytes()).await.unwrap();
        drop(stdin);
        let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await;
        let output = output.expect("the attackers have not come to an end").unwrap();
        let answers: Value = serde_json::from_slice(&output.stdout).expect("the attackers answer in JSON");
        let statuses = answers.as_object().unwrap().iter();
        let statuses = statuses
            .map(|(status, count)| (status.parse().unwrap(), usize::try_from(count.as_u64().unwrap()).unwrap()));
        Answers { statuses: statuses.collect() }
    }
}

/// The other process.
pub(crate) fn run() -> ExitCode {
    let mut job = String::new();
    std::io::stdin().read_to_string(&mut job).unwrap();
    let (address, job) = Job::of_json(&serde_json::from_str(&job).unwrap());
    let statuses = crate::on_runtime(attack(address, job));
    let statuses: serde_json::Map<String, Value> =
        statuses.into_iter().map(|(status, count)| (status.to_string(), count.into())).collect();
    println!("{}", Value::Object(statuses));
    ExitCode::SUCCESS
}

async fn attack(address: SocketAddr, job: Job) -> BTreeMap<u16, usize> {
    let (job, next, start) = (Arc::new(job), Arc::new(AtomicUsize::new(0)), Instant::now());
    let attackers: Vec<_> = (0..job.connections)
        .map(|_| {
            let (job, next) = (Arc::clone(&job), Arc::clone(&next));
            tokio::spawn(async move {
                let mut statuses = BTreeMap::new();
                let mut connection = connect(address).await;
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= job.requests || start.elapsed() > DEADLINE {
                        return statuses;
                    }
                    if job.pace > 0 {
                        let due = Duration::from_secs_f64(at as f64 / job.pace as f64);
                        tokio::time::sleep(due.saturating_sub(start.elapsed())).await;
                    }
                    insist(&job, &job.line(at), &mut connection, &mut statuses).await;
                }
            })
        })
        .collect();
    let mut all = BTreeMap::new();
    for attacker in attackers {
        for (status, count) in attacker.await.unwrap() {
            *all.entry(status).or_insert(0) += count;
        }
    }
    all
}

/// Sends one request, and again while it is answered 503 and the job says so.
async fn insist(job: &Job, line: &str, connection: &mut SendRequest<String>, statuses: &mut BTreeMap<u16, usize>) {
    for _ in 0..10_000 {
        let status = send(connection, line).await;
        *statuses.entry(status).or_insert(0) += 1;
        if status != 503 || !job.retry {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Job {
    fn line(&self, at: usize) -> String {
        match &self.present {
            Present::Tokens(tokens) => format!("Bearer {}", tokens[at % tokens.len()]),
            Present::Unknown => format!("Bearer {}", PlaintextToken::generate(&Prefix::default()).unwrap().expose()),
            Present::Guesses(id) => format!("Bearer {}", guess(id)),
            Present::Malformed => "Bearer two words".to_owned(),
        }
    }
}

async fn connect(address: SocketAddr) -> SendRequest<String> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn send(connection: &mut SendRequest<String>, line: &str) -> u16 {
    use http_body_util::BodyExt;

    let request = http::Request::get("/").header("host", "siege").header("authorization", line).body(String::new());
    let response = connection.send_request(request.unwrap()).await.unwrap();
    let status = response.status().as_u16();
    response.into_body().collect().await.unwrap();
    status
}
