//! The history, asked the way an administrator asks: what happened, to which token, by which program.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use http::header::{AUTHORIZATION, USER_AGENT};
use http::{Method, Request, Response};
use tower::{Layer, ServiceExt, service_fn};
use tower_token_auth::{
    Action, Actor, AuditEvent, AuditHistory, AuditSink, Clock, HistoryCursor, HistoryFilter, IssuePolicy, NewToken,
    Outcome, OwnerId, Reason, Scope, TokenIssuer, UserAgent,
};

use crate::cache_rules::bench::{Bench, forge};

fn bench() -> (Bench, AuditHistory, TokenIssuer) {
    let history = AuditHistory::new();
    let bench = Bench::with(|builder| builder.audit(history.clone()));
    let desk = bench.auth.issuer(bench.store.clone(), IssuePolicy::default());
    (bench, history, desk)
}

/// One request, a second after the last.
async fn send(bench: &Bench, method: Method, token: &str, agent: &str) -> u16 {
    bench.clock.advance(Duration::from_secs(1));
    let inner = service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
    let request = Request::builder().method(method).header(AUTHORIZATION, format!("Bearer {token}"));
    let request = request.header(USER_AGENT, agent).body(Body::empty()).unwrap();
    bench.auth.layer(inner).oneshot(request).await.unwrap().status().as_u16()
}

fn told(event: &AuditEvent<'_>) -> (Action, Outcome, Option<Reason>) {
    (event.action(), event.outcome(), event.reason())
}

#[tokio::test]
async fn the_life_of_a_token_can_be_read_back_newest_first() {
    let (bench, history, desk) = bench();
    let admin = Actor::system("console");
    let issued = desk.issue(&admin, NewToken::new("alice", "export", Scope::ReadOnly)).await.unwrap();
    let (id, text) = (issued.plaintext().id(), issued.plaintext().expose().to_owned());
    let other = bench.token(Scope::ReadWrite).await;
    assert_eq!(send(&bench, Method::GET, &text, "export/1").await, 200);
    assert_eq!(send(&bench, Method::GET, other.expose(), "other/1").await, 200);
    assert_eq!(send(&bench, Method::POST, &text, "export/1").await, 403);
    assert_eq!(send(&bench, Method::GET, &forge(&id, &bench.stranger()), "evil/1").await, 401);
    desk.revoke(&admin, &id).await.unwrap();
    assert_eq!(send(&bench, Method::GET, &text, "export/1").await, 401);

    let page = history.events(&HistoryFilter::all().token(id), None).unwrap();
    assert!(page.next.is_none());
    assert_eq!(
        page.events.iter().map(told).collect::<Vec<_>>(),
        [
            (Action::Authenticate, Outcome::Refused, Some(Reason::Revoked)),
            (Action::Revoke, Outcome::Allowed, None),
            (Action::Authenticate, Outcome::Refused, Some(Reason::Mismatch)),
            (Action::Authenticate, Outcome::Refused, Some(Reason::Forbidden)),
            (Action::Authenticate, Outcome::Allowed, None),
            (Action::Issue, Outcome::Allowed, None),
        ]
    );
    let actor = page.events.last().unwrap().actor().unwrap();
    assert_eq!(actor.to_string(), "system:console");

    let (now, second) = (bench.clock.wall(), Duration::from_secs(1));
    let forbidden = page.events[3].at();
    let between = history.events(&HistoryFilter::all().from(forbidden).to(now), None).unwrap().events;
    assert_eq!(between.len(), 3, "forbidden, mistaken and revoked, but not what was refused now");
    let none = history.events(&HistoryFilter::all().from(now + second), None).unwrap();
    assert!(none.events.is_empty());
}

#[tokio::test]
async fn a_cursor_survives_the_way_through_a_client() {
    let (bench, history, _) = bench();
    let token = bench.token(Scope::ReadOnly).await;
    for number in 0..10 {
        assert_eq!(send(&bench, Method::GET, token.expose(), &number.to_string()).await, 200);
    }
    let filter = HistoryFilter::all().owner(OwnerId::new("alice").unwrap()).page_size(4);
    let (mut agents, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let at = cursor.map(HistoryCursor::new);
        let page = history.events(&filter, at.as_ref()).unwrap();
        agents.extend(page.events.iter().map(|event| event.user_agent().unwrap().parse::<u32>().unwrap()));
        cursor = page.next.map(|next| next.as_str().to_owned());
        if cursor.is_none() {
            break;
        }
        assert_eq!(send(&bench, Method::GET, token.expose(), "100").await, 200, "meanwhile");
    }
    assert_eq!(agents, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
}

#[tokio::test]
async fn applications_are_seen_by_what_they_proved_and_guesses_only_by_their_number() {
    let (bench, history, _) = bench();
    let token = bench.token(Scope::ReadOnly).await;
    assert_eq!(send(&bench, Method::GET, &forge(&token.id(), &bench.stranger()), "evil/0").await, 401);
    assert_eq!(history.applications(&token.id()), None, "not proved by anybody yet");
    for (method, agent, status) in
        [(Method::GET, "export/1", 200), (Method::POST, "export/1", 403), (Method::GET, "phone/7", 200)]
    {
        assert_eq!(send(&bench, method, token.expose(), agent).await, status);
    }
    for number in 0..50 {
        let forged = forge(&token.id(), &bench.stranger());
        assert_eq!(send(&bench, Method::GET, &forged, &format!("evil/{number}")).await, 401);
    }
    let seen = history.applications(&token.id()).unwrap();
    let of = |name: &str| {
        let named = |agent: &UserAgent| matches!(agent, UserAgent::Named(text) if text == name);
        seen.applications.iter().find(|application| named(&application.user_agent)).unwrap()
    };
    assert_eq!((seen.applications.len(), seen.unproved), (2, 50));
    assert_eq!((of("export/1").allowed, of("export/1").forbidden), (1, 1));
    assert_eq!(of("export/1").last_at.since(of("export/1").first_at), Duration::from_secs(1));
    assert_eq!((of("phone/7").allowed, of("phone/7").forbidden), (1, 0));
}

#[test]
fn a_history_cannot_fail_and_so_cannot_be_required() {
    assert!(!AuditHistory::new().can_fail());
}
