-- What can be booked, when providers work, and which of their time is taken.

-- Counts every change to the catalog and the blackouts. Its row lock also orders such changes against changes to calendars:
-- whoever changes what several providers share updates it, whoever changes one calendar locks it for share, both before any
-- provider. So a blackout never misses a provider whose first template is being written at the same moment.
create table scheduling.catalog (
    singleton boolean primary key default true constraint catalog_single check (singleton),
    version bigint not null default 1
);
insert into scheduling.catalog default values;

create table scheduling.clinic (
    id uuid constraint clinic_id_unique primary key,
    name text not null,
    -- IANA name.
    time_zone text not null,
    -- Array of {"day": 1 to 7 from Monday, "open": minute of day, "close": minute of day}.
    opening_hours jsonb not null,
    phone text not null,
    address text not null,
    retired boolean not null,
    version bigint not null
);
create index clinic_by_name on scheduling.clinic (name, id);

create table scheduling.room (
    id uuid constraint room_id_unique primary key,
    clinic_id uuid not null constraint room_clinic references scheduling.clinic,
    name text not null,
    features text[] not null,
    retired boolean not null,
    version bigint not null
);
create index room_by_name on scheduling.room (name, id);

create table scheduling.service_type (
    id uuid constraint service_type_id_unique primary key,
    name text not null,
    description text not null,
    duration_minutes integer not null,
    buffer_before_minutes integer not null,
    buffer_after_minutes integer not null,
    -- 0 = duration_minutes.
    step_minutes integer not null,
    minimum_notice_minutes integer not null,
    booking_horizon_days integer not null,
    room_features text[] not null,
    -- The patients service's.
    intake_form_id uuid,
    copay_required boolean not null,
    retired boolean not null,
    version bigint not null,
    constraint service_type_duration check (duration_minutes > 0 and step_minutes >= 0)
);
create index service_type_by_name on scheduling.service_type (name, id);

create table scheduling.provider (
    id uuid constraint provider_id_unique primary key,
    name text not null,
    specialty text not null,
    languages text[] not null,
    -- Empty = all.
    service_type_ids uuid[] not null,
    retired boolean not null,
    -- Of the catalog entry.
    version bigint not null,
    -- Of the calendar: raised under this row's lock by every change that can alter the provider's free time.
    calendar_version bigint not null
);
create index provider_by_name on scheduling.provider (name, id);

create table scheduling.weekly_template (
    id uuid constraint weekly_template_id_unique primary key,
    provider_id uuid not null constraint weekly_template_provider references scheduling.provider,
    clinic_id uuid not null constraint weekly_template_clinic references scheduling.clinic,
    -- RFC 5545 content lines.
    rule text not null,
    -- Minutes of the clinic's day.
    start_minute smallint not null,
    end_minute smallint not null,
    first_date date,
    last_date date,
    -- The provider's when the template was last written.
    calendar_version bigint not null,
    version bigint not null
);
create index weekly_template_by_provider on scheduling.weekly_template (provider_id, id);
create index weekly_template_by_clinic on scheduling.weekly_template (clinic_id);

create type scheduling.exception_kind as enum ('time_off', 'extra_hours');

create table scheduling.exception (
    id uuid constraint exception_id_unique primary key,
    provider_id uuid not null constraint exception_provider references scheduling.provider,
    -- Null = every clinic.
    clinic_id uuid constraint exception_clinic references scheduling.clinic,
    kind scheduling.exception_kind not null,
    start_time timestamptz not null,
    end_time timestamptz not null,
    -- Number of the contract's ExceptionCause; staff only.
    cause integer not null,
    calendar_version bigint not null,
    constraint exception_not_empty check (start_time < end_time),
    constraint exception_extra_hours_somewhere check (kind = 'time_off' or clinic_id is not null)
);
create index exception_by_start on scheduling.exception (start_time, id);
create index exception_by_provider on scheduling.exception (provider_id);
create index exception_by_clinic on scheduling.exception (clinic_id);

create table scheduling.blackout (
    id uuid constraint blackout_id_unique primary key,
    position bigint generated always as identity,
    -- Null = the whole network.
    clinic_id uuid constraint blackout_clinic references scheduling.clinic,
    name text not null,
    -- Either whole days on each clinic's own calendar, or an exact interval.
    first_date date,
    last_date date,
    start_time timestamptz,
    end_time timestamptz,
    constraint blackout_one_span check (
        (first_date <= last_date and start_time is null and end_time is null)
        or (start_time < end_time and first_date is null and last_date is null)
    )
);
create unique index blackout_by_position on scheduling.blackout (position);

-- What the appointments service has told: who is taken when. One row per appointment for good, so that a late event of an old
-- version is recognised; a row that occupies no time has no intervals.
create table scheduling.busy (
    appointment_id uuid primary key,
    version bigint not null,
    provider_id uuid not null,
    room_id uuid not null,
    -- Of the provider, buffers included.
    occupied_start timestamptz,
    occupied_end timestamptz,
    -- Of the room.
    visit_start timestamptz,
    visit_end timestamptz,
    constraint busy_all_or_nothing check (num_nulls(occupied_start, occupied_end, visit_start, visit_end) in (0, 4))
);
create index busy_by_provider on scheduling.busy (provider_id, occupied_end) where occupied_end is not null;

-- Counts the changes to each provider's busy time. Apart from scheduling.provider, so that following appointments and changing
-- calendars never wait for each other.
create table scheduling.busy_counter (
    provider_id uuid primary key,
    version bigint not null
);
