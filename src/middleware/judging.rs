//! What can be set of the judgement: access, owners, today's policy, and what is only reported.

use std::sync::Arc;

use super::builder::TokenAuthBuilder;
use super::narrowing::Narrowing;
use super::permit::ReportOnly;
use crate::access::Access;
use crate::config::BuildError;
use crate::issue::{ErasedPolicy, PolicyProvider};
use crate::request::RequestHead;
use crate::store::{ErasedOwners, ErasedStore, OwnerDirectory, Vetted};

/// What is asked beside the store, and what becomes of the answer.
#[derive(Clone, Default)]
pub(super) struct Judging {
    owners: Option<Arc<dyn ErasedOwners>>,
    policy: Option<Arc<dyn ErasedPolicy>>,
    pub(super) report_only: ReportOnly,
    pub(super) token_headers: bool,
}

impl Judging {
    pub(super) fn check(&self) -> Result<(), BuildError> {
        match self.policy {
            None if self.report_only.policy => Err(BuildError::NoPolicyAtUse),
            _ => Ok(()),
        }
    }

    /// The store, and what is asked beside it: the directory first, for no policy matters of a barred owner.
    pub(super) fn beside(&self, mut store: Arc<dyn ErasedStore>) -> Arc<dyn ErasedStore> {
        if let Some(owners) = &self.owners {
            store = Arc::new(Vetted::new(store, Arc::clone(owners)));
        }
        if let Some(policy) = &self.policy {
            store = Arc::new(Narrowing::new(store, Arc::clone(policy)));
        }
        store
    }
}

impl TokenAuthBuilder {
    /// Tells what a request does where its method does not; `None` leaves it to the method.
    ///
    /// # Security
    /// Answer [`Access::Read`] only for what can be enumerated: exact paths, not prefixes a client can extend.
    pub fn access(mut self, classify: impl Fn(&RequestHead<'_>) -> Option<Access> + Send + Sync + 'static) -> Self {
        self.closures.access = Some(Arc::new(classify));
        self
    }

    /// Asks a directory whether a token's owner may use tokens, for applications that keep their users elsewhere. Default:
    /// the store's own word ([`TokenRecord::owner_barred`](crate::TokenRecord::owner_barred)) counts alone; with a
    /// directory an owner has to be free by both.
    pub fn owners(mut self, directory: impl OwnerDirectory + 'static) -> Self {
        self.judging.owners = Some(Arc::new(directory));
        self
    }

    /// Applies the issue policy to tokens that were issued before: while its
    /// [switch](crate::IssuePolicy::force_read_only) is on, a read-write token whose maker had no right to create tokens
    /// on behalf of others ([`made_on_behalf_right`](crate::TokenRecord::made_on_behalf_right)) acts as read-only. Default:
    /// the policy binds who creates tokens, and a token keeps the scope it was issued with.
    ///
    /// A write of such a token is answered 403 as `insufficient_scope`, with a sentence of its own, and audited as
    /// [`Reason::Policy`](crate::Reason::Policy). Handlers see `read-only` in
    /// [`AuthenticatedToken::scope`](crate::AuthenticatedToken::scope), and what was issued in
    /// [`issued_scope`](crate::AuthenticatedToken::issued_scope). Nothing is changed in the store: with the switch off
    /// again, the tokens write again.
    ///
    /// Give it the provider that the desk has. It is asked within the look-up of such a token, and its answer is
    /// remembered with the record: a change of the policy holds no later than
    /// [`CacheConfig::ttl`](crate::CacheConfig::ttl), and for the very next request after
    /// [`AuthHandle::invalidate_all`](crate::AuthHandle::invalidate_all), which the gate's desk calls in
    /// [`change_policy`](crate::TokenIssuer::change_policy). A provider that fails is a 503 that nobody remembers.
    ///
    /// # Example
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicBool, Ordering};
    /// use tower_token_auth::{IssuePolicy, MemoryStore, TokenAuthLayer};
    ///
    /// let switch = Arc::new(AtomicBool::new(false));
    /// let policy = {
    ///     let switch = Arc::clone(&switch);
    ///     move || IssuePolicy::default().force_read_only(switch.load(Ordering::SeqCst))
    /// };
    /// let store = MemoryStore::new();
    /// let auth = TokenAuthLayer::builder(store.clone()).policy_at_use(policy.clone()).build()?;
    /// let desk = auth.issuer(store, policy);
    ///
    /// switch.store(true, Ordering::SeqCst);
    /// auth.handle().invalidate_all();
    /// # Ok::<(), tower_token_auth::BuildError>(())
    /// ```
    pub fn policy_at_use(mut self, provider: impl PolicyProvider + 'static) -> Self {
        self.judging.policy = Some(Arc::new(provider));
        self
    }

    /// Only reports what the scope of a token forbids: the request goes on, audited as
    /// [`Outcome::WouldForbid`](crate::Outcome::WouldForbid) with the reason `forbidden`. For the time before scopes are
    /// enforced, to learn which clients would break. What the policy at use forbids is refused all the same, and a wrong,
    /// dead or barred token as ever.
    ///
    /// # Security
    /// With it **every read-only token can write**, unless a handler asks
    /// [`AuthenticatedToken::permits`](crate::AuthenticatedToken::permits), which goes on telling the truth. Building the
    /// layer logs a WARN.
    pub fn insecure_report_only_scope(mut self) -> Self {
        self.judging.report_only.scope = true;
        self
    }

    /// Only reports what the [policy at use](Self::policy_at_use) forbids: the request goes on, audited as
    /// [`Outcome::WouldForbid`](crate::Outcome::WouldForbid) with the reason `policy`. For the time before the switch is
    /// enforced, to learn which clients would break. What the token's own scope forbids is refused all the same, and a
    /// wrong, dead or barred token as ever.
    ///
    /// # Security
    /// With it **the policy at use limits nobody**, unless a handler asks
    /// [`AuthenticatedToken::permits`](crate::AuthenticatedToken::permits), which goes on telling the truth. Building the
    /// layer logs a WARN; without a policy at use it is an error.
    pub fn insecure_report_only_policy(mut self) -> Self {
        self.judging.report_only.policy = true;
        self
    }

    /// Tells clients of their token in two response headers: [`TOKEN_SCOPE`](crate::TOKEN_SCOPE), what it may do now, and
    /// [`TOKEN_EXPIRES_AT`](crate::TOKEN_EXPIRES_AT), when the presented secret stops to work, left out where it never
    /// does. They are on the answers to proved requests only: whatever the inner service answers, in place of what it may
    /// say under these names, and on a 403. Default: off.
    ///
    /// Scripts of another origin see them only where CORS exposes them (`Access-Control-Expose-Headers`).
    ///
    /// # Security
    /// An inner service that declares its answers `Cache-Control: public` has shared caches show one client's headers to
    /// the next.
    pub fn token_headers(mut self) -> Self {
        self.judging.token_headers = true;
        self
    }
}
