//! Argon2id (RFC 9106) in PHC form.

use std::fmt;

use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, AssociatedData, Block, KeyId, Params, Version};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{HashCost, HashError, Scratch, SecretHasher};
use crate::base62;
use crate::secret::{SecretHash, TokenSecret};

const OUTPUT_LEN: usize = 32;
const SALT_LEN: usize = 16;
/// What a stored hash may ask for at most, apart from memory: above it, one request could hold a worker for seconds.
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 16;

/// What one argon2id hash costs.
///
/// The default is 19,456 KiB, 2 passes, 1 lane: the first choice of the OWASP password storage cheat sheet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Argon2Cost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes, which are computed one after another here.
    pub lanes: u32,
}

impl Argon2Cost {
    /// A cost of `memory_kib` KiB, `passes` passes and `lanes` lanes.
    #[must_use]
    pub const fn new(memory_kib: u32, passes: u32, lanes: u32) -> Self {
        Self { memory_kib, passes, lanes }
    }

    fn params(self) -> Result<Params, HashError> {
        Params::new(self.memory_kib, self.passes, self.lanes, Some(OUTPUT_LEN)).map_err(failed)
    }
}

impl Default for Argon2Cost {
    fn default() -> Self {
        Self::new(19_456, 2, 1)
    }
}

/// Argon2id, the default hasher.
///
/// # Cost
/// With the default cost some 20 ms and 19 MiB for each hash, on a worker of the hash crew that reuses its block.
/// In unoptimised builds it is some thirty times slower; put this into the application's `Cargo.toml`:
/// ```toml
/// [profile.dev.package.argon2]
/// opt-level = 3
/// [profile.dev.package.blake2]
/// opt-level = 3
/// ```
///
/// # Example
/// ```
/// use tower_token_auth::{Argon2Cost, Argon2Hasher};
///
/// let hasher = Argon2Hasher::new()
///     .with_cost(Argon2Cost::new(32 * 1024, 3, 1))?
///     .with_pepper("k2", b"the new pepper, from the application's secret manager")?
///     .accepting_pepper("k1", b"the old pepper, still needed to verify")?;
/// # Ok::<(), tower_token_auth::HashError>(())
/// ```
#[derive(Clone)]
pub struct Argon2Hasher {
    cost: Argon2Cost,
    max_memory_kib: u32,
    /// The first is used for new hashes, where `peppered`.
    peppers: Vec<Pepper>,
    peppered: bool,
}

#[derive(Clone)]
struct Pepper {
    id: KeyId,
    key: Zeroizing<Vec<u8>>,
}

impl Argon2Hasher {
    /// A hasher of the default cost that obeys stored hashes of up to 64 MiB.
    #[must_use]
    pub fn new() -> Self {
        Self { cost: Argon2Cost::default(), max_memory_kib: 64 * 1024, peppers: Vec::new(), peppered: false }
    }

    /// Sets what new hashes cost. A stored hash keeps the cost it was made with, unless that is lower (memory times
    /// passes): then it is hashed anew when its secret is next proved.
    ///
    /// Processes that serve the same tokens must all obey the new cost before one of them prefers it: the guide
    /// [*Rotating a token*](crate::docs::rotating_a_token) has the two steps.
    ///
    /// # Errors
    /// [`HashError::Failed`] when argon2 has no such parameters, [`HashError::TooCostly`] when they are above the cap
    /// for stored hashes: raise that first ([`with_max_memory_kib`](Self::with_max_memory_kib)).
    pub fn with_cost(self, cost: Argon2Cost) -> Result<Self, HashError> {
        self.check_cap(&cost.params()?)?;
        Ok(Self { cost, ..self })
    }

    /// Sets how much memory a stored hash may ask for, in KiB. Each worker keeps a block as large as the largest hash
    /// it has seen.
    #[must_use]
    pub fn with_max_memory_kib(self, max_memory_kib: u32) -> Self {
        Self { max_memory_kib, ..self }
    }

    /// Sets the pepper for new hashes: a key that is kept apart from the store, so that a stolen table alone cannot
    /// be attacked. `id` goes into each hash and may be public; 1 to 8 bytes.
    ///
    /// Processes that serve the same tokens must all [accept](Self::accepting_pepper) a new pepper before one of them
    /// prefers it: to the others its hashes cannot be verified, and their tokens are answered 503. The guide
    /// [*Rotating a token*](crate::docs::rotating_a_token) has the two steps.
    ///
    /// # Errors
    /// [`HashError::Failed`] when the id or the key is empty or too long.
    pub fn with_pepper(mut self, id: &str, key: &[u8]) -> Result<Self, HashError> {
        self.peppers.insert(0, Pepper::new(id, key)?);
        Ok(Self { peppered: true, ..self })
    }

    /// Adds a pepper that is accepted in stored hashes: an old one, or the next one before it is used.
    ///
    /// # Errors
    /// As for [`with_pepper`](Self::with_pepper).
    pub fn accepting_pepper(mut self, id: &str, key: &[u8]) -> Result<Self, HashError> {
        self.peppers.push(Pepper::new(id, key)?);
        Ok(self)
    }

    fn check_cap(&self, params: &Params) -> Result<(), HashError> {
        let affordable =
            params.m_cost() <= self.max_memory_kib && params.t_cost() <= MAX_PASSES && params.p_cost() <= MAX_LANES;
        if affordable { Ok(()) } else { Err(HashError::TooCostly) }
    }

    fn pepper(&self, params: &Params) -> Result<&[u8], HashError> {
        if params.keyid().is_empty() {
            return Ok(&[]);
        }
        let pepper = self.peppers.iter().find(|pepper| pepper.id.as_bytes() == params.keyid());
        pepper.map(|pepper| &**pepper.key).ok_or(HashError::UnknownPepper)
    }

    fn new_params(&self) -> Result<Params, HashError> {
        let mut builder = argon2::ParamsBuilder::new();
        let Argon2Cost { memory_kib, passes, lanes } = self.cost;
        builder.m_cost(memory_kib).t_cost(passes).p_cost(lanes).output_len(OUTPUT_LEN);
        if let Some(pepper) = self.peppers.first().filter(|_| self.peppered) {
            builder.keyid(pepper.id);
        }
        builder.build().map_err(failed)
    }

    fn derive(&self, job: &Job<'_>, output: &mut [u8], scratch: &mut Scratch) -> Result<(), HashError> {
        let pepper = self.pepper(&job.params)?;
        let argon2 = Argon2::new_with_secret(pepper, job.algorithm, job.version, job.params.clone()).map_err(failed)?;
        let mut memory: Vec<Block> = scratch.take();
        let needed = job.params.block_count();
        if memory.len() < needed {
            memory.resize(needed, Block::new());
        }
        let blocks = memory.get_mut(..needed).unwrap_or_default();
        let derived = argon2.hash_password_into_with_memory(job.secret.expose().as_bytes(), job.salt, output, blocks);
        scratch.put(memory);
        derived.map_err(failed)
    }
}

struct Job<'a> {
    algorithm: Algorithm,
    version: Version,
    params: Params,
    secret: &'a TokenSecret,
    salt: &'a [u8],
}

impl Pepper {
    fn new(id: &str, key: &[u8]) -> Result<Self, HashError> {
        if id.is_empty() || key.is_empty() {
            return Err(HashError::Failed("a pepper needs an id and a key".into()));
        }
        Ok(Self { id: KeyId::new(id.as_bytes()).map_err(failed)?, key: Zeroizing::new(key.to_vec()) })
    }
}

impl fmt::Debug for Argon2Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Argon2Hasher").field("cost", &self.cost).finish_non_exhaustive()
    }
}

impl Default for Argon2Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl SecretHasher for Argon2Hasher {
    fn recognises(&self, hash: &SecretHash) -> bool {
        matches!(hash.scheme(), "argon2id" | "argon2i" | "argon2d")
    }

    fn cost(&self) -> HashCost {
        HashCost::Offload
    }

    fn hash(&self, secret: &TokenSecret, scratch: &mut Scratch) -> Result<SecretHash, HashError> {
        let mut salt = [0_u8; SALT_LEN];
        base62::random_bytes(&mut salt).map_err(HashError::Random)?;
        let (algorithm, version, params) = (Algorithm::Argon2id, Version::V0x13, self.new_params()?);
        let phc_params = (&params).try_into().map_err(failed)?;
        let mut output = Zeroizing::new([0_u8; OUTPUT_LEN]);
        self.derive(&Job { algorithm, version, params, secret, salt: &salt }, &mut *output, scratch)?;
        let phc = PasswordHash {
            algorithm: algorithm.ident(),
            version: Some(version.into()),
            params: phc_params,
            salt: Some(Salt::new(&salt).map_err(failed)?),
            hash: Some(Output::new(&*output).map_err(failed)?),
        };
        SecretHash::parse(&phc.to_string()).map_err(failed)
    }

    fn verify(&self, secret: &TokenSecret, hash: &SecretHash, scratch: &mut Scratch) -> Result<bool, HashError> {
        let Stored { algorithm, version, params, salt, expected } = Stored::parse(hash)?;
        self.check_cap(&params)?;
        let mut output = Zeroizing::new(vec![0_u8; expected.len()]);
        self.derive(&Job { algorithm, version, params, secret, salt: salt.as_ref() }, &mut output, scratch)?;
        Ok(output.ct_eq(expected.as_bytes()).into())
    }

    fn is_current(&self, hash: &SecretHash) -> bool {
        let (Ok(stored), Ok(today)) = (Stored::parse(hash), self.new_params()) else { return false };
        // Equal or higher, in one number: of two processes that disagree, one is content with the other's hashes.
        let work = |params: &Params| u64::from(params.m_cost()) * u64::from(params.t_cost());
        stored.algorithm == Algorithm::Argon2id
            && stored.version == Version::V0x13
            && work(&stored.params) >= work(&today)
            && stored.params.keyid() == today.keyid()
    }
}

/// A stored hash, taken apart.
struct Stored {
    algorithm: Algorithm,
    version: Version,
    params: Params,
    salt: Salt,
    expected: Output,
}

impl Stored {
    fn parse(hash: &SecretHash) -> Result<Self, HashError> {
        let parsed = PasswordHash::new(hash.phc()).map_err(|_| HashError::Malformed)?;
        let params = Params::try_from(&parsed).map_err(|_| HashError::Malformed)?;
        // Associated data would change what is hashed; none of ours carries it.
        if params.data() != AssociatedData::default().as_bytes() {
            return Err(HashError::Malformed);
        }
        Ok(Self {
            algorithm: parsed.algorithm.as_str().parse().map_err(|_| HashError::Malformed)?,
            version: match parsed.version {
                Some(version) => version.try_into().map_err(|_| HashError::Malformed)?,
                None => Version::default(),
            },
            params,
            salt: parsed.salt.ok_or(HashError::Malformed)?,
            expected: parsed.hash.ok_or(HashError::Malformed)?,
        })
    }
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> HashError {
    HashError::Failed(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cheap() -> Argon2Hasher {
        Argon2Hasher::new().with_cost(Argon2Cost::new(8, 1, 1)).unwrap()
    }

    fn hash(text: &str) -> SecretHash {
        SecretHash::parse(text).unwrap()
    }

    #[test]
    fn only_the_hashed_secret_verifies() {
        let (hasher, scratch) = (cheap(), &mut Scratch::new());
        let (right, wrong) = (TokenSecret::generate().unwrap(), TokenSecret::generate().unwrap());
        let stored = hasher.hash(&right, scratch).unwrap();
        assert!(stored.to_text().starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{}", stored.to_text());
        assert!(hasher.recognises(&stored) && hasher.is_current(&stored));
        assert!(hasher.verify(&right, &stored, scratch).unwrap());
        assert!(!hasher.verify(&wrong, &stored, scratch).unwrap());
        assert_ne!(hasher.hash(&right, scratch).unwrap(), stored, "the salt is random");
    }

    #[test]
    fn secrets_that_differ_only_at_the_end_differ() {
        let (hasher, scratch) = (cheap(), &mut Scratch::new());
        let right = TokenSecret::from_bytes(b"0123456789abcdef0123456789abcdef").unwrap();
        let wrong = TokenSecret::from_bytes(b"0123456789abcdef0123456789abcdeg").unwrap();
        let stored = hasher.hash(&right, scratch).unwrap();
        assert!(!hasher.verify(&wrong, &stored, scratch).unwrap());
    }

    #[test]
    fn stored_costs_are_capped_before_they_are_obeyed() {
        let secret = TokenSecret::generate().unwrap();
        let tail = "c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g";
        for params in
            ["m=4294967295,t=1,p=1", "m=65537,t=1,p=1", "m=8,t=17,p=1", "m=8,t=4294967295,p=1", "m=136,t=1,p=17"]
        {
            let stored = hash(&format!("$argon2id$v=19${params}${tail}"));
            let refused = cheap().verify(&secret, &stored, &mut Scratch::new());
            assert!(matches!(refused, Err(HashError::TooCostly)), "{params}: {refused:?}");
        }
        let fits = hash(&format!("$argon2id$v=19$m=8,t=16,p=1${tail}"));
        assert!(matches!(cheap().verify(&secret, &fits, &mut Scratch::new()), Ok(false)));
    }

    #[test]
    fn a_malformed_hash_is_an_error_not_a_mismatch() {
        let secret = TokenSecret::generate().unwrap();
        for text in [
            "$argon2id$x",
            "$argon2id$v=19$m=8,t=1,p=1",
            "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ",
            "$argon2id$v=7$m=8,t=1,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNo",
            "$argon2id$v=19$m=1,t=1,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNo",
        ] {
            let answer = cheap().verify(&secret, &hash(text), &mut Scratch::new());
            assert!(matches!(answer, Err(HashError::Malformed)), "{text}: {answer:?}");
        }
    }

    #[test]
    fn a_pepper_is_needed_and_named() {
        let (secret, scratch) = (TokenSecret::generate().unwrap(), &mut Scratch::new());
        let old = cheap().with_pepper("k1", b"old pepper").unwrap();
        let new = cheap().with_pepper("k2", b"new pepper").unwrap().accepting_pepper("k1", b"old pepper").unwrap();
        let stored = old.hash(&secret, scratch).unwrap();
        assert!(new.verify(&secret, &stored, scratch).unwrap());
        assert!(old.is_current(&stored) && !new.is_current(&stored), "the re-hash moves to the new pepper");
        assert!(matches!(cheap().verify(&secret, &stored, scratch), Err(HashError::UnknownPepper)));
        let impostor = cheap().with_pepper("k1", b"another").unwrap();
        assert!(!impostor.verify(&secret, &stored, scratch).unwrap());
    }

    #[test]
    fn only_a_lower_cost_is_outdated() {
        let (secret, scratch) = (TokenSecret::generate().unwrap(), &mut Scratch::new());
        let hasher = |(memory, passes)| Argon2Hasher::new().with_cost(Argon2Cost::new(memory, passes, 1)).unwrap();
        for (stored, today, current) in [
            ((8, 1), (16, 1), false),
            ((16, 1), (8, 1), true),
            ((8, 1), (8, 2), false),
            ((8, 2), (8, 1), true),
            ((8, 3), (32, 1), false),
            ((32, 1), (8, 3), true),
            ((8, 1), (8, 1), true),
        ] {
            let hash = hasher(stored).hash(&secret, scratch).unwrap();
            assert_eq!(hasher(today).is_current(&hash), current, "{stored:?} where today's is {today:?}");
        }
    }

    #[test]
    fn costs_that_cannot_work_are_refused_at_once() {
        assert!(matches!(Argon2Hasher::new().with_cost(Argon2Cost::new(1, 1, 1)), Err(HashError::Failed(_))));
        assert!(matches!(Argon2Hasher::new().with_cost(Argon2Cost::new(65_537, 1, 1)), Err(HashError::TooCostly)));
        assert!(Argon2Hasher::new().with_max_memory_kib(65_537).with_cost(Argon2Cost::new(65_537, 1, 1)).is_ok());
        assert!(Argon2Hasher::new().with_pepper("", b"x").is_err());
    }
}
