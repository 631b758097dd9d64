CREATE TABLE public.tta_migrations (
    version bigint PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- Times are milliseconds since 1970, UTC. A change raises the revision; the last four columns change without.
CREATE TABLE public.tta_tokens (
    id text COLLATE "C" PRIMARY KEY,
    owner text COLLATE "C" NOT NULL,
    created_by text NOT NULL,
    created_at bigint NOT NULL,
    on_behalf_right boolean NOT NULL,
    label text NOT NULL,
    scope text NOT NULL,
    expires_at bigint,
    state text NOT NULL,
    revoked_at bigint,
    revision bigint NOT NULL,
    secret text NOT NULL,
    retiring_secret text,
    retiring_until bigint,
    successor_used boolean NOT NULL,
    attributes text NOT NULL,
    used_at bigint,
    used_from text,
    used_agent text,
    wrote_at bigint
) WITH (fillfactor = 90);
CREATE INDEX tta_tokens_by_owner ON public.tta_tokens (owner, id);

CREATE TABLE public.tta_barred_owners (
    owner text COLLATE "C" PRIMARY KEY
);

-- What a feed tells, on the channel `public.tta_changes`: `token <id> <revision>`, `token <id>`, `owner <owner>` or
-- `all`.
CREATE FUNCTION public.tta_token_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    notice text;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        notice := 'all';
    ELSIF TG_OP = 'INSERT' THEN
        notice := 'token ' || NEW.id || ' ' || NEW.revision;
    ELSIF TG_OP = 'UPDATE' AND NEW.revision > OLD.revision THEN
        notice := 'token ' || NEW.id || ' ' || NEW.revision;
    ELSE
        notice := 'token ' || OLD.id;
    END IF;
    PERFORM pg_notify(TG_TABLE_SCHEMA || '.tta_changes', notice);
    RETURN NULL;
END $$;

CREATE FUNCTION public.tta_bar_changed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    notice text;
BEGIN
    IF TG_OP = 'INSERT' THEN
        notice := 'owner ' || NEW.owner;
    ELSIF TG_OP = 'DELETE' THEN
        notice := 'owner ' || OLD.owner;
    ELSE
        notice := 'all';
    END IF;
    PERFORM pg_notify(TG_TABLE_SCHEMA || '.tta_changes', notice);
    RETURN NULL;
END $$;

-- Not of the four columns that tell of the last use.
CREATE TRIGGER tta_token_changed AFTER INSERT OR UPDATE OF
    owner, created_by, created_at, on_behalf_right, label, scope, expires_at, state, revoked_at, revision, secret,
    retiring_secret, retiring_until, successor_used, attributes
ON public.tta_tokens FOR EACH ROW EXECUTE FUNCTION public.tta_token_changed();

CREATE TRIGGER tta_token_deleted AFTER DELETE ON public.tta_tokens
FOR EACH ROW WHEN (OLD.state <> 'revoked') EXECUTE FUNCTION public.tta_token_changed();

CREATE TRIGGER tta_tokens_truncated AFTER TRUNCATE ON public.tta_tokens
FOR EACH STATEMENT EXECUTE FUNCTION public.tta_token_changed();

CREATE TRIGGER tta_bar_changed AFTER INSERT OR UPDATE OR DELETE ON public.tta_barred_owners
FOR EACH ROW EXECUTE FUNCTION public.tta_bar_changed();

CREATE TRIGGER tta_bars_truncated AFTER TRUNCATE ON public.tta_barred_owners
FOR EACH STATEMENT EXECUTE FUNCTION public.tta_bar_changed();

INSERT INTO public.tta_migrations (version) VALUES (1);
