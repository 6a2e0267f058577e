-- Displaced visits: what is held for them instead until their patients answer, and which of them are the front desk's to settle.

alter table appointments.reservation
    -- Since when nothing is held for a displaced visit any more, so that the front desk has to settle it.
    add work_list_at timestamptz,
    add constraint reservation_work_list check (work_list_at is null or state = 'displaced');

create index reservation_displaced on appointments.reservation (work_list_at) where state = 'displaced';

-- Whoever looks for alternatives twice, after a crash or beside a slow rival, holds no more than three.
create unique index offer_one_alternative on appointments.offer (replaces_id, preference) where state = 'open' and entry_id is null;
-- What is counted, and swept.
create index offer_open on appointments.offer (made_at) where state = 'open';
