//! What a desk and its gate do, in the words of the rules: no revisions, no cache, no hashes.

use std::time::Duration;

use tower_token_auth::Timestamp;

use super::step::{Step, Which, Who};

/// What a step comes to: the desk's answer, or the event and the status of a request.
pub(super) type Told = String;

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) tokens: Vec<Token>,
    barred: Vec<Who>,
    switch: bool,
    max_life: Option<Duration>,
    max_tokens: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Token {
    owner: Who,
    write: bool,
    /// Made with the right to create on behalf of others.
    privileged: bool,
    ends: Option<Timestamp>,
    state: State,
    /// How many texts it has had.
    pub(super) texts: usize,
    retiring: Option<Retiring>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Active,
    Paused,
    Revoked(Timestamp),
    /// Nobody knows it any more.
    Forgotten,
}

#[derive(Debug, Clone, Copy)]
struct Retiring {
    text: usize,
    until: Timestamp,
    successor_used: bool,
}

fn may_create(who: Who) -> bool {
    matches!(who, Who::Alice | Who::Bob | Who::Root | Who::System)
}

fn may_on_behalf(who: Who) -> bool {
    matches!(who, Who::Dora | Who::Root | Who::System)
}

fn may_administer(who: Who) -> bool {
    matches!(who, Who::Root | Who::System)
}

impl Token {
    fn is_live(&self, now: Timestamp) -> bool {
        matches!(self.state, State::Active | State::Paused) && !self.has_ended(now)
    }

    fn has_ended(&self, now: Timestamp) -> bool {
        self.ends.is_some_and(|end| end <= now)
    }

    pub(super) fn is_forgotten(&self) -> bool {
        self.state == State::Forgotten
    }

    /// Which text is presented, as its number; `None` for one that never was.
    pub(super) fn text(&self, which: Which) -> Option<usize> {
        match which {
            Which::Newest => Some(self.texts - 1),
            Which::Previous => self.texts.checked_sub(2),
            Which::First => Some(0),
            Which::Wrong => None,
        }
    }
}

impl Model {
    pub(super) fn play(&mut self, step: Step, now: Timestamp) -> Told {
        match step {
            Step::Issue { who, owner, write, life } => self.issue(who, owner, write, life.map(|life| now + life), now),
            Step::Pause(who, at) => self.pause(who, at),
            Step::Resume(who, at) => self.resume(who, at, now),
            Step::ExpireIn(who, at, span) => self.expire(who, at, now + span),
            Step::Narrow(who, at) => self.narrow(who, at),
            Step::Revoke(who, at) => self.revoke(who, at, now),
            Step::RevokeAllOf(who, owner) => self.revoke_all_of(who, owner, now),
            Step::Rotate(who, at, overlap) => self.rotate(who, at, overlap, now),
            Step::Prune(who, dead_for) => self.prune(who, now - dead_for),
            Step::Ask { token, which, write } => self.ask(token, which, write, now),
            Step::Advance(_) => String::new(),
            Step::Bar(who, _)
            | Step::Lift(who, _)
            | Step::Switch(who, _)
            | Step::LimitLife(who, _)
            | Step::LimitTokens(who, _)
                if !may_administer(who) =>
            {
                "administer_not_permitted".to_owned()
            }
            Step::Bar(_, owner) => done(|| self.barred.push(owner)),
            Step::Lift(_, owner) => done(|| self.barred.retain(|barred| *barred != owner)),
            Step::Switch(_, on) => done(|| self.switch = on),
            Step::LimitLife(_, limit) => done(|| self.max_life = limit),
            Step::LimitTokens(_, limit) => done(|| self.max_tokens = limit),
        }
    }

    /// Whether `who` may make such a token today, apart from how many there are.
    fn judge(&self, who: Who, owner: Who, write: bool, ends: Option<Timestamp>, now: Timestamp) -> Result<(), Told> {
        let refuse = |why: &str| Err(why.to_owned());
        if who == owner && !may_create(who) {
            return refuse("create_not_permitted");
        }
        if who != owner && !may_on_behalf(who) {
            return refuse("on_behalf_not_permitted");
        }
        if write && self.switch && !may_on_behalf(who) {
            return refuse("read_only_enforced");
        }
        if ends.is_some_and(|end| end <= now) {
            return refuse("already_expired");
        }
        match self.max_life {
            Some(limit) if ends.is_none_or(|end| end > now + limit) => refuse("lifetime_too_long"),
            _ => Ok(()),
        }
    }

    fn live_of(&self, owner: Who, now: Timestamp) -> usize {
        self.tokens.iter().filter(|token| token.owner == owner && token.is_live(now)).count()
    }

    fn issue(&mut self, who: Who, owner: Who, write: bool, ends: Option<Timestamp>, now: Timestamp) -> Told {
        if let Err(refused) = self.judge(who, owner, write, ends, now) {
            return refused;
        }
        if self.max_tokens.is_some_and(|max| self.live_of(owner, now) >= max) {
            return "too_many_tokens".to_owned();
        }
        let privileged = may_on_behalf(who);
        self.tokens.push(Token { owner, write, privileged, ends, state: State::Active, texts: 1, retiring: None });
        "done".to_owned()
    }

    /// A token that is there and that `who` may see.
    fn visible(&mut self, who: Who, at: usize) -> Result<&mut Token, Told> {
        let seen = |token: &&mut Token| token.state != State::Forgotten && (token.owner == who || may_on_behalf(who));
        self.tokens.get_mut(at).filter(seen).ok_or_else(|| "not_found".to_owned())
    }

    /// The same, and it has not been revoked.
    fn usable(&mut self, who: Who, at: usize) -> Result<&mut Token, Told> {
        match self.visible(who, at)? {
            Token { state: State::Revoked(_), .. } => Err("revoked".to_owned()),
            token => Ok(token),
        }
    }

    fn pause(&mut self, who: Who, at: usize) -> Told {
        told(self.usable(who, at).map(|token| token.state = State::Paused))
    }

    fn resume(&mut self, who: Who, at: usize, now: Timestamp) -> Told {
        let (owner, write, ends) = match self.usable(who, at) {
            Ok(token) if token.state == State::Active => return "done".to_owned(),
            Ok(token) => (token.owner, token.write, token.ends),
            Err(refused) => return refused,
        };
        if let Err(refused) = self.judge(who, owner, write, ends, now) {
            return refused;
        }
        // It is one of those that are counted.
        if self.max_tokens.is_some_and(|max| self.live_of(owner, now) > max) {
            return "too_many_tokens".to_owned();
        }
        told(self.usable(who, at).map(|token| token.state = State::Active))
    }

    fn expire(&mut self, who: Who, at: usize, end: Timestamp) -> Told {
        let expired = self.usable(who, at).and_then(|token| match token.ends {
            Some(own) if own < end => Err("not_earlier".to_owned()),
            _ => {
                token.ends = Some(end);
                Ok(())
            }
        });
        told(expired)
    }

    fn narrow(&mut self, who: Who, at: usize) -> Told {
        told(self.usable(who, at).map(|token| token.write = false))
    }

    fn revoke(&mut self, who: Who, at: usize, now: Timestamp) -> Told {
        let revoked = self.visible(who, at).map(|token| {
            if !matches!(token.state, State::Revoked(_)) {
                token.state = State::Revoked(now);
            }
        });
        told(revoked)
    }

    fn revoke_all_of(&mut self, who: Who, owner: Who, now: Timestamp) -> Told {
        let alive = |at: &usize| matches!(self.tokens[*at].state, State::Active | State::Paused);
        let theirs: Vec<_> =
            (0..self.tokens.len()).filter(|at| self.tokens[*at].owner == owner).filter(alive).collect();
        let revoked = theirs.into_iter().filter(|at| self.revoke(who, *at, now) == "done").count();
        format!("revoked {revoked}")
    }

    fn rotate(&mut self, who: Who, at: usize, overlap: Duration, now: Timestamp) -> Told {
        let (owner, write, ends) = match self.usable(who, at) {
            Ok(token) => (token.owner, token.write, token.ends),
            Err(refused) => return refused,
        };
        if let Err(refused) = self.judge(who, owner, write, ends, now) {
            return refused;
        }
        told(self.usable(who, at).and_then(|token| {
            let underway = token.retiring.filter(|retiring| now < retiring.until);
            let until = ends.map_or(now + overlap, |end| end.min(now + overlap));
            token.retiring = match underway {
                _ if overlap.is_zero() => None,
                Some(retiring) if retiring.successor_used => return Err("rotation_underway".to_owned()),
                Some(retiring) => Some(retiring),
                None => Some(Retiring { text: token.texts - 1, until, successor_used: false }),
            };
            token.texts += 1;
            Ok(())
        }))
    }

    fn prune(&mut self, who: Who, dead_before: Timestamp) -> Told {
        if !may_administer(who) {
            return "administer_not_permitted".to_owned();
        }
        let mut forgotten = 0;
        for token in self.tokens.iter_mut().filter(|token| token.state != State::Forgotten) {
            let ended = token.ends.is_some_and(|end| end < dead_before);
            if ended || matches!(token.state, State::Revoked(at) if at < dead_before) {
                token.state = State::Forgotten;
                forgotten += 1;
            }
        }
        format!("forgotten {forgotten}")
    }

    /// Dead before wrong, wrong before forbidden.
    fn ask(&mut self, at: usize, which: Which, write: bool, now: Timestamp) -> Told {
        let (switch, barred) = (self.switch, self.barred.clone());
        let Some(token) = self.tokens.get_mut(at) else { return String::new() };
        let dead = match token.state {
            // A gate that has seen it dead may remember why, as long as it remembers anything.
            State::Forgotten => return "401 forgotten".to_owned(),
            _ if token.has_ended(now) => Some("expired"),
            State::Revoked(_) => Some("revoked"),
            State::Paused => Some("paused"),
            State::Active if barred.contains(&token.owner) => Some("owner_barred"),
            State::Active => None,
        };
        if let Some(reason) = dead {
            return format!("401 refused {reason}");
        }
        let text = token.text(which);
        let slot = match text {
            Some(text) if text + 1 == token.texts => "current",
            Some(text) if token.retiring.is_some_and(|old| old.text == text && now < old.until) => "retiring",
            _ => return "401 refused mismatch".to_owned(),
        };
        if let Some(retiring) = token.retiring.as_mut().filter(|_| slot == "current") {
            retiring.successor_used = true;
        }
        if write && !token.write {
            return format!("403 refused forbidden {slot}");
        }
        if write && switch && !token.privileged {
            return format!("403 refused policy {slot}");
        }
        format!("200 allowed - {slot}")
    }
}

fn done(act: impl FnOnce()) -> Told {
    act();
    "done".to_owned()
}

fn told(answer: Result<(), Told>) -> Told {
    answer.map_or_else(|refused| refused, |()| "done".to_owned())
}
