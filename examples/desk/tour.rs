//! Who walks: acts at the desk, sends requests, and writes down what came of it.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use reqwest::header::USER_AGENT;
use reqwest::{Client, Method, Response};
use tower_token_auth::{
    AuditEvent, AuditHistory, HistoryFilter, IssueRefusal, IssuedToken, NewToken, Outcome, PlaintextToken, Scope,
    TokenId, TokenIssuer,
};

use super::app::App;
use super::table::{Answer, Table};
use super::{DAY, Fallible, Person};

pub(crate) struct Tour {
    pub(crate) app: App,
    pub(crate) desk: TokenIssuer,
    pub(crate) table: Table,
    client: Client,
    url: String,
    /// What the programs hold, by the name they have for it.
    tokens: BTreeMap<String, PlaintextToken>,
}

/// A token that somebody asks for.
#[derive(Clone, Copy)]
pub(crate) struct Wish {
    label: &'static str,
    scope: Scope,
    owner: Option<&'static str>,
    days: Option<u32>,
}

impl Wish {
    pub(crate) const fn new(label: &'static str, scope: Scope) -> Self {
        Self { label, scope, owner: None, days: None }
    }

    pub(crate) const fn of(self, owner: &'static str) -> Self {
        Self { owner: Some(owner), ..self }
    }

    pub(crate) const fn days(self, days: u32) -> Self {
        Self { days: Some(days), ..self }
    }

    fn new_token(self, who: &Person) -> NewToken {
        let new = NewToken::new(self.owner.unwrap_or(who.name), self.label, self.scope);
        match self.days {
            Some(days) => new.expires_in(days * DAY),
            None => new,
        }
    }

    fn step(self, who: &Person) -> String {
        let owner = self.owner.map_or(String::new(), |owner| format!(" of {owner}"));
        let days = self.days.map_or(String::new(), |days| format!(", {days} days"));
        format!("{} asks for \"{}\"{owner} ({}{days})", who.name, self.label, self.scope)
    }
}

/// A request of a program: which calls itself as its token is called, unless said.
#[derive(Clone)]
pub(crate) struct Call {
    method: Method,
    path: &'static str,
    token: &'static str,
    agent: Option<&'static str>,
}

impl Call {
    pub(crate) fn get(token: &'static str) -> Self {
        Self { method: Method::GET, path: "/issues", token, agent: None }
    }

    pub(crate) fn post(token: &'static str) -> Self {
        Self { method: Method::POST, ..Self::get(token) }
    }

    pub(crate) fn at(self, path: &'static str) -> Self {
        Self { path, ..self }
    }

    pub(crate) fn by(self, agent: &'static str) -> Self {
        Self { agent: Some(agent), ..self }
    }

    fn agent(&self) -> String {
        self.agent.map_or_else(|| format!("{}/1.0", self.token.replace(' ', "-")), str::to_owned)
    }

    fn step(&self) -> String {
        let by = self.agent.map_or(String::new(), |agent| format!(", by {agent}"));
        format!("{} {} with \"{}\"{by}", self.method, self.path, self.token)
    }
}

impl Tour {
    pub(crate) fn new(app: App, address: SocketAddr) -> Fallible<Self> {
        // No proxy: an `HTTP_PROXY` of the environment has no business between this process and itself.
        let client = Client::builder().no_proxy().build()?;
        let (desk, url) = (app.desk.clone(), format!("http://{address}"));
        Ok(Self { app, desk, table: Table::default(), client, url, tokens: BTreeMap::new() })
    }

    /// Somebody asks the desk for a token; where it is issued, a program gets it.
    pub(crate) async fn asks(&mut self, who: &Person, wish: Wish, expected: impl Into<Answer>) -> Fallible<()> {
        let issued = self.desk.issue(&who.actor, wish.new_token(who)).await;
        self.did(wish.step(who), expected, "issued", &issued)?;
        if let Ok(issued) = issued {
            self.keep(wish.label, issued);
        }
        Ok(())
    }

    /// Writes down what came of an act at the desk: `done`, or why not.
    pub(crate) fn did<T, E: Error>(
        &mut self,
        step: impl Display,
        expected: impl Into<Answer>,
        done: &str,
        answer: &Result<T, E>,
    ) -> Fallible<()> {
        let happened = match answer {
            Ok(_) => done.into(),
            Err(error) => self.refusal(error)?,
        };
        self.table.step(step, expected, happened);
        Ok(())
    }

    /// The words are the error's, the code is the audit trail's: it has an event for each act, also for one refused.
    fn refusal(&self, error: &impl Error) -> Fallible<Answer> {
        let event = newest(&self.app.history)?;
        let code = event.reason().map_or("unexplained", |reason| reason.as_str());
        let rule = error.source().and_then(|source| source.downcast_ref::<IssueRefusal>());
        Ok(rule.map_or_else(|| Answer::refused(code, error), |rule| Answer::refused(code, rule)))
    }

    /// A request: what its client got, and what the audit trail says of it.
    pub(crate) async fn call(&mut self, call: Call, expected: impl Into<Answer>) -> Fallible<Response> {
        let response = self.send(&call).await?;
        let event = newest(&self.app.history)?;
        let audited = match (event.outcome(), event.reason()) {
            (Outcome::Refused, Some(reason)) => reason.to_string(),
            (outcome, Some(reason)) => format!("{outcome}: {reason}"),
            (outcome, None) => outcome.to_string(),
        };
        self.table.step(call.step(), expected, format!("{} {audited}", response.status().as_u16()));
        Ok(response)
    }

    async fn send(&self, call: &Call) -> Fallible<Response> {
        let token = self.tokens.get(call.token).ok_or_else(|| format!("nobody holds a token \"{}\"", call.token))?;
        let request = self.client.request(call.method.clone(), format!("{}{}", self.url, call.path));
        Ok(request.header(USER_AGENT, call.agent()).bearer_auth(token.expose()).send().await?)
    }

    /// A program gets a token, under the name it has for it.
    pub(crate) fn keep(&mut self, name: &str, issued: IssuedToken) {
        self.tokens.insert(name.to_owned(), issued.into_plaintext());
    }

    pub(crate) fn id(&self, name: &str) -> Fallible<TokenId> {
        Ok(self.tokens.get(name).ok_or_else(|| format!("nobody holds a token \"{name}\""))?.id())
    }

    /// Whether a text tells any of the secrets that were handed out.
    pub(crate) fn betrays(&self, text: &str) -> bool {
        // `<prefix>_<id>_<secret><checksum>`, of which the secret is 32 characters.
        let secret = |token: &PlaintextToken| token.expose().rsplit('_').next()?.get(..32).map(str::to_owned);
        self.tokens.values().filter_map(secret).any(|secret| text.contains(&secret))
    }

    pub(crate) fn passes(&self, time: Duration) {
        self.app.clock.advance(time);
    }
}

fn newest(history: &AuditHistory) -> Fallible<AuditEvent<'static>> {
    let page = history.events(&HistoryFilter::all().page_size(1), None)?;
    Ok(page.events.into_iter().next().ok_or("nothing has happened yet")?)
}
