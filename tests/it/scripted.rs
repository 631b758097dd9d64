//! What is asked beside the store, scripted: a policy with one switch, or a directory that knows one answer for all.

use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};

use tower_token_auth::{IssuePolicy, OwnerDirectory, OwnerId, PolicyProvider, StoreError};

/// Answers as told, and is counted. A clone is another handle to the same script.
#[derive(Clone)]
pub(crate) struct Scripted(Arc<Mutex<(Part, usize)>>);

/// What happens to whoever asks.
#[derive(Clone, Copy)]
pub(crate) enum Part {
    Answer(bool),
    Fail,
    Panic,
    Hang,
}

impl Scripted {
    pub(crate) fn new(answer: bool) -> Self {
        Self(Arc::new(Mutex::new((Part::Answer(answer), 0))))
    }

    pub(crate) fn play(&self, part: Part) {
        self.with(|script| script.0 = part);
    }

    pub(crate) fn answer(&self, answer: bool) {
        self.play(Part::Answer(answer));
    }

    /// How often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.with(|script| script.1)
    }

    fn with<T>(&self, look: impl FnOnce(&mut (Part, usize)) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    #[expect(clippy::panic, reason = "told to")]
    async fn ask(&self) -> Result<bool, StoreError> {
        let part = self.with(|script| {
            script.1 += 1;
            script.0
        });
        // Not answered at once, so that requests meet while it is asked.
        tokio::task::yield_now().await;
        match part {
            Part::Answer(answer) => Ok(answer),
            Part::Fail => Err(StoreError::new("told to fail")),
            Part::Panic => panic!("as told"),
            Part::Hang => pending().await,
        }
    }
}

/// A policy whose switch is the answer.
impl PolicyProvider for Scripted {
    async fn policy(&self) -> Result<IssuePolicy, StoreError> {
        Ok(IssuePolicy::default().force_read_only(self.ask().await?))
    }
}

/// A directory in which everybody but `bob` is what the answer says.
impl OwnerDirectory for Scripted {
    async fn may_use(&self, owner: &OwnerId) -> Result<bool, StoreError> {
        Ok(self.ask().await? || owner.as_str() == "bob")
    }
}
