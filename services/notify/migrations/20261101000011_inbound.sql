-- Texts that came in, and who wants none any more. Numbers themselves are kept by the patients service alone, and by the
-- provider; here they are known by a keyed hash.

-- The key of the hashes: 32 bytes, 244 bits of them from the server's strong random source. All replicas share it, and nothing
-- needs configuring. It keeps numbers out of logs and copies of single tables, not from one who has the whole schema.
create table notify.number_key (
    singleton boolean primary key default true constraint number_key_single check (singleton),
    key bytea not null default uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()),
    constraint number_key_length check (octet_length(key) = 32)
);
insert into notify.number_key default values;

-- The newest word of each number about texts.
create table notify.opt_out (
    number_hash bytea primary key,
    opted_out boolean not null,
    decide_time timestamptz not null
);

-- Each text received, until it has been acted on and answered. Its words, and what it is about, are its message's.
create table notify.inbound (
    message_id uuid primary key constraint inbound_message references notify.message,
    number_hash bytea not null,
    receive_time timestamptz not null,
    -- Name of ReplyMeaning; decided once, before anything is done for it. Null = not decided yet.
    meaning text,
    -- Which of the digits offered. 0 = none.
    choice int not null default 0,
    offer_id uuid,
    -- The provider has answered it by itself.
    answered boolean not null,
    -- When the worker looks at it next; also its lease. Null = it is done with.
    next_try timestamptz,
    -- Tries that failed.
    tries int not null default 0
);
create index inbound_open on notify.inbound (next_try) where next_try is not null;
create index inbound_number on notify.inbound (number_hash, receive_time);

-- The digits that a message offers, where it is no reminder, whose digits are always the same.
create table notify.choice (
    message_id uuid not null constraint choice_message references notify.message,
    digit int not null constraint choice_digit check (digit between 1 and 9),
    -- Name of ReplyMeaning: what taking it means.
    meaning text not null,
    appointment_id uuid,
    offer_id uuid,
    constraint choice_unique primary key (message_id, digit)
);
