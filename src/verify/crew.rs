//! The hash crew: a few threads that do all costly hashing of the process.
//!
//! Hashing costs memory as much as time, and a semaphore does not bound memory (allocators keep what other threads
//! freed). So the work comes to the memory: each worker owns one [`Scratch`] for as long as it lives.
//!
//! # What it guarantees
//! * At most one job per key runs at a time, and keys are served in turn: guesses at one token cost the others one
//!   place in a ring, never a queue.
//! * A full queue refuses at once. What is accepted is run, even if nobody waits for it any more.
//! * A job that panics drops its sender and nothing else: the worker goes on.
//!
//! # Cost
//! One mutex, held for a few map operations. No job is run, and none is dropped, while it is held: a job's captures
//! may take locks of their own when they go.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use futures_channel::oneshot;

use crate::config::VerifyLimits;
use crate::decision::GateId;
use crate::hash::Scratch;
use crate::id::TokenId;

/// Whose job it is: of one key, one job runs at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct JobKey {
    pub(crate) gate: GateId,
    pub(crate) id: TokenId,
}

/// The crew takes no more of these jobs now, or has no thread to run them on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CrewBusy;

/// A handle to the workers. Dropping it lets them finish what is queued, and stop.
pub(crate) struct Crew {
    floor: Arc<Floor>,
    size: usize,
}

/// What the workers share.
#[derive(Default)]
struct Floor {
    state: Mutex<State>,
    wake: Condvar,
}

type Job = Box<dyn FnOnce(&mut Scratch) + Send>;

/// A key is in `ring` exactly while it has jobs waiting and none running.
#[derive(Default)]
struct State {
    /// Jobs that wait, by key; no queue is empty.
    jobs: HashMap<JobKey, VecDeque<Job>>,
    ring: VecDeque<JobKey>,
    running: HashSet<JobKey>,
    /// How many jobs wait, of all keys.
    waiting: usize,
    workers: usize,
    idle: usize,
    closed: bool,
}

impl Crew {
    /// The crew these limits ask for: one of their own, or that of the process.
    pub(crate) fn for_limits(limits: &VerifyLimits) -> Arc<Self> {
        static PROCESS: OnceLock<Arc<Crew>> = OnceLock::new();
        match limits.own_workers {
            Some(size) => Arc::new(Self::new(size)),
            None => Arc::clone(PROCESS.get_or_init(|| Arc::new(Self::new(default_size())))),
        }
    }

    fn new(size: usize) -> Self {
        Self { floor: Arc::default(), size }
    }

    /// Queues a job, which runs whether or not the receiver lives on; a receiver that is cancelled means that the
    /// job panicked.
    ///
    /// Call it with no lock held that `work` takes when it is dropped: it is dropped here if the crew is busy.
    pub(crate) fn run<R: Send + 'static>(
        &self,
        key: JobKey,
        limits: &VerifyLimits,
        work: impl FnOnce(&mut Scratch) -> R + Send + 'static,
    ) -> Result<oneshot::Receiver<R>, CrewBusy> {
        let (sender, receiver) = oneshot::channel();
        // Nobody waiting is no reason not to run.
        let job: Job = Box::new(move |scratch| drop(sender.send(work(scratch))));
        match self.submit(key, limits, job) {
            Ok(()) => Ok(receiver),
            Err(_refused) => Err(CrewBusy),
        }
    }

    /// How many jobs wait, and how many run.
    pub(crate) fn load(&self) -> (usize, usize) {
        let state = self.floor.lock();
        (state.waiting, state.running.len())
    }

    /// Gives a refused job back, so that it is dropped after the lock.
    fn submit(&self, key: JobKey, limits: &VerifyLimits, job: Job) -> Result<(), Job> {
        let mut state = self.floor.lock();
        if !state.has_room(&key, limits) {
            return Err(job);
        }
        // The job that is about to be queued makes one more runnable key than there are.
        if state.ring.len() >= state.idle && state.workers < self.size && hire(&self.floor) {
            state.workers += 1;
        }
        if state.workers == 0 {
            return Err(job);
        }
        state.queue(key, job);
        self.floor.wake.notify_one();
        Ok(())
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.floor.lock().closed = true;
        self.floor.wake.notify_all();
    }
}

impl fmt::Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crew").field("size", &self.size).finish_non_exhaustive()
    }
}

/// Half the cores: the other half answers requests. More than 4 argon2 blocks would crowd each other's caches.
fn default_size() -> usize {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores / 2).clamp(1, 4)
}

/// Starts a worker; `false` if the system has no thread to give.
fn hire(floor: &Arc<Floor>) -> bool {
    let floor = Arc::clone(floor);
    let worker = thread::Builder::new().name("token-auth-hash".to_owned());
    worker.spawn(move || floor.work()).is_ok()
}

impl Floor {
    /// A job runs outside the lock, so a poisoned one guards nothing half-done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker's life.
    fn work(&self) {
        let mut scratch = Scratch::new();
        while let Some((key, job)) = self.next() {
            // Whoever waits learns of a panic by the sender that is gone. What it threw may panic when dropped.
            catch_unwind(AssertUnwindSafe(|| job(&mut scratch))).unwrap_or_else(std::mem::forget);
            self.lock().finish(key);
        }
    }

    /// Waits for a job; `None` once the crew is closed and nothing is runnable.
    fn next(&self) -> Option<(JobKey, Job)> {
        let mut state = self.lock();
        loop {
            if let Some(next) = state.take() {
                return Some(next);
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

impl State {
    fn has_room(&self, key: &JobKey, limits: &VerifyLimits) -> bool {
        match self.jobs.get(key) {
            Some(queue) => queue.len() < limits.per_id,
            None => self.jobs.len() < limits.ids,
        }
    }

    fn queue(&mut self, key: JobKey, job: Job) {
        let queue = self.jobs.entry(key).or_default();
        queue.push_back(job);
        self.waiting += 1;
        if queue.len() == 1 && !self.running.contains(&key) {
            self.ring.push_back(key);
        }
    }

    fn take(&mut self) -> Option<(JobKey, Job)> {
        let key = self.ring.pop_front()?;
        let queue = self.jobs.get_mut(&key)?;
        let job = queue.pop_front()?;
        self.waiting -= 1;
        if queue.is_empty() {
            self.jobs.remove(&key);
        }
        self.running.insert(key);
        Some((key, job))
    }

    /// Sends a key that has more to do to the end of the ring.
    fn finish(&mut self, key: JobKey) {
        self.running.remove(&key);
        if self.jobs.contains_key(&key) {
            self.ring.push_back(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    fn key() -> JobKey {
        JobKey { gate: GateId::NONE, id: TokenId::generate().unwrap() }
    }

    /// Keeps the crew's one worker busy until the answer is dropped.
    fn blocked(crew: &Crew, key: JobKey) -> mpsc::Sender<()> {
        let (release, released) = mpsc::channel::<()>();
        let (started, start) = mpsc::channel();
        let job = move |_: &mut Scratch| {
            started.send(()).unwrap();
            let _ = released.recv();
        };
        drop(crew.run(key, &VerifyLimits::default(), job).unwrap());
        start.recv().unwrap();
        release
    }

    #[tokio::test]
    async fn of_one_key_one_job_runs_at_a_time() {
        let crew = Crew::new(4);
        let (key, limits, running) = (key(), VerifyLimits::default().per_id(100), Arc::new(AtomicUsize::new(0)));
        let jobs: Vec<_> = (0..100)
            .map(|_| {
                let running = Arc::clone(&running);
                let job = move |_: &mut Scratch| {
                    let others = running.fetch_add(1, Ordering::SeqCst);
                    thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                    others
                };
                crew.run(key, &limits, job).unwrap()
            })
            .collect();
        for job in jobs {
            assert_eq!(job.await, Ok(0));
        }
    }

    #[tokio::test]
    async fn several_keys_run_side_by_side() {
        let crew = Crew::new(2);
        let _first = blocked(&crew, key());
        assert_eq!(crew.run(key(), &VerifyLimits::default(), |_| 7).unwrap().await, Ok(7));
    }

    #[tokio::test]
    async fn keys_are_served_in_turn() {
        let (crew, limits) = (Crew::new(1), VerifyLimits::default());
        let (greedy, modest) = (key(), key());
        let order = Arc::new(Mutex::new(Vec::new()));
        let release = blocked(&crew, key());
        let jobs = [(greedy, 'a'), (greedy, 'b'), (greedy, 'c'), (modest, 'x')].map(|(key, name)| {
            let order = Arc::clone(&order);
            crew.run(key, &limits, move |_| order.lock().unwrap().push(name)).unwrap()
        });
        drop(release);
        for job in jobs {
            job.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), ['a', 'x', 'b', 'c']);
    }

    #[test]
    fn full_queues_refuse_at_once() {
        let (crew, limits) = (Crew::new(1), VerifyLimits::default().ids(2).per_id(2));
        let (busy, one, two) = (key(), key(), key());
        let _release = blocked(&crew, busy);
        for key in [one, one, two] {
            assert!(crew.run(key, &limits, |_| ()).is_ok());
        }
        assert_eq!(crew.run(one, &limits, |_| ()).err(), Some(CrewBusy), "two of this key wait");
        assert_eq!(crew.run(key(), &limits, |_| ()).err(), Some(CrewBusy), "two keys wait");
        assert!(crew.run(two, &limits, |_| ()).is_ok(), "a second of a key that waits already");
    }

    #[tokio::test]
    async fn a_panic_cancels_its_own_job_only() {
        let (crew, key, limits) = (Crew::new(1), key(), VerifyLimits::default());
        let panicked = crew.run(key, &limits, |_| std::panic::panic_any("on purpose")).unwrap();
        assert!(panicked.await.is_err());
        assert_eq!(crew.run(key, &limits, |_| 7).unwrap().await, Ok(7));
        assert_eq!(crew.floor.lock().workers, 1);
    }

    #[tokio::test]
    async fn a_dropped_crew_finishes_its_queue() {
        let crew = Crew::new(1);
        let release = blocked(&crew, key());
        let queued = crew.run(key(), &VerifyLimits::default(), |_| 7).unwrap();
        drop(crew);
        drop(release);
        assert_eq!(queued.await, Ok(7));
    }

    #[tokio::test]
    async fn a_worker_keeps_its_scratch() {
        let (crew, key, limits) = (Crew::new(1), key(), VerifyLimits::default());
        crew.run(key, &limits, |scratch| scratch.put(vec![7_u8])).unwrap().await.unwrap();
        assert_eq!(crew.run(key, &limits, Scratch::take::<Vec<u8>>).unwrap().await.unwrap(), [7]);
    }

    /// Waits until so many workers have nothing to do.
    async fn idle(crew: &Crew, workers: usize) {
        while crew.floor.lock().idle != workers {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn an_idle_worker_takes_the_next_job_and_nobody_is_hired() {
        let (crew, limits) = (Crew::new(2), VerifyLimits::default());
        for _ in 0..3 {
            crew.run(key(), &limits, |_| ()).unwrap().await.unwrap();
            idle(&crew, 1).await;
        }
        assert_eq!(crew.floor.lock().workers, 1);
    }

    #[tokio::test]
    async fn who_was_idle_and_is_busy_again_does_not_count_as_idle() {
        let (crew, limits) = (Crew::new(2), VerifyLimits::default());
        crew.run(key(), &limits, |_| ()).unwrap().await.unwrap();
        idle(&crew, 1).await;
        let _first = blocked(&crew, key());
        drop(crew.run(key(), &limits, |_| ()).unwrap());
        assert_eq!(crew.floor.lock().workers, 2, "hired for the second");
    }

    #[test]
    fn a_crew_never_outgrows_its_size() {
        let (crew, limits) = (Crew::new(2), VerifyLimits::default());
        let _busy = [blocked(&crew, key()), blocked(&crew, key())];
        for _ in 0..3 {
            drop(crew.run(key(), &limits, |_| ()).unwrap());
        }
        assert_eq!(crew.load(), (3, 2), "(waiting, running)");
        assert_eq!(crew.floor.lock().workers, 2);
    }

    #[tokio::test]
    async fn a_key_that_runs_is_in_the_ring_when_it_has_run() {
        let (crew, limits) = (Crew::new(1), VerifyLimits::default());
        let key = key();
        let release = blocked(&crew, key);
        let jobs = [1, 2].map(|job| crew.run(key, &limits, move |_| job).unwrap());
        assert!(crew.floor.lock().ring.is_empty(), "it is running");
        drop(release);
        for (job, expected) in jobs.into_iter().zip([1, 2]) {
            assert_eq!(job.await, Ok(expected));
        }
        idle(&crew, 1).await;
        assert_eq!(crew.load(), (0, 0));
    }

    #[test]
    fn the_crew_of_the_process_leaves_half_the_cores() {
        let (size, cores) = (default_size(), thread::available_parallelism().map_or(1, std::num::NonZero::get));
        assert!((1..=4).contains(&size), "{size}");
        assert!(size == 1 || size * 2 <= cores, "{size} of {cores} are more than half");
        assert!(size == 4 || (size + 1) * 2 > cores, "{size} of {cores} are less than half");
    }

    #[tokio::test]
    async fn a_dropped_crew_lets_its_workers_go() {
        let (crew, limits) = (Crew::new(2), VerifyLimits::default());
        let release = blocked(&crew, key());
        crew.run(key(), &limits, |_| ()).unwrap().await.unwrap();
        idle(&crew, 1).await;
        let workers = Arc::downgrade(&crew.floor);
        drop((crew, release));
        while workers.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
