//! Bounds and times: what can be set, the defaults, and what cannot work.
//!
//! | what | default | why |
//! |---|---|---|
//! | [`CacheConfig::ttl`] | 30 s | how long a change made elsewhere can go unseen without a change feed |
//! | [`CacheConfig::refresh_ahead`] | a fifth of the TTL | a token in use is looked up again before anybody has to wait for it |
//! | [`CacheConfig::stale_if_error`] | off | serving what may be out of date is the application's choice |
//! | [`CacheConfig::negative_ttl`] | 5 s | long enough to blunt a flood, short enough for a token made elsewhere |
//! | [`CacheConfig::proved`] | 100,000 | tokens in use at once, some 250 bytes each; only a proved token takes a place |
//! | copies of them in each thread, for all gates of a process | 128 | some 40 KiB a thread that fills them; fixed |
//! | [`CacheConfig::unproved`] | 10,000 | records found whose secret nobody has proved yet |
//! | [`CacheConfig::negatives`] | 10,000 | unknown ids and wrong secrets |
//! | [`LookupLimits::in_flight`] | 256 | more than a database serves at once, fewer than would drown it |
//! | [`LookupLimits::refreshes`] | 64 | proved tokens have a budget of their own: a flood of unknown ids cannot starve them |
//! | [`LookupLimits::waiting`] | 1,024 | a burst after a restart waits; a flood is told 503 |
//! | [`LookupLimits::timeout`] | 2 s | a client that waits longer has given up |
//! | [`VerifyLimits::ids`] | 1,024 | ids that wait for a hash worker |
//! | [`VerifyLimits::per_id`] | 4 | secrets of one id that wait |
//! | [`VerifyLimits::wait`] | 2 s | as above |
//! | [`flush_last_used`](crate::TokenAuthBuilder::flush_last_used) | 30 s | what a crash may lose, and one batch of writes for all tokens in use |
//! | last uses that wait to be written | as many as [`CacheConfig::proved`] | one for each token in use |
//! | what a desk waits for its store or policy | 20 s, pruning 10 min | people wait at a desk, and a browser gives up after a minute; pruning goes over everything |
//! | turns of those who issue under a limit | 64, shared by owners | nobody's slow listing holds up everybody |
//! | tries against somebody who changes the token at the same time | 4; what only takes away, 64 | a thief must not be able to keep it |
//! | secrets that wait for a re-hash | 64, for 10 s | they are text in memory: what finds no place waits for the next cold start |
//! | [`QueuedSink`](crate::QueuedSink) | 10,000 events, of them 1,000 noise | seconds of a busy server, some 5 MiB |
//! | … what its thread takes at once | 64 events, and a sixteenth of the places | what one write to a file is for; nobody waits long for the others |
//! | … how long its thread rests when all is written | 5 ms, less where a quarter of the places is taken | two hundred wake-ups a second under load, and not one for each event |
//! | [`SampledSink`](crate::SampledSink) | 10 events of a token a minute | one is a proof of life, ten show what it does; to the minute when it was in use |
//! | [`ThresholdSink`](crate::ThresholdSink) | 50 refusals of a token within a minute | more than a client's retries, less than a guesser's minute |
//! | tokens that each of the two keeps track of | 10,000 | the busy ones, or the refused ones, of a large deployment: some MiB |
//! | [`AuditHistory`](crate::AuditHistory), acts at the desk | 1,000 governing, 10,000 others, 5,000 not done | months of an ordinary deployment, and none can push out another |
//! | … requests | 10,000 allowed, 5,000 forbidden, 5,000 mismatching, 1,000 anonymous | traces are few and kept long, noise is a sample |
//! | … reports | 1,000 | one a window and token, while somebody guesses |
//! | … tokens with their applications | 10,000, 16 user agents each | an honest token has one or two; 16 bound what its holder can make up |
//! | a page of a listing | 100 | what a person reads; a store answers it in one go |
//! | `metrics` are published every | 10 s | as often as they are usually collected |

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::base62::RandomError;
use crate::token::PrefixError;

/// How long and how much a gate remembers.
#[derive(Debug, Clone, Copy)]
pub struct CacheConfig {
    pub(crate) ttl: Duration,
    pub(crate) negative_ttl: Duration,
    pub(crate) refresh_ahead: Option<Duration>,
    pub(crate) stale_if_error: Duration,
    pub(crate) proved: usize,
    pub(crate) unproved: usize,
    pub(crate) negatives: usize,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl CacheConfig {
    /// How long a record is believed, from the start of its look-up; at most a day. Default 30 s.
    ///
    /// With zero every request asks the store (requests that arrive during one look-up share it), and one that had to
    /// wait for a hash asks again after it. Proofs are kept all the same: a secret is hashed once, not once a request.
    #[must_use]
    pub const fn ttl(self, ttl: Duration) -> Self {
        Self { ttl, ..self }
    }

    /// How long before its TTL a token in use is looked up again, so that no request has to wait for that; less than
    /// the TTL, zero for never. Default: a fifth of the TTL.
    ///
    /// The look-ups are made by [`background`](crate::TokenAuthLayer::background). Where that does not run, the first
    /// request after the TTL makes one and waits for it.
    #[must_use]
    pub const fn refresh_ahead(self, ahead: Duration) -> Self {
        Self { refresh_ahead: Some(ahead), ..self }
    }

    /// How long past its TTL a proved token goes on working while the store cannot answer; zero for not at all, at most
    /// a day. Default: not at all, which is a 503.
    ///
    /// It holds for a store that fails, hangs or panics, for what is asked beside it (an owner directory, a policy at
    /// use), and for look-ups that are refused because too many are under
    /// way. It never holds past the token's expiry, after an invalidation, or after the store has answered that there
    /// is no such token.
    ///
    /// # Security
    /// A revocation made elsewhere, or a change of the policy at use, can go unseen for as long, on top of the TTL, while
    /// the store is away.
    #[must_use]
    pub const fn stale_if_error(self, max: Duration) -> Self {
        Self { stale_if_error: max, ..self }
    }

    /// How long an unknown id or a wrong secret is remembered; zero for not at all, at most a day. Default 5 s.
    #[must_use]
    pub const fn negative_ttl(self, negative_ttl: Duration) -> Self {
        Self { negative_ttl, ..self }
    }

    /// How many proved tokens are remembered, at least 1. Default 100,000. Each takes some 250 bytes, its owner's text among
    /// them; attributes and a rotation that is under way come on top.
    #[must_use]
    pub const fn proved(self, proved: usize) -> Self {
        Self { proved, ..self }
    }

    /// How many records are remembered whose secret is not proved, at least 1. Default 10,000.
    #[must_use]
    pub const fn unproved(self, unproved: usize) -> Self {
        Self { unproved, ..self }
    }

    /// How many unknown ids and wrong secrets are remembered, at least 1. Default 10,000.
    #[must_use]
    pub const fn negatives(self, negatives: usize) -> Self {
        Self { negatives, ..self }
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        at_least_one("CacheConfig::proved", self.proved)?;
        at_least_one("CacheConfig::unproved", self.unproved)?;
        at_least_one("CacheConfig::negatives", self.negatives)?;
        at_most_a_day("CacheConfig::ttl", self.ttl)?;
        at_most_a_day("CacheConfig::negative_ttl", self.negative_ttl)?;
        at_most_a_day("CacheConfig::stale_if_error", self.stale_if_error)?;
        match self.refresh_ahead {
            Some(ahead) if !ahead.is_zero() && ahead >= self.ttl => Err(BuildError::RefreshAhead),
            _ => Ok(()),
        }
    }

    /// How long before its TTL a record in use is due; zero for never.
    pub(crate) fn ahead(&self) -> Duration {
        self.refresh_ahead.unwrap_or(self.ttl / 5)
    }
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(30),
            negative_ttl: Duration::from_secs(5),
            refresh_ahead: None,
            stale_if_error: Duration::ZERO,
            proved: 100_000,
            unproved: 10_000,
            negatives: 10_000,
        }
    }
}

/// How much a gate asks of its store at once.
#[derive(Debug, Clone, Copy)]
pub struct LookupLimits {
    pub(crate) in_flight: usize,
    pub(crate) refreshes: usize,
    pub(crate) waiting: usize,
    pub(crate) timeout: Duration,
}

impl LookupLimits {
    /// How many look-ups of tokens that are not proved run at once, at least 1. Default 256.
    #[must_use]
    pub const fn in_flight(self, in_flight: usize) -> Self {
        Self { in_flight, ..self }
    }

    /// How many look-ups of proved tokens run at once, beside the others; at least 1. Default 64.
    #[must_use]
    pub const fn refreshes(self, refreshes: usize) -> Self {
        Self { refreshes, ..self }
    }

    /// How many look-ups of each kind may wait for their turn. Default 1,024.
    #[must_use]
    pub const fn waiting(self, waiting: usize) -> Self {
        Self { waiting, ..self }
    }

    /// How long a look-up may take, waiting included; more than zero, at most a day. Default 2 s.
    #[must_use]
    pub const fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        at_least_one("LookupLimits::in_flight", self.in_flight)?;
        at_least_one("LookupLimits::refreshes", self.refreshes)?;
        more_than_zero("LookupLimits::timeout", self.timeout)?;
        at_most_a_day("LookupLimits::timeout", self.timeout)
    }
}

impl Default for LookupLimits {
    fn default() -> Self {
        Self { in_flight: 256, refreshes: 64, waiting: 1_024, timeout: Duration::from_secs(2) }
    }
}

/// How much hashing a gate asks for.
///
/// One crew of workers hashes for all gates and desks of the process: half the cores, at least 1 and at most 4, each
/// with a block of memory of its own that it reuses.
#[derive(Debug, Clone, Copy)]
pub struct VerifyLimits {
    pub(crate) ids: usize,
    pub(crate) per_id: usize,
    pub(crate) wait: Duration,
    pub(crate) own_workers: Option<usize>,
}

impl VerifyLimits {
    /// How many ids may wait for a worker, at least 1. Default 1,024.
    #[must_use]
    pub const fn ids(self, ids: usize) -> Self {
        Self { ids, ..self }
    }

    /// How many secrets of one id may wait, at least 1. Default 4.
    #[must_use]
    pub const fn per_id(self, per_id: usize) -> Self {
        Self { per_id, ..self }
    }

    /// How long a request waits for its hash; more than zero, at most a day. Default 2 s.
    ///
    /// The hash is finished all the same, and its answer is there for the next try.
    #[must_use]
    pub const fn wait(self, wait: Duration) -> Self {
        Self { wait, ..self }
    }

    /// Gives this gate a crew of its own, of `workers` threads, 1 to 64. Its memory comes on top of the process's.
    #[must_use]
    pub const fn own_workers(self, workers: usize) -> Self {
        Self { own_workers: Some(workers), ..self }
    }

    pub(crate) fn check(&self) -> Result<(), BuildError> {
        at_least_one("VerifyLimits::ids", self.ids)?;
        at_least_one("VerifyLimits::per_id", self.per_id)?;
        more_than_zero("VerifyLimits::wait", self.wait)?;
        at_most_a_day("VerifyLimits::wait", self.wait)?;
        match self.own_workers {
            Some(workers) if workers > 64 => Err(BuildError::TooManyWorkers),
            Some(workers) => at_least_one("VerifyLimits::own_workers", workers),
            None => Ok(()),
        }
    }
}

impl Default for VerifyLimits {
    fn default() -> Self {
        Self { ids: 1_024, per_id: 4, wait: Duration::from_secs(2), own_workers: None }
    }
}

pub(crate) fn at_least_one(option: &'static str, value: usize) -> Result<(), BuildError> {
    if value == 0 { Err(BuildError::Zero(option)) } else { Ok(()) }
}

pub(crate) fn more_than_zero(option: &'static str, value: Duration) -> Result<(), BuildError> {
    if value.is_zero() { Err(BuildError::NoTime(option)) } else { Ok(()) }
}

pub(crate) fn at_most_a_day(option: &'static str, value: Duration) -> Result<(), BuildError> {
    if value > DAY { Err(BuildError::TooLong(option)) } else { Ok(()) }
}

/// A configuration that cannot work, with what to change.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// The realm cannot stand in a challenge.
    Realm,
    /// A prefix is not one.
    Prefix(PrefixError),
    /// A prefix is accepted twice.
    PrefixTwice,
    /// More than 256 prefixes are accepted.
    TooManyPrefixes,
    /// A number that must be at least 1 is zero.
    Zero(&'static str),
    /// A time that must be more than zero is zero.
    NoTime(&'static str),
    /// Tokens would be refreshed before they are read.
    RefreshAhead,
    /// An option is longer than a day.
    TooLong(&'static str),
    /// A gate asks for more than 64 hash workers of its own.
    TooManyWorkers,
    /// An audit queue has no place for events about proved tokens.
    AuditQueue,
    /// The system has no thread to give.
    Thread(std::io::Error),
    /// Recording is required of a sink that cannot fail.
    AuditCannotFail,
    /// Requests pass without credentials, and nothing tells the inner service which had a token.
    PassWithoutExtension,
    /// What the policy at use forbids is only reported, and there is none.
    NoPolicyAtUse,
    /// The operating system has no random bytes for the cache's keys.
    Random(RandomError),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Realm => f.write_str(
                "the realm can not stand in a challenge; use 1 to 128 printable ASCII characters without \" and \\",
            ),
            Self::Prefix(_) => f.write_str(
                "the token prefix is not one; use 2 to 16 characters of a-z, 0-9 and _, beginning with a letter and not ending with _",
            ),
            Self::PrefixTwice => {
                f.write_str("a token prefix is accepted twice; remove one `accept_prefix`")
            }
            Self::TooManyPrefixes => f.write_str("more than 256 token prefixes are accepted; remove `accept_prefix` of old ones"),
            Self::Zero(option) => write!(f, "{option} is zero; set it to at least 1"),
            Self::NoTime(option) => write!(f, "{option} is zero; set it to more than zero, such as two seconds"),
            Self::RefreshAhead => f.write_str(
                "CacheConfig::refresh_ahead is not less than the TTL; set it to a part of CacheConfig::ttl, or to zero for never",
            ),
            Self::TooLong(option) => write!(f, "{option} is longer than a day; set it to at most 24 hours"),
            Self::TooManyWorkers => f.write_str(
                "VerifyLimits::own_workers is more than 64; set it to about half the number of cores",
            ),
            Self::AuditCannotFail => f.write_str(
                "OnAuditFailure::Refuse needs an audit sink that can fail; this one never tells of a loss, so set another sink or OnAuditFailure::Continue",
            ),
            Self::AuditQueue => f.write_str(
                "the audit queue has no place for events about proved tokens; set the capacity to at least 2 and noise to less",
            ),
            Self::Thread(_) => f.write_str(
                "the system has no thread for the audit queue; raise the limit on threads of the process",
            ),
            Self::PassWithoutExtension => f.write_str(
                "OnMissing::Pass lets requests through without a token, and without_extension keeps from the service which had one; remove one of them",
            ),
            Self::NoPolicyAtUse => f.write_str(
                "insecure_report_only_policy reports what a policy at use forbids, and there is none; set policy_at_use, or remove it",
            ),
            Self::Random(_) => f.write_str(
                "the operating system has no random bytes for the cache's keys; give the process access to its random source",
            ),
        }
    }
}

impl StdError for BuildError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Prefix(error) => Some(error),
            Self::Random(error) => Some(error),
            Self::Thread(error) => Some(error),
            _ => None,
        }
    }
}

impl From<RandomError> for BuildError {
    fn from(error: RandomError) -> Self {
        Self::Random(error)
    }
}
