CREATE TABLE tta_migrations (
    version INTEGER PRIMARY KEY,
    applied_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
) STRICT;

-- Times are milliseconds since 1970, UTC. A change raises the revision; the last four columns change without.
CREATE TABLE tta_tokens (
    id TEXT NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    on_behalf_right INTEGER NOT NULL CHECK (on_behalf_right IN (0, 1)),
    label TEXT NOT NULL,
    scope TEXT NOT NULL,
    expires_at INTEGER,
    state TEXT NOT NULL,
    revoked_at INTEGER,
    revision INTEGER NOT NULL,
    secret TEXT NOT NULL,
    retiring_secret TEXT,
    retiring_until INTEGER,
    successor_used INTEGER NOT NULL CHECK (successor_used IN (0, 1)),
    attributes TEXT NOT NULL,
    used_at INTEGER,
    used_from TEXT,
    used_agent TEXT,
    wrote_at INTEGER
) STRICT;
CREATE INDEX tta_tokens_by_owner ON tta_tokens (owner, id);

CREATE TABLE tta_barred_owners (
    owner TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- What a feed tells: `token <id> <revision>`, `token <id>`, `owner <owner>` or `all`.
CREATE TABLE tta_changes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    notice TEXT NOT NULL
) STRICT;

CREATE TRIGGER tta_changes_kept AFTER INSERT ON tta_changes BEGIN
    DELETE FROM tta_changes WHERE seq <= NEW.seq - 10000;
END;

CREATE TRIGGER tta_token_inserted AFTER INSERT ON tta_tokens BEGIN
    INSERT INTO tta_changes (notice) VALUES ('token ' || NEW.id || ' ' || NEW.revision);
END;

-- Not of the four columns that tell of the last use.
CREATE TRIGGER tta_token_updated AFTER UPDATE OF
    owner, created_by, created_at, on_behalf_right, label, scope, expires_at, state, revoked_at, revision, secret,
    retiring_secret, retiring_until, successor_used, attributes
ON tta_tokens BEGIN
    INSERT INTO tta_changes (notice)
    VALUES ('token ' || NEW.id || CASE WHEN NEW.revision > OLD.revision THEN ' ' || NEW.revision ELSE '' END);
END;

CREATE TRIGGER tta_token_deleted AFTER DELETE ON tta_tokens WHEN OLD.state <> 'revoked' BEGIN
    INSERT INTO tta_changes (notice) VALUES ('token ' || OLD.id);
END;

CREATE TRIGGER tta_owner_barred AFTER INSERT ON tta_barred_owners BEGIN
    INSERT INTO tta_changes (notice) VALUES ('owner ' || NEW.owner);
END;

CREATE TRIGGER tta_owner_lifted AFTER DELETE ON tta_barred_owners BEGIN
    INSERT INTO tta_changes (notice) VALUES ('owner ' || OLD.owner);
END;

INSERT INTO tta_migrations (version) VALUES (1);
