-- Who looked at, or changed, whose data. Rows are chained by hashes, so that an edited, removed or moved one shows.

-- Ends of the chains. Several chains, so that readers of different patients do not wait for each other.
create table patients.access_chain (
    chain smallint primary key,
    sequence bigint not null default 0,
    hash bytea not null default decode(repeat('00', 32), 'hex')
);

insert into patients.access_chain (chain) select generate_series(0, 63);

create table patients.access_log (
    chain smallint not null constraint access_log_chain references patients.access_chain,
    sequence bigint not null,
    -- The id that was asked for. No foreign key: the log outlives what it tells of.
    patient_id uuid not null,
    access_time timestamptz not null,
    actor text not null,
    -- Names of Role, AccessAction and AccessPurpose in the contract.
    actor_role text not null,
    action text not null,
    method text not null,
    fields text[] not null,
    purpose text not null,
    break_glass_reason text not null,
    trace_id text not null,
    previous_hash bytea not null,
    hash bytea not null,
    primary key (chain, sequence)
);

create index access_log_patient on patients.access_log (patient_id, access_time desc);
create index access_log_time on patients.access_log (access_time desc, chain, sequence);

-- Append-only. The service's role owns the table and could grant itself what is withdrawn here, so a trigger refuses, too.
revoke update, delete, truncate on patients.access_log from current_user;

create function patients.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% on %.% is refused: the access log is append-only', tg_op, tg_table_schema, tg_table_name;
end $$;

create trigger access_log_append_only before update or delete or truncate on patients.access_log
    for each statement execute function patients.refuse_change();
