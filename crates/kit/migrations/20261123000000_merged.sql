-- Patients whose records were merged, as patients tells of them. Rows that name a merged patient stay as they are; who reads them
-- asks here whose they are now.

create table merged (
    merged_id uuid primary key,
    -- Never itself merged: when it is, those who were merged into it move along.
    survivor_id uuid not null,
    constraint merged_not_into_itself check (merged_id <> survivor_id)
);

create index merged_survivor on merged (survivor_id);

-- Who answers for a patient: the patient, unless merged.
create function survivor(patient uuid) returns uuid stable language sql
return coalesce((select survivor_id from merged where merged_id = patient), patient);

-- All ids of the person that a patient's id names.
create function ids_of(patient uuid) returns uuid[] stable language sql
return survivor(patient) || array(select merged_id from merged where survivor_id = survivor(patient));
