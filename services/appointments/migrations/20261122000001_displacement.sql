-- Bookings that a changed calendar no longer covers, and a feed of changes for boards.

alter table appointments.reservation
    -- Since when, and by which rules, it no longer fits its calendar. Of a hold that was released for it: by which rules.
    add displaced_at timestamptz,
    add displaced_reasons text[] not null default '{}',
    -- Schedule rules that the front desk has overridden for it: they do not displace it.
    add overridden text[] not null default '{}',
    -- The calendar version that it must be judged at again; null = none.
    add judge_at bigint,
    -- Set while a worker judges it; when it has passed, any worker may.
    add judging_until timestamptz;

update appointments.reservation r set overridden = c.overridden
from appointments.change c where c.reservation_id = r.id and c.version = 1 and c.overridden <> '{}';

create index reservation_to_judge on appointments.reservation (judging_until) where judge_at is not null;
create index reservation_by_room on appointments.reservation (room_id, lower(visit), id);

-- Which transaction made a change: who remembers a snapshot finds exactly the changes committed since, in whatever order they were.
alter table appointments.change add transaction xid8 not null default pg_current_xact_id();
create index change_by_transaction on appointments.change (transaction);
