//! The desk and its gate against a reference model: random histories of acts and requests, and what each is told.

use std::time::Duration;

use http::Method;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use tower_token_auth::test_util::CheapHasher;
use tower_token_auth::{
    Actor, Clock, IssuePolicy, NewToken, OwnerId, Permissions, PlaintextToken, Scope, SharedPolicy, Timestamp,
    TokenIssuer,
};

use crate::cache_rules::bench::{Bench, status_of};

const HOUR: Duration = Duration::from_secs(3600);

/// Tokens, owners and texts are named by a number, modulo how many there are; times are in hours.
#[derive(Debug, Clone)]
enum Step {
    Policy { switch: bool, most: Option<u32>, hours: Option<u32> },
    Issue { by: usize, of: usize, write: bool, hours: Option<u32> },
    Act { by: usize, token: usize, act: Act },
    Bar { owner: usize, bar: bool },
    Wait { hours: u32 },
    Request { token: usize, text: usize, write: bool },
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Revoke,
    Pause,
    Resume,
    Expire { hours: u32 },
    Narrow,
    Rotate { hours: u32 },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        1 => Just(Act::Revoke),
        1 => Just(Act::Pause),
        2 => Just(Act::Resume),
        1 => (0..6_u32).prop_map(|hours| Act::Expire { hours }),
        1 => Just(Act::Narrow),
        6 => (0..4_u32).prop_map(|hours| Act::Rotate { hours }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    // Few tokens, so that histories are about the same ones.
    let (by, token, write) = (0..3_usize, 0..3_usize, any::<bool>());
    let hours = || proptest::option::of(0..6_u32);
    let most = proptest::option::of(1..4_u32);
    prop_oneof![
        1 => (write, most, hours()).prop_map(|(switch, most, hours)| Step::Policy { switch, most, hours }),
        3 => (by.clone(), 0..2_usize, write, hours())
            .prop_map(|(by, of, write, hours)| Step::Issue { by, of, write, hours }),
        11 => (by, token.clone(), act()).prop_map(|(by, token, act)| Step::Act { by, token, act }),
        1 => (0..2_usize, write).prop_map(|(owner, bar)| Step::Bar { owner, bar }),
        2 => (0..3_u32).prop_map(|hours| Step::Wait { hours }),
        12 => (token, 0..64_usize, write).prop_map(|(token, text, write)| Step::Request { token, text, write }),
    ]
}

const OWNERS: [&str; 2] = ["alice", "bob"];

/// Alice and bob, who may create, and root, who may also do so for others.
fn actor(by: usize) -> Actor {
    let creator = Permissions::none().and_create();
    OWNERS.get(by).map_or_else(|| Actor::user("root", creator.and_on_behalf()), |owner| Actor::user(*owner, creator))
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Active,
    Paused,
    Revoked,
}

/// A token as it should be. Its secrets are numbered in the order in which they were made.
struct Token {
    owner: usize,
    write: bool,
    end: Option<u32>,
    state: State,
    current: usize,
    used: bool,
    retiring: Option<(usize, u32)>,
}

/// What should be true, in hours since the beginning.
#[derive(Default)]
struct Model {
    now: u32,
    switch: bool,
    most: Option<u32>,
    hours: Option<u32>,
    barred: [bool; 2],
    tokens: Vec<Token>,
}

type Told = Result<(), &'static str>;

impl Model {
    fn may_have(&self, by: usize, owner: usize, write: bool, end: Option<u32>) -> Told {
        let free = by == 2;
        if !free && by != owner {
            return Err("on_behalf_not_permitted");
        }
        if write && self.switch && !free {
            return Err("read_only_enforced");
        }
        if end.is_some_and(|end| end <= self.now) {
            return Err("already_expired");
        }
        match self.hours {
            Some(hours) if end.is_none_or(|end| end > self.now + hours) => Err("lifetime_too_long"),
            _ => Ok(()),
        }
    }

    fn has_room(&self, owner: usize, more: u32) -> Told {
        let counts = |token: &&Token| {
            token.owner == owner && token.state != State::Revoked && token.end.is_none_or(|end| end > self.now)
        };
        let live = self.tokens.iter().filter(counts).count() as u32;
        if self.most.is_some_and(|most| live + more > most) { Err("too_many_tokens") } else { Ok(()) }
    }

    /// The token, where the actor may see it and it is not revoked.
    fn alive(&mut self, by: usize, at: usize) -> Result<&mut Token, &'static str> {
        let token = &mut self.tokens[at];
        match token.state {
            _ if by != 2 && by != token.owner => Err("unknown"),
            State::Revoked => Err("revoked"),
            _ => Ok(token),
        }
    }

    fn expire(&mut self, by: usize, at: usize, end: u32) -> Told {
        let now = self.now;
        let token = self.alive(by, at)?;
        match token.end {
            Some(own) if own < end && end > now => Err("unacceptable"),
            own => {
                token.end = Some(own.map_or(end, |own| own.min(end)));
                Ok(())
            }
        }
    }

    fn resume(&mut self, by: usize, at: usize) -> Told {
        let token = self.alive(by, at)?;
        if token.state == State::Paused {
            let (owner, write, end) = (token.owner, token.write, token.end);
            self.may_have(by, owner, write, end)?;
            self.has_room(owner, 0)?;
            self.tokens[at].state = State::Active;
        }
        Ok(())
    }

    fn rotate(&mut self, by: usize, at: usize, hours: u32, secret: usize) -> Told {
        let now = self.now;
        let token = self.alive(by, at)?;
        let (owner, write, end) = (token.owner, token.write, token.end);
        self.may_have(by, owner, write, end)?;
        let token = &mut self.tokens[at];
        token.retiring = match token.retiring.filter(|(_, until)| now < *until) {
            _ if hours == 0 => None,
            Some(_) if token.used => return Err("rotation_underway"),
            Some(underway) => Some(underway),
            None => Some((token.current, end.map_or(now + hours, |end| end.min(now + hours)))),
        };
        (token.current, token.used) = (secret, false);
        Ok(())
    }

    fn request(&mut self, at: usize, secret: usize, write: bool) -> Told {
        let now = self.now;
        let token = &mut self.tokens[at];
        if token.end.is_some_and(|end| end <= now) {
            return Err("expired");
        }
        match token.state {
            State::Active if self.barred[token.owner] => return Err("owner_barred"),
            State::Active => {}
            State::Paused => return Err("paused"),
            State::Revoked => return Err("revoked"),
        }
        let retiring = token.retiring.is_some_and(|(old, until)| old == secret && now < until);
        token.used |= secret == token.current;
        match secret == token.current || retiring {
            false => Err("mismatch"),
            true if write && !token.write => Err("forbidden"),
            true => Ok(()),
        }
    }
}

struct World {
    bench: Bench,
    desk: TokenIssuer,
    start: Timestamp,
    /// All texts of each token.
    texts: Vec<Vec<PlaintextToken>>,
    model: Model,
}

impl World {
    fn new() -> Self {
        let bench = Bench::with(|builder| builder.hasher(CheapHasher::new().inline()));
        let desk = bench.auth.issuer(bench.store.clone(), SharedPolicy::default());
        let start = bench.clock.wall();
        Self { bench, desk, start, texts: Vec::new(), model: Model::default() }
    }

    /// Does it, and answers with what should be told of it; `None` where nothing was done.
    async fn play(&mut self, step: &Step) -> Option<Told> {
        let some = |at: &usize| (!self.texts.is_empty()).then(|| at % self.texts.len());
        let root = Actor::system("root");
        let (desk, model, time) = (&self.desk, &mut self.model, |hours: u32| self.start + HOUR * hours);
        Some(match step {
            Step::Policy { switch, most, hours } => {
                let policy = IssuePolicy::default().force_read_only(*switch);
                let policy = policy.max_live_tokens(most.map(|most| most as usize));
                desk.change_policy(&root, policy.max_lifetime(hours.map(|hours| HOUR * hours))).await.unwrap();
                (model.switch, model.most, model.hours) = (*switch, *most, *hours);
                Ok(())
            }
            Step::Issue { by, of, write, hours } => {
                let end = hours.map(|hours| model.now + hours);
                let new = NewToken::new(OWNERS[*of], "laptop", if *write { Scope::ReadWrite } else { Scope::ReadOnly });
                let new = end.into_iter().fold(new, |new, end| new.expires_at(time(end)));
                let issued = desk.issue(&actor(*by), new).await;
                self.texts.extend(issued.ok().map(|issued| vec![issued.into_plaintext()]));
                let told = model.may_have(*by, *of, *write, end).and_then(|()| model.has_room(*of, 1));
                let (owner, write, state) = (*of, *write, State::Active);
                let token = Token { owner, write, end, state, current: 0, used: false, retiring: None };
                model.tokens.extend(told.is_ok().then_some(token));
                told
            }
            Step::Act { by, token, act } => {
                let at = some(token)?;
                self.act(*by, at, *act).await
            }
            Step::Bar { owner, bar } => {
                let name = OwnerId::new(OWNERS[*owner]).unwrap();
                let done = if *bar { desk.bar_owner(&root, &name).await } else { desk.lift_owner(&root, &name).await };
                done.unwrap();
                model.barred[*owner] = *bar;
                Ok(())
            }
            Step::Wait { hours } => {
                self.bench.clock.advance(HOUR * *hours);
                model.now += hours;
                return None;
            }
            Step::Request { token, text, write } => {
                let at = some(token)?;
                let secret = text % self.texts[at].len();
                let method = if *write { Method::POST } else { Method::GET };
                status_of(&self.bench.auth, method, self.texts[at][secret].expose()).await;
                model.request(at, secret, *write)
            }
        })
    }
}

impl World {
    async fn act(&mut self, by: usize, at: usize, act: Act) -> Told {
        let (desk, model, actor, id) = (&self.desk, &mut self.model, actor(by), self.texts[at][0].id());
        match act {
            Act::Revoke => {
                let _told = desk.revoke(&actor, &id).await;
                let alive = model.alive(by, at).map(|token| token.state = State::Revoked);
                if alive == Err("revoked") { Ok(()) } else { alive }
            }
            Act::Pause => {
                let _told = desk.pause(&actor, &id).await;
                model.alive(by, at).map(|token| token.state = State::Paused)
            }
            Act::Resume => {
                let _told = desk.resume(&actor, &id).await;
                model.resume(by, at)
            }
            Act::Expire { hours } => {
                let end = model.now + hours;
                let _told = desk.expire_at(&actor, &id, self.start + HOUR * end).await;
                model.expire(by, at, end)
            }
            Act::Narrow => {
                let _told = desk.narrow(&actor, &id).await;
                model.alive(by, at).map(|token| token.write = false)
            }
            Act::Rotate { hours } => {
                let rotated = desk.rotate(&actor, &id, HOUR * hours).await;
                let secret = self.texts[at].len();
                self.texts[at].extend(rotated.ok().map(|rotated| rotated.into_plaintext()));
                model.rotate(by, at, hours, secret)
            }
        }
    }
}

/// Plays a history; everything that was told must be what the model foretells, in one event each.
async fn play(steps: &[Step], reached: &mut Vec<&'static str>) -> TestCaseResult {
    let mut world = World::new();
    for (at, step) in steps.iter().enumerate() {
        let foretold: Vec<_> = world.play(step).await.into_iter().map(|told| told.err().unwrap_or("-")).collect();
        let events = world.bench.sink.take();
        let told: Vec<_> = events.iter().map(|event| event.reason.map_or("-", |reason| reason.as_str())).collect();
        prop_assert_eq!(&told, &foretold, "step {}: {:?}", at, step);
        reached.extend(told);
    }
    Ok(())
}

fn played(steps: &[Step], reached: &mut Vec<&'static str>) -> TestCaseResult {
    futures_util::FutureExt::now_or_never(play(steps, reached)).expect("nothing here has to wait")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn desk_and_gate_do_what_the_model_foretells(steps in proptest::collection::vec(step(), 1..30)) {
        played(&steps, &mut Vec::new())?;
    }
}

/// Keeps the generator honest: a model that is never asked much proves nothing.
#[test]
fn histories_reach_every_answer() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let (mut runner, mut reached) = (TestRunner::deterministic(), Vec::new());
    for _ in 0..500 {
        let steps = proptest::collection::vec(step(), 1..40).new_tree(&mut runner).unwrap().current();
        played(&steps, &mut reached).unwrap_or_else(|error| panic!("{error}\n{steps:?}"));
    }
    reached.sort_unstable();
    reached.dedup();
    let expected = [
        "-",
        "already_expired",
        "expired",
        "forbidden",
        "lifetime_too_long",
        "mismatch",
        "on_behalf_not_permitted",
        "owner_barred",
        "paused",
        "read_only_enforced",
        "revoked",
        "rotation_underway",
        "too_many_tokens",
        "unacceptable",
        "unknown",
    ];
    assert_eq!(reached, expected);
}
