-- Disputes: what a bank takes back, and gives back when the clinic wins, is in the ledger.

-- DISPUTED: what banks have withdrawn from the provider's account and not reinstated.
insert into billing.account values ('DISPUTED');
alter table billing.journal drop constraint journal_kind_known;
alter table billing.journal add constraint journal_kind_known
    check (kind in ('COPAY', 'NO_SHOW_FEE', 'PAYMENT', 'REFUND', 'REVERSAL', 'DISPUTE'));

create table billing.dispute (
    -- The provider's ("dp_…" or "du_…").
    provider_reference text primary key,
    -- The charge whose money it is about.
    charge_id uuid not null references billing.charge,
    -- Withdrawn and not reinstated, as the ledger has it, minor units of the charge's currency.
    withdrawn_amount bigint not null,
    updated_at timestamptz not null
);

-- The dispute that an event is about; null = about something else.
alter table billing.webhook_event add column dispute_reference text;
