-- Two records of one person: the duplicate stays as it was, and answers for the survivor.

alter table patients.patient
    -- The survivor, never itself merged: when it is, those who point to it move along.
    add merged_into uuid constraint patient_merged_into references patients.patient,
    add constraint patient_not_merged_into_itself check (merged_into <> id);

create index patient_merged_into on patients.patient (merged_into) where merged_into is not null;

create table patients.merge (
    merged_id uuid primary key constraint merge_merged references patients.patient,
    -- Into whom, at that time.
    survivor_id uuid not null constraint merge_survivor references patients.patient,
    reason text not null,
    merged_by text not null,
    merge_time timestamptz not null
);
