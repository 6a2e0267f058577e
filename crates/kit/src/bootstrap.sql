-- What an administrator does once per database: extensions and the clock. Runs again without harm. The schema and role of each
-- service are made by bootstrap.rs.
create schema if not exists extensions;
create extension if not exists btree_gist with schema extensions;
create extension if not exists pg_trgm with schema extensions;

-- The one clock that replicas race by. In production the offset is zero and nobody may change it.
create schema if not exists clock;
create table if not exists clock.skew (
    singleton boolean primary key default true check (singleton),
    ahead interval not null default '0'
);
insert into clock.skew default values on conflict do nothing;
-- clock.now() has the offset in its body: a function without a table is expanded into each statement and costs nothing there.
create or replace function clock.set(_ahead interval) returns void language plpgsql as $$
begin
    update clock.skew set ahead = _ahead;
    execute format('create or replace function clock.now() returns timestamptz language sql stable as %L',
                   format('select pg_catalog.now() + %L::interval', _ahead));
end $$;
revoke execute on function clock.set from public;
select clock.set(ahead) from clock.skew;
