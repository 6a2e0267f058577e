-- What messages other than reminders need to know of a visit, and which news of a charge is the newest.

alter table notify.visit
    -- Null = written by a version that did not keep it.
    add column end_time timestamptz,
    -- Name of AppointmentState in the contract.
    add column state text not null default 'APPOINTMENT_STATE_UNSPECIFIED',
    -- An intake form belongs to the visit.
    add column has_form boolean not null default false;

create index visit_patient on notify.visit (patient_id, start_time desc);

-- The newest version of each charge that was heard of. Older news change nothing.
create table notify.charge (
    charge_id uuid primary key,
    version bigint not null
);
