-- What the provider told, by its own event id: a repeated delivery changes nothing. Bodies are not kept; they name cards and
-- secrets, and what they say is asked for again before it is believed.

create table billing.webhook_event (
    provider_id text primary key,
    kind text not null,
    -- The payment it is about ("pi_…"); null = about something else.
    payment_reference text,
    received_at timestamptz not null
);
