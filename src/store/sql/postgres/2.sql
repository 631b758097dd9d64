-- What happened. `token` is the token that was proved, handled at the desk or only claimed, as `subject` says; `refusal`
-- is not NULL where a rule of the desk said no: what it would allow.
CREATE TABLE public.tta_events (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version bigint NOT NULL,
    at bigint NOT NULL,
    first_at bigint,
    count bigint,
    action text NOT NULL,
    outcome text NOT NULL,
    reason text,
    refusal text,
    subject text NOT NULL,
    anonymous boolean NOT NULL,
    token text COLLATE "C",
    owner text COLLATE "C",
    label text,
    scope text,
    issued_scope text,
    expires_at bigint,
    retires_at bigint,
    secret text,
    access text,
    method text,
    path text,
    route text,
    user_agent text,
    client_address text,
    request_id text,
    actor text,
    edit_before text,
    edit_after text
);
CREATE INDEX tta_events_by_time ON public.tta_events (at, seq);
CREATE INDEX tta_events_by_token ON public.tta_events (token, at, seq) WHERE token IS NOT NULL;
CREATE INDEX tta_events_by_owner ON public.tta_events (owner, at, seq) WHERE owner IS NOT NULL;
CREATE INDEX tta_events_by_reason ON public.tta_events (reason, at, seq) WHERE reason IS NOT NULL;
CREATE INDEX tta_events_by_outcome ON public.tta_events (outcome, at, seq) WHERE outcome <> 'allowed';
CREATE INDEX tta_events_by_action ON public.tta_events (action, at, seq) WHERE action <> 'authenticate';
CREATE INDEX tta_events_of_nobody ON public.tta_events (at) WHERE anonymous;

-- Which tokens were proved, and how often they were only claimed since.
CREATE TABLE public.tta_seen_tokens (
    token text COLLATE "C" PRIMARY KEY,
    owner text COLLATE "C" NOT NULL,
    label text NOT NULL,
    last_at bigint NOT NULL,
    unproved bigint NOT NULL
);
CREATE INDEX tta_seen_tokens_by_owner ON public.tta_seen_tokens (owner, token);

-- By which applications: 16 are told apart, and place 16 is of all others. One that did not say what it is has no agent.
CREATE TABLE public.tta_seen_applications (
    token text COLLATE "C" NOT NULL,
    place bigint NOT NULL CHECK (place BETWEEN 0 AND 16),
    agent text,
    first_at bigint NOT NULL,
    last_at bigint NOT NULL,
    allowed bigint NOT NULL,
    forbidden bigint NOT NULL,
    would_forbid bigint NOT NULL,
    PRIMARY KEY (token, place)
);

-- The last batch of each process, so that none is written twice.
CREATE TABLE public.tta_history_writers (
    writer text PRIMARY KEY,
    batch bigint NOT NULL,
    written_at bigint NOT NULL
);

INSERT INTO public.tta_migrations (version) VALUES (2);
