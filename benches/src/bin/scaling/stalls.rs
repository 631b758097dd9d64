//! The longest that a hit takes while another thread puts a million tokens into the cache, and while 100,000 have to
//! leave it.
//!
//! A busy machine stalls a thread for milliseconds that are none of ours. So the reader asks in turn two gates with the
//! same hot tokens, one that is being filled and one that nobody else uses: what interrupts the reader hits both. And
//! where the kernel says that it took the processor from the reader meanwhile, the stall is told apart. Neither sees
//! what a hypervisor takes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use benches::raw::Raw;
use benches::rounds::median;
use benches::tokens::EveryToken;
use benches::{Bare, Template, call};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::Pid;
use serde_json::json;
use tower_token_auth::TokenAuth;

const RUNS: usize = 5;
/// Too many for a core to keep them apart from the map.
const HOT: u64 = 4_096;
const INSERTED: u64 = 1_000_000;
const EVICTED: u64 = 100_000;
/// What takes longer is looked at.
const SLOW: Duration = Duration::from_micros(10);

const PHASES: [&str; 2] = ["1,000,000 inserted", "100,000 evicted"];

/// The longest calls of one gate in one phase.
#[derive(Debug, Clone, Copy, Default)]
struct Longest {
    undisturbed: Duration,
    interrupted: Duration,
}

/// The gate that is filled, and the one that is left alone.
type Pair = [Longest; 2];

pub fn measure(tokens: &EveryToken, raw: &mut Raw) {
    let runs: Vec<[Pair; 2]> = (0..RUNS).map(|_| run(tokens)).collect();
    println!(
        "| longest hit while | this gate µs | one left alone µs | and when the kernel interrupted it: this | one left alone |"
    );
    println!("|---|---:|---:|---:|---:|");
    for (at, phase) in PHASES.into_iter().enumerate() {
        let of = |gate: usize, figure: fn(&Longest) -> Duration| {
            median(runs.iter().map(|run| figure(&run[at][gate]).as_nanos() as f64 / 1e3))
        };
        let (own, alone) = (of(0, |longest| longest.undisturbed), of(1, |longest| longest.undisturbed));
        let disturbed = (of(0, |longest| longest.interrupted), of(1, |longest| longest.interrupted));
        println!("| {phase} | {own:.0} | {alone:.0} | {:.0} | {:.0} |", disturbed.0, disturbed.1);
        raw.line(&json!({
            "kind": "stalls", "while": phase, "runs": RUNS, "ours_us": own, "left_alone_us": alone,
            "ours_interrupted_us": disturbed.0, "left_alone_interrupted_us": disturbed.1,
        }));
    }
}

fn run(tokens: &EveryToken) -> [Pair; 2] {
    let capacity = (HOT + INSERTED) as usize;
    let mut gates = [tokens.gate(capacity), tokens.gate(capacity)];
    gates.iter_mut().for_each(|gate| tokens.show(gate, 0..HOT));
    let mut filled = gates[0].clone();
    // The number of the phase; past the last one it is over.
    let phase = AtomicUsize::new(0);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            stay_on(0);
            read(&mut gates, tokens, &phase)
        });
        stay_on(1);
        tokens.show(&mut filled, HOT..HOT + INSERTED);
        phase.store(1, Ordering::Relaxed);
        tokens.show(&mut filled, HOT + INSERTED..HOT + INSERTED + EVICTED);
        phase.store(2, Ordering::Relaxed);
        reader.join().expect("the reader does not fail")
    })
}

/// Asks both gates in turn until it is over. The clock is read once a call, so that no time is between two calls.
fn read(gates: &mut [TokenAuth<Bare>; 2], tokens: &EveryToken, phase: &AtomicUsize) -> [Pair; 2] {
    let templates: Vec<Template> = (0..HOT).map(|n| tokens.template(n)).collect();
    let mut longest = [Pair::default(); 2];
    let mut switches = involuntary_switches();
    let mut before = Instant::now();
    for template in templates.iter().cycle() {
        for (at, gate) in gates.iter_mut().enumerate() {
            let status = call(gate, template.request());
            let now = Instant::now();
            let took = now - before;
            before = now;
            assert_eq!(status, 200);
            let Some(pair) = longest.get_mut(phase.load(Ordering::Relaxed)) else { return longest };
            if took > SLOW {
                let interrupted = involuntary_switches() != switches;
                let kind = if interrupted { &mut pair[at].interrupted } else { &mut pair[at].undisturbed };
                *kind = took.max(*kind);
                switches = involuntary_switches();
                before = Instant::now();
            }
        }
    }
    longest
}

/// How often the kernel has taken the processor from this thread.
fn involuntary_switches() -> i64 {
    getrusage(UsageWho::RUSAGE_THREAD).map_or(0, |usage| usage.involuntary_context_switches())
}

/// Keeps this thread on one core, where there are two.
fn stay_on(core: usize) {
    let mut cores = CpuSet::new();
    if thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) && cores.set(core).is_ok() {
        // Where it may not, it moves about as any thread.
        let _moved = sched_setaffinity(Pid::from_raw(0), &cores);
    }
}
