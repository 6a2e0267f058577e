-- What the provider tells of a message after it took it, and messages that answer others.

alter table notify.message
    -- Inbound: a number of nobody, or of several patients.
    alter column patient_id drop not null,
    alter column appointment_id drop not null,
    alter column reminder_id drop not null,
    -- The text that it answers.
    add column in_reply_to_id uuid constraint message_in_reply_to references notify.message,
    -- When it reached the handset.
    add column deliver_time timestamptz;

create index message_in_reply_to on notify.message (in_reply_to_id) where in_reply_to_id is not null;

-- When each sender may send its next text: all replicas share its rate.
create table notify.sender (
    -- E.164: a clinic's number, no patient's.
    number text primary key,
    free_at timestamptz not null
);
