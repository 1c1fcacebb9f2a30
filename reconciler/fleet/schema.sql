-- What a fleet remembers beside the tables of its engine (procrastinate). All times are the database's own.
-- No secret is in it, and no value of a plan: addresses and words of ours alone.

CREATE TABLE fleet (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version integer NOT NULL,              -- of these tables
    release text NOT NULL,                 -- the oldest of reconciler that may work here
    engine text NOT NULL,                  -- procrastinate's, whose tables these are
    migrated text NOT NULL,                -- the last of its migrations
    settings jsonb NOT NULL DEFAULT '{}',  -- what the inventory says of all stacks
    inventory text NOT NULL DEFAULT '',    -- its commit, or the digest of its file
    looked timestamptz,                    -- when a worker last looked for a newer one
    problems jsonb NOT NULL DEFAULT '[]',  -- why a newer one is not taken
    suspended jsonb                        -- {reason, who, since, until}: nothing is written anywhere
);

CREATE TABLE fleet_stacks (
    name text PRIMARY KEY,
    declared jsonb NOT NULL,               -- its entry in the inventory
    ring integer NOT NULL,
    worker_group text NOT NULL,
    listed boolean NOT NULL DEFAULT true,  -- whether the inventory still names it
    suspended jsonb,                       -- by a command
    due timestamptz NOT NULL DEFAULT clock_timestamp(),
    wait double precision NOT NULL DEFAULT 0,  -- seconds from which `due` was made: a clock that went back shows
    cause text NOT NULL DEFAULT 'start',
    generation bigint NOT NULL DEFAULT 0,  -- how often a worker took it: who has an older number may write nothing
    worker text,                           -- who is at work
    began timestamptz,
    applying text UNIQUE,                  -- the mail server that is being written to
    state text NOT NULL DEFAULT 'starting',
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    stalled boolean NOT NULL DEFAULT false,    -- a person is needed
    home text,                             -- the workers' data that remembers a refused login: nobody else tries it
    taken jsonb,                           -- the last good revision
    shared text NOT NULL DEFAULT '',       -- the last good revision of the shared files
    tried text NOT NULL DEFAULT '',        -- the one that it was given last, good or not
    sound boolean NOT NULL DEFAULT true,   -- whether it was as desired before it was given that one, or is since
    failures integer NOT NULL DEFAULT 0,
    carried jsonb,                         -- what the next cycle has to know of those before
    troubles jsonb NOT NULL DEFAULT '[]',  -- [target, class, title]
    pending integer NOT NULL DEFAULT 0,
    proven timestamptz,                    -- when it was last seen to be as desired
    ended timestamptz,
    seconds double precision
);

CREATE TABLE fleet_runs (
    stack text NOT NULL REFERENCES fleet_stacks ON DELETE CASCADE,
    generation bigint NOT NULL,
    began timestamptz NOT NULL,
    ended timestamptz,                     -- nothing: the worker was killed, or lost the stack to another
    worker text NOT NULL,
    cause text NOT NULL,
    result text NOT NULL DEFAULT '',
    revision text NOT NULL DEFAULT '',
    shared text NOT NULL DEFAULT '',
    changed integer NOT NULL DEFAULT 0,
    troubles jsonb NOT NULL DEFAULT '[]',
    PRIMARY KEY (stack, generation)
);

CREATE TABLE fleet_repositories (
    address text NOT NULL,
    branch text NOT NULL,
    seen text NOT NULL DEFAULT '',
    looked timestamptz,
    problem text NOT NULL DEFAULT '',
    PRIMARY KEY (address, branch)
);

CREATE TABLE fleet_rollout (
    ring integer PRIMARY KEY,
    revision text NOT NULL,                -- of the shared files
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    healthy timestamptz,                   -- since when all of the ring is as desired with it
    settled boolean NOT NULL DEFAULT false,    -- it was so for the ring's time
    stopped text NOT NULL DEFAULT ''       -- why it goes no further
);

CREATE TABLE fleet_accounts (
    account text PRIMARY KEY,
    next timestamptz NOT NULL              -- when the next request may go out
);

CREATE TABLE fleet_notices (
    target text NOT NULL,
    class text NOT NULL,
    title text NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    told timestamptz,                      -- nothing: nobody was told yet
    tried timestamptz,                     -- when a worker last took the turn to tell
    reminded integer NOT NULL DEFAULT 0,
    PRIMARY KEY (target, class)
);

CREATE INDEX fleet_stacks_due ON fleet_stacks (due) WHERE listed;
CREATE INDEX fleet_runs_began ON fleet_runs (began);
