//! The real desk and the real gate, playing a history.

use std::fmt::Display;
use std::sync::LazyLock;
use std::time::Duration;

use futures_util::FutureExt;
use http::{Method, Request, header::AUTHORIZATION};
use proptest::prelude::*;
use tower::{Layer, ServiceExt, service_fn};
use tower_token_auth::test_util::{CheapHasher, ManualClock, RecordingSink};
use tower_token_auth::{
    Actor, Clock, IssueError, IssuePolicy, IssuedToken, ManageError, MemoryStore, NewToken, OwnerId, Permissions,
    PlaintextToken, Prefix, Reason, Scope, SharedPolicy, TokenAuthLayer, TokenFilter, TokenId, TokenIssuer,
};

use super::model::{Model, Told};
use super::step::{Case, Step, Which, Who};

struct World {
    auth: TokenAuthLayer,
    desk: TokenIssuer,
    policy: SharedPolicy,
    clock: ManualClock,
    sink: RecordingSink,
    tokens: Vec<Texts>,
}

/// A token's texts, oldest first.
struct Texts {
    id: TokenId,
    texts: Vec<String>,
}

/// Plays a history; answers with all that was told in it.
pub(super) fn play(case: &Case) -> Result<Vec<Told>, TestCaseError> {
    let (mut world, mut model) = (World::new(), Model::default());
    let mut all = Vec::new();
    for step in &case.steps {
        let foretold = model.play(*step, world.clock.wall());
        let told = world.play(*step, &model);
        prop_assert_eq!(&told, &foretold, "{:?}: (what happened, what was foretold)", step);
        all.push(told);
    }
    Ok(all)
}

impl World {
    fn new() -> Self {
        let (store, clock, sink) = (MemoryStore::new(), ManualClock::default(), RecordingSink::new());
        let policy = SharedPolicy::new(IssuePolicy::default());
        let auth = TokenAuthLayer::builder(store.clone())
            .hasher(CheapHasher::new().inline())
            .clock(clock.clone())
            .audit(sink.clone())
            .policy_at_use(policy.clone())
            .build()
            .unwrap();
        let desk = auth.issuer(store, policy.clone());
        Self { auth, desk, policy, clock, sink, tokens: Vec::new() }
    }

    fn play(&mut self, step: Step, model: &Model) -> Told {
        match step {
            Step::Advance(span) => {
                self.clock.advance(span);
                String::new()
            }
            Step::Ask { token, which, write } => self.ask(token, which, write, model),
            Step::Issue { who, owner, write, life } => self.issue(who, owner, write, life),
            Step::RevokeAllOf(who, owner) => {
                let filter = TokenFilter::all().owner(owner_of(owner));
                let report = done(self.desk.revoke_matching(&actor(who), filter)).unwrap();
                assert!(report.is_complete());
                format!("revoked {}", report.revoked.len())
            }
            Step::Bar(who, owner) => told(done(self.desk.bar_owner(&actor(who), &owner_of(owner)))),
            Step::Lift(who, owner) => told(done(self.desk.lift_owner(&actor(who), &owner_of(owner)))),
            Step::Switch(who, on) => self.change_policy(who, |policy| policy.force_read_only(on)),
            Step::LimitLife(who, limit) => self.change_policy(who, |policy| policy.max_lifetime(limit)),
            Step::LimitTokens(who, limit) => self.change_policy(who, |policy| policy.max_live_tokens(limit)),
            Step::Prune(who, span) => match done(self.desk.prune(&actor(who), span)) {
                Ok(forgotten) => format!("forgotten {forgotten}"),
                Err(error) => text_of(&error),
            },
            on_a_token => self.manage(on_a_token),
        }
    }

    fn manage(&mut self, step: Step) -> Told {
        let (Step::Pause(who, at)
        | Step::Resume(who, at)
        | Step::ExpireIn(who, at, _)
        | Step::Narrow(who, at)
        | Step::Revoke(who, at)
        | Step::Rotate(who, at, _)) = step
        else {
            unreachable!("all other steps are played above");
        };
        let Some(token) = self.tokens.get_mut(at) else { return "not_found".to_owned() };
        let (actor, id, end) = (actor(who), token.id, self.clock.wall());
        match step {
            Step::Pause(..) => told(done(self.desk.pause(&actor, &id))),
            Step::Resume(..) => told(done(self.desk.resume(&actor, &id))),
            Step::ExpireIn(_, _, span) => told(done(self.desk.expire_at(&actor, &id, end + span))),
            Step::Narrow(..) => told(done(self.desk.narrow(&actor, &id))),
            Step::Rotate(_, _, overlap) => {
                told(done(self.desk.rotate(&actor, &id, overlap)).map(|rotated| token.push(&rotated)))
            }
            _ => told(done(self.desk.revoke(&actor, &id))),
        }
    }

    fn issue(&mut self, who: Who, owner: Who, write: bool, life: Option<Duration>) -> Told {
        let scope = if write { Scope::ReadWrite } else { Scope::ReadOnly };
        let new = NewToken::new(owner_of(owner), "token", scope);
        let new = life.map_or(new.clone(), |life| new.expires_in(life));
        match done(self.desk.issue(&actor(who), new)) {
            Ok(issued) => {
                let mut token = Texts { id: issued.summary().id, texts: Vec::new() };
                token.push(&issued);
                self.tokens.push(token);
                "done".to_owned()
            }
            Err(IssueError::Refused(refusal)) => refusal.as_str().to_owned(),
            Err(error) => error.to_string(),
        }
    }

    fn change_policy(&self, who: Who, change: impl FnOnce(IssuePolicy) -> IssuePolicy) -> Told {
        told(done(self.desk.change_policy(&actor(who), change(self.policy.current()))))
    }

    /// What a client is told, and what the audit trail is.
    fn ask(&mut self, at: usize, which: Which, write: bool, model: &Model) -> Told {
        let (Some(token), Some(known)) = (self.tokens.get(at), model.tokens.get(at)) else { return String::new() };
        let wrong = || forged(&token.texts[0]);
        let text = known.text(which).map_or_else(wrong, |number| token.texts[number].clone());
        let request = Request::builder()
            .method(if write { Method::POST } else { Method::GET })
            .header(AUTHORIZATION, format!("Bearer {text}"))
            .body(())
            .unwrap();
        self.sink.take();
        let inner = service_fn(async |_: Request<()>| Ok::<_, std::convert::Infallible>(http::Response::new(())));
        let status = done(self.auth.layer(inner).oneshot(request)).unwrap().status().as_u16();
        let [event] = self.sink.take().try_into().expect("one decision is one event");
        let reason = event.reason.map_or("-", Reason::as_str);
        if known.is_forgotten() && ["unknown", "expired", "revoked"].contains(&reason) {
            return format!("{status} forgotten");
        }
        let slot = event.secret_slot.map(|slot| format!(" {}", slot.as_str())).unwrap_or_default();
        format!("{status} {} {reason}{slot}", event.outcome)
    }
}

impl Texts {
    fn push(&mut self, issued: &IssuedToken) {
        assert_eq!(issued.plaintext().id(), self.id, "a token keeps its id");
        self.texts.push(issued.plaintext().expose().to_owned());
    }
}

/// The same id with a secret that was never issued.
fn forged(text: &str) -> String {
    static OTHER: LazyLock<PlaintextToken> = LazyLock::new(|| PlaintextToken::generate(&Prefix::default()).unwrap());
    let id = text.split('_').nth(1).unwrap().parse().unwrap();
    crate::cache_rules::bench::forge(&id, &OTHER)
}

fn owner_of(who: Who) -> OwnerId {
    OwnerId::new(format!("{who:?}").to_lowercase()).unwrap()
}

fn actor(who: Who) -> Actor {
    let none = Permissions::none();
    let may = match who {
        Who::System => return Actor::system("model"),
        Who::Alice | Who::Bob => none.and_create(),
        Who::Carol => none,
        Who::Dora => none.and_on_behalf(),
        Who::Root => none.and_create().and_on_behalf().and_administer(),
    };
    Actor::user(owner_of(who), may)
}

fn told<T>(answer: Result<T, ManageError>) -> Told {
    answer.map_or_else(|error| text_of(&error), |_| "done".to_owned())
}

fn text_of(error: &ManageError) -> Told {
    let text: &dyn Display = match error {
        ManageError::NotFound => &"not_found",
        ManageError::Revoked => &"revoked",
        ManageError::ExpiryNotEarlier { .. } => &"not_earlier",
        ManageError::RotationUnderway { .. } => &"rotation_underway",
        ManageError::Refused(refusal) => return refusal.as_str().to_owned(),
        other => other,
    };
    text.to_string()
}

/// What a store in memory and a cheap hasher do, they do at once.
fn done<T>(step: impl Future<Output = T>) -> T {
    step.now_or_never().expect("nothing here has to wait")
}
