-- Replicas read only the busy time that changed since they last looked, instead of all of a provider's.

-- Taken in the order in which writers commit, for they write one after the other: see store/busy.rs.
create sequence scheduling.busy_change;

alter table scheduling.busy add changed bigint not null default nextval('scheduling.busy_change');
alter table scheduling.busy alter changed drop default;
create unique index busy_by_change on scheduling.busy (changed);

-- An appointment that moves to another provider leaves a row without times with the one it left, which tells that one's time
-- apart from the other's.
alter table scheduling.busy drop constraint busy_pkey;
alter table scheduling.busy add constraint busy_pkey primary key (appointment_id, provider_id);

-- Read whole by a replica that starts; what is over is not looked at.
drop index scheduling.busy_by_provider;
create index busy_by_end on scheduling.busy (occupied_end) where occupied_end is not null;

drop table scheduling.busy_counter;
