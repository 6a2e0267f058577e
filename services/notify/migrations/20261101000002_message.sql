-- Every text sent, without its number: that is the patients service's alone.
create table notify.message (
    id uuid primary key,
    patient_id uuid not null,
    appointment_id uuid not null,
    appointment_version bigint not null,
    reminder_id uuid not null constraint message_reminder_unique unique references notify.reminder,
    -- Names of the contract's enums: MessageKind, Channel, MessageState, DropReason, FailureReason, TextEncoding.
    kind text not null,
    channel text not null,
    language text not null,
    state text not null,
    drop_reason text not null,
    failure_reason text not null,
    provider_error_code text not null,
    body text not null,
    encoding text not null,
    segments int not null,
    attempts int not null,
    -- Counts the events told of it.
    version bigint not null default 0,
    -- The provider's id. One provider's message is one of ours: two patients at one phone may get the same words.
    provider_reference text constraint message_provider_reference_unique unique,
    create_time timestamptz not null,
    send_time timestamptz,
    update_time timestamptz not null
);

create index message_created on notify.message (create_time desc, id);
create index message_patient on notify.message (patient_id, create_time desc, id);
create index message_appointment on notify.message (appointment_id, create_time desc, id);
