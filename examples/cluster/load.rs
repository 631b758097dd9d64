//! The clients: they keep every server busy with the same tokens, and write down each answer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use reqwest::Client;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::process::Process;

const WATCHERS_PAUSE: Duration = Duration::from_millis(1);
const ROAMERS_PAUSE: Duration = Duration::from_millis(10);
const USERS_PAUSE: Duration = Duration::from_millis(100);
/// How many of the tokens that are revoked next are in use.
const AHEAD: usize = 20;
/// Far more than any answer takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// One answer. Status 0 is none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) token: usize,
    pub(crate) sent: Instant,
    pub(crate) answered: Instant,
    pub(crate) status: u16,
}

pub(crate) struct Load {
    runtime: Runtime,
    shared: Arc<Shared>,
    clients: Vec<Vec<JoinHandle<Vec<Sample>>>>,
}

/// The tokens, which are revoked from the first on.
struct Shared {
    tokens: Vec<String>,
    /// The first of those that are never revoked.
    stay: usize,
    /// How many revocations have begun.
    begun: AtomicUsize,
    ended: AtomicBool,
}

impl Load {
    /// Makes every token hot on every server, and goes on.
    pub(crate) fn start(processes: &[Process], tokens: Vec<String>, stay: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let shared = Shared { tokens, stay, begun: AtomicUsize::new(0), ended: AtomicBool::new(false) };
        let mut load = Self { runtime, shared: Arc::new(shared), clients: Vec::new() };
        let warm = load.ask_all(processes, 0..load.shared.tokens.len());
        assert!(warm.iter().flatten().all(|sample| sample.status == 200), "a token is refused before it is revoked");
        load.clients = processes.iter().map(|process| load.clients_of(process)).collect();
        load
    }

    /// A watcher, a roamer, and a user for each token that stays: one that waits for its answer keeps no other waiting.
    fn clients_of(&self, process: &Process) -> Vec<JoinHandle<Vec<Sample>>> {
        let (shared, client, url) = (|| Arc::clone(&self.shared), client(), || url(&process.address));
        let watcher = self.runtime.spawn(shared().watch(client.clone(), url()));
        let roamer = self.runtime.spawn(shared().roam(client.clone(), url()));
        let stay = self.shared.stay..self.shared.tokens.len();
        let users = stay.map(|token| self.runtime.spawn(shared().visit(client.clone(), url(), token)));
        [watcher, roamer].into_iter().chain(users).collect()
    }

    /// Tells the clients that the next token is being revoked; answers with its number.
    pub(crate) fn begin(&self) -> usize {
        self.shared.begun.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn id(&self, token: usize) -> &str {
        // Behind `tta_`.
        &self.shared.tokens[token][4..20]
    }

    /// Asks each server for each of these tokens once, beside the clients.
    pub(crate) fn ask_all(&self, processes: &[Process], tokens: std::ops::Range<usize>) -> Vec<Vec<Sample>> {
        let ask_one = |process: &Process| {
            let (client, url) = (client(), url(&process.address));
            let ask = |token| self.shared.ask(&client, &url, token);
            self.runtime.block_on(stream::iter(tokens.clone()).map(ask).buffered(8).collect())
        };
        processes.iter().map(ask_one).collect()
    }

    /// Ends the clients, and answers with what those of each server have seen.
    pub(crate) fn end(self) -> Vec<Vec<Sample>> {
        self.shared.ended.store(true, Ordering::SeqCst);
        let seen = |client: JoinHandle<Vec<Sample>>| self.runtime.block_on(client).expect("a client panicked");
        self.clients.into_iter().map(|clients| clients.into_iter().flat_map(seen).collect()).collect()
    }
}

impl Shared {
    /// Asks for tokens that are being revoked until they are refused, the newest first and then by turns; while there are
    /// none, for the next.
    async fn watch(self: Arc<Self>, client: Client, url: String) -> Vec<Sample> {
        let (mut samples, mut leaving, mut noticed) = (Vec::new(), VecDeque::new(), 0);
        while !self.ended.load(Ordering::SeqCst) {
            let begun = self.begun.load(Ordering::SeqCst);
            leaving.extend(noticed..begun);
            noticed = begun;
            let watched = leaving.pop_back();
            let sample = self.ask(&client, &url, watched.unwrap_or(begun)).await;
            samples.push(sample);
            if let Some(token) = watched.filter(|_| sample.status != 401) {
                leaving.push_front(token);
            }
            tokio::time::sleep(WATCHERS_PAUSE).await;
        }
        samples
    }

    /// Asks by turns for the tokens that will be revoked next, so that they are in use until then, and for those that were.
    async fn roam(self: Arc<Self>, client: Client, url: String) -> Vec<Sample> {
        let mut samples = Vec::new();
        while !self.ended.load(Ordering::SeqCst) {
            let (turn, begun) = (samples.len(), self.begun.load(Ordering::SeqCst));
            let token = if turn % 4 == 0 && begun > 0 { turn / 4 % begun } else { begun + turn % AHEAD };
            samples.push(self.ask(&client, &url, token).await);
            tokio::time::sleep(ROAMERS_PAUSE).await;
        }
        samples
    }

    /// Uses one token that stays.
    async fn visit(self: Arc<Self>, client: Client, url: String, token: usize) -> Vec<Sample> {
        let mut samples = Vec::new();
        while !self.ended.load(Ordering::SeqCst) {
            samples.push(self.ask(&client, &url, token).await);
            tokio::time::sleep(USERS_PAUSE).await;
        }
        samples
    }

    async fn ask(&self, client: &Client, url: &str, token: usize) -> Sample {
        let sent = Instant::now();
        let answer = client.get(url).bearer_auth(&self.tokens[token]).send().await;
        let status = answer.map_or(0, |answer| answer.status().as_u16());
        Sample { token, sent, answered: Instant::now(), status }
    }
}

fn client() -> Client {
    Client::builder().no_proxy().timeout(PATIENCE).build().unwrap()
}

fn url(address: &str) -> String {
    format!("http://{address}/")
}
