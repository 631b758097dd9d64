//! The course of the experiment on one database.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::load::{Load, Sample};
use crate::outage::{self, Answers, Outcome, RECOVERY, Times};
use crate::process::{self, Process, Stats, Teller};
use crate::revoked::{self, Lags, Revocation};
use crate::serve::TTL;
use crate::servers::{Kind, Server};

/// Tokens that stay, in use all the time.
const STAY: usize = 20;
/// Revocations after the outage.
const AFTER: usize = 20;
/// Between two revocations.
const PAUSE: Duration = Duration::from_millis(8);
/// Longer than the TTL, so that memory alone does not bridge it.
const OUTAGE: Duration = Duration::from_secs(3);
/// In which whatever is late would be seen.
const AFTERMATH: Duration = TTL.saturating_add(Duration::from_millis(300));

/// What was seen, in the order of the servers.
struct Record {
    /// In the order of the tokens.
    revocations: Vec<Revocation>,
    times: Times,
    before: Vec<Stats>,
    after: Vec<Stats>,
    /// From the moment at which the database was ready again to a feed that is connected.
    told_after: Vec<Option<Duration>>,
    samples: Vec<Vec<Sample>>,
    /// Answers other than 401 to any of the revoked tokens, at the end.
    revived: usize,
}

/// Whether every promise was kept, `None` where the database is not installed.
pub(crate) fn run(kind: Kind, count: usize) -> Option<bool> {
    let mut server = Server::start(kind)?;
    let mut processes = process::start(&server.url());
    let record = conduct(&mut server, &mut processes, count);
    let name = if kind == Kind::Postgres { "PostgreSQL" } else { "Redis" };
    Some(record.judge(name, &processes, count))
}

fn conduct(server: &mut Server, processes: &mut [Process], count: usize) -> Record {
    let stay = count + AFTER;
    let tokens = processes[0].issue(stay + STAY);
    let load = Load::start(processes, tokens, stay);

    let mut revocations = revoke(&load, &mut processes[0], count);
    sleep(AFTERMATH);
    let before = processes.iter_mut().map(Process::stats).collect();
    let times = kill_and_restart(server);
    let told_after = await_feeds(processes, times.ready);
    sleep(TTL / 2);
    revocations.extend(revoke(&load, &mut processes[0], AFTER));
    sleep(AFTERMATH);

    // Not left to the clients, which look at the last ones most.
    let at_the_end = load.ask_all(processes, 0..stay);
    let revived = at_the_end.iter().flatten().filter(|sample| sample.status != 401).count();
    let after = processes.iter_mut().map(Process::stats).collect();
    Record { revocations, times, before, after, told_after, samples: load.end(), revived }
}

/// Revokes the next tokens, one after the other.
fn revoke(load: &Load, desk: &mut Process, count: usize) -> Vec<Revocation> {
    let revoke_one = |_| {
        let (asked, token) = (Instant::now(), load.begin());
        // A connection that had died in the pool is found so once; people try again.
        assert!((0..10).any(|_| desk.revoke(load.id(token))), "the desk does not revoke");
        let acknowledged = Instant::now();
        sleep(PAUSE);
        Revocation { asked, acknowledged }
    };
    (0..count).map(revoke_one).collect()
}

fn kill_and_restart(server: &mut Server) -> Times {
    server.crash();
    let killed = Instant::now();
    sleep(OUTAGE);
    let restarted = Instant::now();
    server.start_again();
    Times { killed, restarted, ready: Instant::now() }
}

/// How long after `ready` each server's feed was connected.
fn await_feeds(processes: &mut [Process], ready: Instant) -> Vec<Option<Duration>> {
    let mut after = vec![None; processes.len()];
    let waits = |(process, after): (&Process, &Option<_>)| process.teller != Teller::Nobody && after.is_none();
    while processes.iter().zip(&after).any(waits) && ready.elapsed() < RECOVERY {
        for (process, after) in processes.iter_mut().zip(&mut after) {
            *after = after.or_else(|| process.stats().connected.then(|| ready.elapsed()));
        }
        sleep(Duration::from_millis(20));
    }
    after
}

impl Record {
    /// Prints what was seen, and answers whether it is what was promised.
    fn judge(&self, name: &str, processes: &[Process], count: usize) -> bool {
        let stay = count + AFTER;
        let lags = |range: std::ops::Range<usize>| {
            let of_one = |(process, samples): (&Process, &Vec<_>)| {
                Lags::of(process.teller, samples, &self.revocations, range.clone())
            };
            processes.iter().zip(&self.samples).map(of_one).collect::<Vec<_>>()
        };
        let (first, then) = (lags(0..count), lags(count..stay));
        println!("\n{name}: {} servers, the same {} tokens in use on all\n", processes.len(), stay + STAY);
        revoked::print(processes, &first);
        println!("  at the end, answers other than 401 to any of the {stay} revoked tokens: {}", self.revived);

        let outcome = |(at, then): (usize, Lags)| {
            let hashes = self.after[at].hashes - self.before[at].hashes;
            let answers = Answers::of(&self.samples[at], self.times, count, stay);
            Outcome { answers, told_after: self.told_after[at], hashes, then }
        };
        let outcomes: Vec<_> = then.into_iter().enumerate().map(outcome).collect();
        println!("\n{name}, killed (-9) and started again after {} s\n", OUTAGE.as_secs());
        outage::print(processes, &outcomes);
        let well = processes.iter().zip(&outcomes).all(|(process, outcome)| outcome.kept(process.teller));
        well && self.revived == 0 && first.iter().all(Lags::kept)
    }
}
