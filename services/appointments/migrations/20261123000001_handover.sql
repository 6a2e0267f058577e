-- Appointments of a merged patient pass to the survivor; this is the list of merged patients whose may still have to.

create table appointments.handover (
    merged_id uuid primary key,
    -- When a worker looks at what still names the merged patient.
    due_at timestamptz not null,
    -- Until then something may still come that names it: the end of a hold, a booking that did not see the merge.
    open_until timestamptz not null
);

-- Whose an appointment was from a change on; null = the change was made before this was noted.
alter table appointments.change add patient_id uuid;
