-- The books: a journal of double entries, refunds, late arrivals, webhooks applied after they were answered, reconciliations.

-- Where money stands. RECEIVABLE: what patients owe. PROVIDER: money at the payment provider.
create table billing.account (
    name text primary key
);
insert into billing.account values ('RECEIVABLE'), ('PROVIDER'), ('COPAY_REVENUE'), ('FEE_REVENUE');

-- One thing that happened to money.
create table billing.journal (
    id uuid primary key,
    charge_id uuid not null references billing.charge,
    kind text not null,
    currency text not null,
    posted_at timestamptz not null,
    constraint journal_kind_known check (kind in ('COPAY', 'NO_SHOW_FEE', 'PAYMENT', 'REFUND', 'REVERSAL'))
);

create index journal_of_charge on billing.journal (charge_id);

-- What it did to one account. No foreign key to the journal: checking one needs the right to update there, which is withdrawn
-- below; the balance check sees to it instead.
create table billing.posting (
    entry_id uuid not null,
    account text not null references billing.account,
    -- Minor units of the entry's currency; above zero = debit, below = credit.
    amount bigint not null,
    primary key (entry_id, account),
    constraint posting_amount_not_zero check (amount <> 0)
);

insert into billing.journal select id, charge_id, kind, currency, posted_at from billing.entry;
insert into billing.posting
select id, debit, amount from billing.entry union all select id, credit, -amount from billing.entry;

-- Judged at commit, when all of an entry is there.
create function billing.refuse_imbalance() returns trigger language plpgsql as $$
declare
    entry uuid := (to_jsonb(new) ->> tg_argv[0])::uuid;
begin
    if not exists (select from billing.journal where id = entry)
        or coalesce((select sum(amount) from billing.posting where entry_id = entry), 1) <> 0 then
        raise exception 'entry % is refused: its postings do not sum to zero', entry
            using errcode = 'check_violation', constraint = 'journal_balanced';
    end if;
    return null;
end $$;

create constraint trigger journal_balanced after insert on billing.journal
    deferrable initially deferred for each row execute function billing.refuse_imbalance('id');
create constraint trigger posting_balanced after insert on billing.posting
    deferrable initially deferred for each row execute function billing.refuse_imbalance('entry_id');

drop table billing.entry;

-- Append-only twice: by grant, which holds the owning role back as well, and by trigger, which holds back administrators and
-- whoever grants himself more. A wrong entry is answered by another one.
create trigger journal_append_only before update or delete or truncate on billing.journal
    for each statement execute function billing.refuse_change();
create trigger posting_append_only before update or delete or truncate on billing.posting
    for each statement execute function billing.refuse_change();
revoke update, delete, truncate on billing.journal, billing.posting from current_user;

-- The patient came after the visit was closed as missed: its fee is taken back. Never unset.
alter table billing.visit add column fee_reversed boolean not null default false;

-- Money given back on a charge. `charge.refunded_amount` is the sum of those that did not fail.
create table billing.refund (
    id uuid primary key,
    charge_id uuid not null references billing.charge,
    -- Minor units of the charge's currency.
    amount bigint not null,
    state text not null,
    cause text not null,
    -- Given by staff; empty = another cause.
    reason text not null,
    -- The subject of the caller's token; empty = another cause.
    requested_by text not null,
    created_at timestamptz not null,
    constraint refund_amount_positive check (amount > 0),
    constraint refund_state_known check (state in ('PENDING', 'SUCCEEDED', 'FAILED')),
    constraint refund_cause_known check (cause in ('STAFF', 'FEE_REVERSED', 'PROVIDER', 'RECONCILIATION'))
);

create index refund_of_charge on billing.refund (charge_id);

-- What of a refund one payment gives back: a fee may have been taken by two.
create table billing.refund_part (
    refund_id uuid not null references billing.refund,
    number int not null,
    -- The provider's payment ("pi_…").
    payment_reference text not null,
    amount bigint not null,
    state text not null,
    -- The idempotency key it is asked for with; the provider's refund remembers it.
    key text not null,
    -- When the provider was first asked with that key; null = never.
    asked_at timestamptz,
    -- The provider's refund ("re_…"); null = not known yet.
    provider_reference text,
    failure_code text,
    -- When a worker looks at it next; null = nothing to do.
    due_at timestamptz,
    tries int not null default 0,
    primary key (refund_id, number),
    constraint refund_part_key_once unique (key),
    constraint refund_part_provider_once unique (provider_reference),
    constraint refund_part_amount_positive check (amount > 0),
    constraint refund_part_state_known check (state in ('PENDING', 'SUCCEEDED', 'FAILED'))
);

create index refund_part_due on billing.refund_part (due_at) where due_at is not null;
create index refund_part_of_payment on billing.refund_part (payment_reference);

-- Webhooks are answered after one insert, and applied later. The refund it is about ("re_…"); null = about something else.
alter table billing.webhook_event add column refund_reference text;
-- When it is to be applied; null = it has been, or is no news.
alter table billing.webhook_event add column due_at timestamptz;
alter table billing.webhook_event add column tries int not null default 0;
create index webhook_event_due on billing.webhook_event (due_at) where due_at is not null;

-- What is done every so often by one replica at a time.
create table billing.chore (
    name text primary key,
    begun_at timestamptz not null,
    -- WEBHOOK_BACKFILL: all that the provider told before this is in webhook_event. RECONCILIATION: payments made before this
    -- have been compared.
    done_until timestamptz not null
);
insert into billing.chore values
    ('WEBHOOK_BACKFILL', clock.now(), clock.now()),
    ('RECONCILIATION', clock.now(), clock.now());

-- What reconciliations found.
create table billing.reconciliation (
    id uuid primary key,
    scheduled boolean not null,
    started_at timestamptz not null,
    ended_at timestamptz not null,
    found bigint not null,
    repaired bigint not null,
    -- For people.
    text text not null,
    -- The contract's ReconciliationReport, encoded.
    report bytea not null
);

-- What the provider listed to the reconciliation that runs: payments and refunds, so that what it did not list is found
-- without keeping a month in memory. Empty between runs.
create unlogged table billing.reconciliation_seen (
    reference text primary key
);
