-- What happened. `token` is the token that was proved, handled at the desk or only claimed, as `subject` says; `refusal`
-- is not NULL where a rule of the desk said no: what it would allow.
CREATE TABLE tta_events (
    seq INTEGER PRIMARY KEY,
    version INTEGER NOT NULL,
    at INTEGER NOT NULL,
    first_at INTEGER,
    count INTEGER,
    action TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT,
    refusal TEXT,
    subject TEXT NOT NULL,
    anonymous INTEGER NOT NULL CHECK (anonymous IN (0, 1)),
    token TEXT,
    owner TEXT,
    label TEXT,
    scope TEXT,
    issued_scope TEXT,
    expires_at INTEGER,
    retires_at INTEGER,
    secret TEXT,
    access TEXT,
    method TEXT,
    path TEXT,
    route TEXT,
    user_agent TEXT,
    client_address TEXT,
    request_id TEXT,
    actor TEXT,
    edit_before TEXT,
    edit_after TEXT
) STRICT;
CREATE INDEX tta_events_by_time ON tta_events (at, seq);
CREATE INDEX tta_events_by_token ON tta_events (token, at, seq) WHERE token IS NOT NULL;
CREATE INDEX tta_events_by_owner ON tta_events (owner, at, seq) WHERE owner IS NOT NULL;
CREATE INDEX tta_events_by_reason ON tta_events (reason, at, seq) WHERE reason IS NOT NULL;
CREATE INDEX tta_events_by_outcome ON tta_events (outcome, at, seq) WHERE outcome <> 'allowed';
CREATE INDEX tta_events_by_action ON tta_events (action, at, seq) WHERE action <> 'authenticate';
CREATE INDEX tta_events_of_nobody ON tta_events (at) WHERE anonymous;

-- Which tokens were proved, and how often they were only claimed since.
CREATE TABLE tta_seen_tokens (
    token TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    label TEXT NOT NULL,
    last_at INTEGER NOT NULL,
    unproved INTEGER NOT NULL
) STRICT;
CREATE INDEX tta_seen_tokens_by_owner ON tta_seen_tokens (owner, token);

-- By which applications: 16 are told apart, and place 16 is of all others. One that did not say what it is has no agent.
CREATE TABLE tta_seen_applications (
    token TEXT NOT NULL,
    place INTEGER NOT NULL CHECK (place BETWEEN 0 AND 16),
    agent TEXT,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    allowed INTEGER NOT NULL,
    forbidden INTEGER NOT NULL,
    would_forbid INTEGER NOT NULL,
    PRIMARY KEY (token, place)
) STRICT, WITHOUT ROWID;

-- The last batch of each process, so that none is written twice.
CREATE TABLE tta_history_writers (
    writer TEXT NOT NULL PRIMARY KEY,
    batch INTEGER NOT NULL,
    written_at INTEGER NOT NULL
) STRICT;

INSERT INTO tta_migrations (version) VALUES (2);
