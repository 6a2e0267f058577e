-- Forms that patients fill in before a visit, their answers, and the visits that ask for them.

create table patients.form (
    form_id uuid not null,
    version int not null constraint form_version_positive check (version > 0),
    name text not null,
    -- To the letter as it was published: questions are asked in the order written.
    schema_json text not null,
    language text not null,
    -- A JSON list. Text, as a pointer may hold characters that jsonb refuses.
    translations text not null,
    publish_time timestamptz not null,
    published_by text not null,
    primary key (form_id, version)
);

-- What appointments tells of visits whose service type asks for a form. A visit may be known before its form is published.
create table patients.visit (
    appointment_id uuid primary key,
    -- Of the appointment: older news changes nothing.
    version bigint not null,
    patient_id uuid not null,
    form_id uuid not null,
    -- Not called off and not over.
    expected boolean not null
);

create index visit_expected on patients.visit (form_id) where expected;

create table patients.intake (
    id uuid primary key,
    appointment_id uuid not null constraint intake_appointment_unique unique,
    -- Who booked; after a merge the survivor answers for it.
    patient_id uuid not null constraint intake_patient references patients.patient,
    form_id uuid not null,
    form_version int not null,
    -- Name of IntakeState in the contract.
    state text not null,
    -- Sealed; null = none saved.
    answers bytea,
    -- The etag.
    version bigint not null default 1,
    create_time timestamptz not null,
    update_time timestamptz not null,
    submit_time timestamptz,
    constraint intake_form foreign key (form_id, form_version) references patients.form,
    constraint intake_submitted_once check ((state = 'INTAKE_STATE_SUBMITTED') = (submit_time is not null)),
    constraint intake_submitted_with_answers check (submit_time is null or answers is not null)
);

-- By the number of the key that sealed the answers, 4 bytes in front.
create index intake_key on patients.intake (substring(answers from 1 for 4)) where answers is not null;
