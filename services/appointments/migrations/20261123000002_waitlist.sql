-- The waitlist: who waits, which freed time is still to be matched, and what was offered to whom. An offer is a reservation in state
-- 'offered', so that the constraints which decide about bookings decide about offers too; its row here says for whom it is and how it
-- was answered.

create type appointments.entry_state as enum ('waiting', 'offered', 'fulfilled', 'left', 'expired');

create table appointments.waitlist_entry (
    id uuid primary key,
    state appointments.entry_state not null default 'waiting',
    patient_id uuid not null,
    service_type_id uuid not null,
    -- Empty = any.
    clinic_ids uuid[] not null,
    provider_ids uuid[] not null,
    -- Both inclusive, on the clinic's own calendar.
    first_date date not null,
    last_date date not null,
    -- Minutes after midnight by the clinic's wall clock; starts from the first to before the second suit.
    from_minute smallint not null,
    before_minute smallint not null,
    -- Bit n = the n-th day of the week, Monday the first, bit 0.
    weekdays smallint not null,
    priority smallint not null,
    priority_reason text not null,
    auto_book boolean not null,
    payment_method_id uuid,
    -- The visit that accepting moves, and the one it led to. No foreign keys: to check one would lock the visit, and whoever accepts
    -- locks that first.
    replaces_id uuid,
    appointment_id uuid,
    created_at timestamptz not null default clock.now(),
    updated_at timestamptz not null default clock.now(),

    constraint waitlist_entry_dates check (first_date <= last_date),
    constraint waitlist_entry_minutes check (0 <= from_minute and from_minute < before_minute and before_minute <= 1440),
    constraint waitlist_entry_weekdays check (weekdays between 1 and 127),
    constraint waitlist_entry_priority check (priority between 0 and 9 and (priority = 0 or priority_reason <> '')),
    constraint waitlist_entry_led_to check ((state = 'fulfilled') = (appointment_id is not null))
);

-- Nobody waits twice for one thing.
create unique index waitlist_entry_one_open on appointments.waitlist_entry (patient_id, service_type_id)
    where state in ('waiting', 'offered');
-- The order in which open entries are served.
create index waitlist_entry_queue on appointments.waitlist_entry (service_type_id, priority desc, created_at, id)
    where state in ('waiting', 'offered');
create index waitlist_entry_by_patient on appointments.waitlist_entry (patient_id);
-- The workers look for entries whose last day passed, or whose visit to replace ended.
create index waitlist_entry_ending on appointments.waitlist_entry (last_date) where state = 'waiting';
create index waitlist_entry_replaces on appointments.waitlist_entry (replaces_id)
    where replaces_id is not null and state in ('waiting', 'offered');

create type appointments.offer_state as enum ('open', 'accepted', 'declined', 'expired', 'withdrawn');

create table appointments.offer (
    -- The reservation that holds the time.
    id uuid primary key references appointments.reservation,
    -- Null = the time is held instead of a displaced visit, not for an entry of the waitlist.
    entry_id uuid references appointments.waitlist_entry,
    state appointments.offer_state not null default 'open',
    patient_id uuid not null,
    service_type_id uuid not null,
    clinic_id uuid not null,
    provider_id uuid not null,
    starts_at timestamptz not null,
    -- The visit that accepting moves.
    replaces_id uuid,
    -- Which of several that are held for one displaced visit, from 1; null for the waitlist.
    preference smallint,
    -- The suite itself accepts it, at once.
    auto_book boolean not null,
    made_at timestamptz not null default clock.now(),
    expires_at timestamptz not null,
    answered_at timestamptz,
    -- Who answered it and in which role; null = time or the suite itself did.
    answered_by text,
    answered_role int,

    constraint offer_answered check ((state = 'open') = (answered_at is null)),
    constraint offer_preference check ((entry_id is null) = (preference is not null))
);

-- However much time frees up at once, a patient is asked one thing at a time.
create unique index offer_one_open on appointments.offer (patient_id) where state = 'open' and entry_id is not null;
-- What was not wanted once is not offered again; what was taken back may be.
create unique index offer_once on appointments.offer (entry_id, provider_id, starts_at)
    where entry_id is not null and state <> 'withdrawn';
create index offer_by_patient on appointments.offer (patient_id, made_at);
create index offer_by_time on appointments.offer (made_at, id);
create index offer_by_visit on appointments.offer (replaces_id) where state = 'open' and replaces_id is not null;
create index offer_auto on appointments.offer (made_at) where state = 'open' and auto_book;

-- Provider's time that became free and is still to be matched: a work list, written by whatever frees time, in its transaction.
create table appointments.freed (
    id bigint generated always as identity primary key,
    provider_id uuid not null,
    -- Null = the provider's calendar changed, and scheduling is to be asked where and when.
    clinic_id uuid,
    time_zone text,
    free tstzrange not null,
    -- From scheduling's event: a replica that has not seen this version cannot say.
    calendar_version bigint not null default 0,
    noted_at timestamptz not null default clock.now(),
    -- When a worker looks at it.
    due_at timestamptz not null default clock.now(),
    -- Set while a worker looks at it; when it has passed, any worker may.
    claimed_until timestamptz,

    constraint freed_free_range check (not isempty(free)),
    constraint freed_place check ((clinic_id is null) = (time_zone is null))
);

create index freed_due on appointments.freed (due_at);
create index freed_by_provider on appointments.freed (provider_id);

-- Whether time that frees up is worth a look: it is far enough ahead for an offer, and someone may want it. Only coarse, for it is
-- asked by every change that frees time.
create function appointments.wanted(provider uuid, clinic uuid, day date, until timestamptz) returns boolean
language sql stable as $$
    select until > clock.now() + interval '60 minutes' and exists (
        select from appointments.waitlist_entry e
        where e.state in ('waiting', 'offered') and day between e.first_date and e.last_date
          and (e.clinic_ids = '{}' or clinic = any(e.clinic_ids)) and (e.provider_ids = '{}' or provider = any(e.provider_ids)))
$$;

-- How long visits are that someone waited for, as scheduling said last; its answer about a slot corrects it.
create table appointments.service_length (
    service_type_id uuid primary key,
    visit_minutes int not null,
    before_minutes int not null,
    after_minutes int not null,
    -- Starts are on multiples of it, counted from midnight by the wall clock.
    step_minutes int not null
);

-- An offer is driven to a booking as a hold is.
create index reservation_offer_driven on appointments.reservation (driven_until)
    where state = 'offered' and driven_until is not null;
