-- The ledger. Each row moves one amount from a credited to a debited account, so it balances by its shape: there is no way
-- to write one side without the other.
--
-- Accounts: RECEIVABLE (what the charge's patient owes), PROVIDER (money at the payment provider), COPAY_REVENUE, FEE_REVENUE.

create table billing.entry (
    id uuid primary key,
    charge_id uuid not null references billing.charge,
    kind text not null,
    debit text not null,
    credit text not null,
    -- Minor units of `currency`.
    amount bigint not null,
    currency text not null,
    posted_at timestamptz not null,
    constraint entry_amount_positive check (amount > 0),
    constraint entry_accounts_of_kind check ((kind, debit, credit) in (
        ('COPAY', 'RECEIVABLE', 'COPAY_REVENUE'),
        ('NO_SHOW_FEE', 'RECEIVABLE', 'FEE_REVENUE'),
        ('PAYMENT', 'PROVIDER', 'RECEIVABLE'),
        ('REFUND', 'RECEIVABLE', 'PROVIDER'),
        ('REVERSAL', 'COPAY_REVENUE', 'RECEIVABLE'),
        ('REVERSAL', 'FEE_REVENUE', 'RECEIVABLE')
    ))
);

create index entry_of_charge on billing.entry (charge_id);

-- Append-only. The service's role owns the table, and an owner cannot be held back by withdrawing grants, so a trigger
-- refuses: a wrong entry is answered by another one.
create function billing.refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% on %.% is refused: the ledger is append-only', tg_op, tg_table_schema, tg_table_name;
end $$;

create trigger entry_append_only before update or delete or truncate on billing.entry
    for each statement execute function billing.refuse_change();
