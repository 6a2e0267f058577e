-- One row per stretch of time that a provider, a room and a patient are kept for, from hold to closed visit.
-- The four exclusion constraints are the one arbiter of conflicts: searches advise, these decide.

create type appointments.state as enum (
    'held', 'offered', 'booked', 'displaced', 'checked_in',             -- occupy time
    'completed', 'no_show', 'cancelled', 'expired', 'released', 'declined' -- do not
);

create type appointments.copay as enum ('not_required', 'pending', 'authorized', 'declined', 'action_required');

create table appointments.reservation (
    id uuid primary key,
    version bigint not null default 1,
    state appointments.state not null,
    patient_id uuid not null,
    service_type_id uuid not null,
    clinic_id uuid not null,
    provider_id uuid not null,
    room_id uuid not null,
    -- The visit; the room and the patient are taken for it.
    visit tstzrange not null,
    -- The visit with the service type's buffers; the provider is taken for it.
    occupied tstzrange not null,
    -- The start's day on the clinic's own calendar, for the 7-day rule.
    visit_date date not null,
    time_zone text not null,
    -- The provider's calendar version that the slot was judged at.
    calendar_version bigint not null,
    hold_expires_at timestamptz,
    intake_form_id uuid,
    -- The start that decides whether a cancellation is late.
    fee_start timestamptz not null,

    copay appointments.copay not null,
    charge_id uuid,
    payment_method_id uuid,
    -- Why the card tried last was declined, in the provider's word.
    decline_code text not null default '',
    -- Set while someone drives the booking of a hold; when it has passed, a recovery worker of any replica takes over.
    driven_until timestamptz,
    -- Billing's name for the authorization being asked for: whoever drives repeats it and gets the same answer.
    attempt_id uuid,

    cancel_received_at timestamptz,
    cancelled_by_clinic boolean,
    fee_due boolean not null default false,
    checked_in_at timestamptz,
    closed_at timestamptz,
    created_at timestamptz not null default clock.now(),
    updated_at timestamptz not null default clock.now(),

    -- An empty range would conflict with nothing.
    constraint reservation_visit_range check (not isempty(visit) and not lower_inf(visit) and not upper_inf(visit)),
    constraint reservation_occupied_range check (occupied @> visit and not lower_inf(occupied) and not upper_inf(occupied)),
    constraint reservation_hold_ends check ((state in ('held', 'offered')) <= (hold_expires_at is not null)),

    constraint reservation_provider_overlap exclude using gist (provider_id with =, occupied with &&)
        where (state in ('held', 'offered', 'booked', 'displaced', 'checked_in')),
    constraint reservation_room_overlap exclude using gist (room_id with =, visit with &&)
        where (state in ('held', 'offered', 'booked', 'displaced', 'checked_in')),
    constraint reservation_patient_overlap exclude using gist (patient_id with =, visit with &&)
        where (state in ('held', 'booked', 'displaced', 'checked_in')),
    constraint reservation_seven_days exclude using gist
        (patient_id with =, provider_id with =, daterange(visit_date, visit_date + 7) with &&)
        where (state in ('held', 'booked', 'displaced', 'checked_in'))
);

-- The workers look for these; both indexes hold only rows that are still to be decided.
create index reservation_expiring on appointments.reservation (hold_expires_at) where state in ('held', 'offered');
create index reservation_driven on appointments.reservation (driven_until) where state = 'held' and driven_until is not null;

-- Lists: a patient's, a clinic's day, a provider's day.
create index reservation_by_patient on appointments.reservation (patient_id, lower(visit), id);
create index reservation_by_clinic on appointments.reservation (clinic_id, lower(visit), id);
create index reservation_by_provider on appointments.reservation (provider_id, lower(visit), id);

-- One open hold per patient, so that nobody hoards slots.
create unique index reservation_one_hold on appointments.reservation (patient_id) where state = 'held';

-- Who changed what, and when: one row per version.
create table appointments.change (
    reservation_id uuid not null references appointments.reservation,
    version bigint not null,
    state appointments.state not null,
    changed_at timestamptz not null default clock.now(),
    -- Null = the suite itself.
    actor text,
    actor_role int,
    visit tstzrange not null,
    clinic_id uuid not null,
    provider_id uuid not null,
    room_id uuid not null,
    override_reason text,
    overridden text[] not null default '{}',
    primary key (reservation_id, version)
);

-- The newest calendar version each provider is known to have. A booking judged at an older one is judged again.
create table appointments.calendar_seen (
    provider_id uuid primary key,
    version bigint not null
);

-- Patients known to exist, from their events. One that is missing here is asked for.
create table appointments.patient_seen (
    patient_id uuid primary key
);
