//! The audit history in a database: the same behaviour in each of them, and in memory where that can be.

mod counting;
mod failing;
#[cfg(feature = "postgres")]
mod outage;
mod reading;
mod stage;

use tokio::task::JoinHandle;
use tower_token_auth::{
    ApplicationFilter, ApplicationPage, AuditEvent, AuditHistory, AuditSink, HistoryCursor, HistoryError,
    HistoryFilter, HistoryPage, SqlHistory, SqlHistoryBuilder, TokenApplications, TokenId,
};

#[cfg(feature = "sqlite")]
use crate::sqlite::{self, Folder};

/// An empty database.
pub(crate) enum Database {
    #[cfg(feature = "sqlite")]
    Sqlite(Folder),
    #[cfg(feature = "postgres")]
    Postgres(String),
}

impl Database {
    /// One of each kind that is there.
    async fn each() -> Vec<Self> {
        let all = [
            #[cfg(feature = "sqlite")]
            Some(Self::Sqlite(Folder::new())),
            #[cfg(feature = "postgres")]
            crate::postgres::open().await.map(|(_, prefix)| Self::Postgres(prefix)),
        ];
        all.into_iter().flatten().collect()
    }

    /// As another process would open it. Events of a clock that is turned by hand are old by the machine's.
    async fn builder(&self) -> SqlHistoryBuilder {
        remembering(self.forgetful().await)
    }

    async fn forgetful(&self) -> SqlHistoryBuilder {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(folder) => sqlite::open(&folder.database()).await.history_builder(),
            #[cfg(feature = "postgres")]
            Self::Postgres(prefix) => crate::postgres::with_prefix(prefix).await.unwrap().history_builder(),
        }
    }

    async fn process(&self) -> Process {
        Process::start(self.builder().await)
    }

    /// SQL with the names of default.
    async fn by_hand(&self, sql: &str) {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(folder) => {
                sqlite::by_hand(&sqlite::pool(&folder.database()).await, sql).await;
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(prefix) => {
                let pool = crate::postgres::pool().await.unwrap();
                crate::postgres::by_hand(&pool, &sql.replace("tta_", prefix)).await;
            }
        }
    }
}

fn remembering(builder: SqlHistoryBuilder) -> SqlHistoryBuilder {
    builder.keep_noise(None).keep_requests(None).keep_acts(None)
}

/// A handle and its writer, as a process has them.
struct Process {
    history: SqlHistory,
    writer: JoinHandle<()>,
}

impl Process {
    fn start(builder: SqlHistoryBuilder) -> Self {
        let (history, writer) = builder.build().unwrap();
        Self { history, writer: tokio::spawn(writer) }
    }

    async fn record(&self, events: &[AuditEvent<'static>]) {
        for event in events {
            self.history.record(event).unwrap();
        }
        self.history.flush().await;
    }

    /// How many events there are, by those that are read.
    async fn len(&self) -> usize {
        self.history.events(&HistoryFilter::all().page_size(100_000), None).await.unwrap().events.len()
    }
}

/// What can be asked of each history.
trait Asked {
    async fn keep(&self, events: &[AuditEvent<'static>]);
    async fn page(&self, filter: &HistoryFilter, cursor: Option<&HistoryCursor>) -> Result<HistoryPage, HistoryError>;
    async fn seen(&self, token: &TokenId) -> Option<TokenApplications>;
    async fn seen_page(
        &self,
        filter: &ApplicationFilter,
        cursor: Option<&HistoryCursor>,
    ) -> Result<ApplicationPage, HistoryError>;
}

impl Asked for AuditHistory {
    async fn keep(&self, events: &[AuditEvent<'static>]) {
        events.iter().for_each(|event| self.record(event).unwrap());
    }

    async fn page(&self, filter: &HistoryFilter, cursor: Option<&HistoryCursor>) -> Result<HistoryPage, HistoryError> {
        self.events(filter, cursor)
    }

    async fn seen(&self, token: &TokenId) -> Option<TokenApplications> {
        self.applications_of(token)
    }

    async fn seen_page(
        &self,
        filter: &ApplicationFilter,
        cursor: Option<&HistoryCursor>,
    ) -> Result<ApplicationPage, HistoryError> {
        self.applications(filter, cursor)
    }
}

impl Asked for Process {
    async fn keep(&self, events: &[AuditEvent<'static>]) {
        self.record(events).await;
    }

    async fn page(&self, filter: &HistoryFilter, cursor: Option<&HistoryCursor>) -> Result<HistoryPage, HistoryError> {
        self.history.events(filter, cursor).await
    }

    async fn seen(&self, token: &TokenId) -> Option<TokenApplications> {
        self.history.applications_of(token).await.unwrap()
    }

    async fn seen_page(
        &self,
        filter: &ApplicationFilter,
        cursor: Option<&HistoryCursor>,
    ) -> Result<ApplicationPage, HistoryError> {
        self.history.applications(filter, cursor).await
    }
}

/// All that an event shows, and the token it is about.
fn told(event: &AuditEvent<'_>) -> String {
    let token = event.proved().map(|token| (token.issued_scope(), token.expires_at(), token.works_until()));
    format!(
        "{:?} {:?} {:?}",
        (event.at(), event.first_at(), event.count(), event.is_anonymous(), event.action(), event.outcome()),
        (
            (event.reason(), event.detail(), event.token_id(), event.claimed_id(), event.owner(), token),
            (event.label(), event.scope(), event.secret_slot(), event.access(), event.method(), event.path()),
            (event.route(), event.user_agent(), event.client_address(), event.request_id(), event.actor()),
        ),
        (event.before(), event.after()),
    )
}

fn all_told(events: &[AuditEvent<'static>]) -> Vec<String> {
    events.iter().map(told).collect()
}
