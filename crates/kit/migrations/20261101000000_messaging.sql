-- Facts made here and told to others (outbox), facts of others already applied (inbox), and answers already given (request).
-- Every service's schema has these three.

create table outbox (
    event_id uuid primary key,
    -- Order of insertion. Rows of one aggregate are inserted under that aggregate's row lock, so for them it is commit order too.
    position bigint generated always as identity,
    subject text not null,
    aggregate_id uuid not null,
    aggregate_version bigint not null,
    payload bytea not null,
    traceparent text,
    created_at timestamptz not null default now(),
    published_at timestamptz
);

-- The relay reads only what is not published yet; published rows stay out of its way.
create index outbox_unpublished on outbox (position) where published_at is null;
create index outbox_published on outbox (published_at) where published_at is not null;

create table inbox (
    consumer text not null,
    event_id uuid not null,
    received_at timestamptz not null default now(),
    primary key (consumer, event_id)
);

create index inbox_received on inbox (received_at);

create table request (
    caller text not null,
    request_id uuid not null,
    -- Method and body, hashed: the same id with another body is refused.
    fingerprint bytea not null,
    -- Null only inside the transaction that computes it.
    response bytea,
    created_at timestamptz not null default now(),
    primary key (caller, request_id)
);

create index request_created on request (created_at);
