-- What is known of each visit, and the reminders planned for it.

-- The newest version of each visit that was heard of. Older news change nothing.
create table notify.visit (
    appointment_id uuid primary key,
    version bigint not null,
    patient_id uuid not null,
    clinic_id uuid not null,
    start_time timestamptz not null,
    -- The clinic's IANA time zone.
    time_zone text not null,
    -- Booked, and not cancelled, displaced, begun or over.
    standing boolean not null
);

create table notify.reminder (
    id uuid primary key,
    appointment_id uuid not null constraint reminder_visit references notify.visit,
    appointment_version bigint not null,
    patient_id uuid not null,
    -- Names of ReminderKind, ReminderState and DropReason in the contract.
    kind text not null,
    visit_start_time timestamptz not null,
    due_time timestamptz not null,
    state text not null,
    drop_reason text not null,
    -- The message it became.
    message_id uuid,
    -- When the dispatcher looks at it next: when due, and later after a lost lease, a failure or an unknown outcome.
    next_try timestamptz not null,
    -- Tries that failed before anything was sent.
    tries int not null default 0,
    create_time timestamptz not null,
    update_time timestamptz not null,
    constraint reminder_once unique (appointment_id, appointment_version, kind)
);

-- What the dispatcher claims from.
create index reminder_open on notify.reminder (next_try)
    where state in ('REMINDER_STATE_PLANNED', 'REMINDER_STATE_SENDING');
create index reminder_due on notify.reminder (due_time, id);
create index reminder_patient on notify.reminder (patient_id, due_time, id);
