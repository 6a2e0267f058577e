-- Links under which calendars are published as iCalendar feeds. A link's address is its id and a signature, so that what is kept
-- here shows nobody the address.

-- The key that signs addresses: 32 bytes, 244 bits of them from the server's strong random source. All replicas share it, and
-- nothing needs configuring.
create table scheduling.calendar_link_key (
    singleton boolean primary key default true constraint calendar_link_key_single check (singleton),
    key bytea not null default uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()),
    constraint calendar_link_key_length check (octet_length(key) = 32)
);
insert into scheduling.calendar_link_key default values;

create table scheduling.calendar_link (
    id uuid constraint calendar_link_id_unique primary key,
    -- Whose calendar, or which clinic's closures.
    provider_id uuid constraint calendar_link_provider references scheduling.provider,
    clinic_id uuid constraint calendar_link_clinic references scheduling.clinic,
    create_time timestamptz not null,
    -- Null = it works.
    revoke_time timestamptz,
    constraint calendar_link_one_subject check (num_nonnulls(provider_id, clinic_id) = 1)
);
create index calendar_link_by_provider on scheduling.calendar_link (provider_id, id) where provider_id is not null;
create index calendar_link_by_clinic on scheduling.calendar_link (clinic_id, id) where clinic_id is not null;
