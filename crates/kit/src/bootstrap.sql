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
create or replace function clock.now() returns timestamptz
    language sql stable as 'select pg_catalog.now() + ahead from clock.skew';
