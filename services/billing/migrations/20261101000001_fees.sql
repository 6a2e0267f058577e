-- What a visit costs, by clinic, service type and the first visit date it holds for.

-- One row per clinic that ever had fees: its version is the schedule's etag and its row lock orders changes.
create table billing.fee_schedule (
    clinic_id uuid primary key,
    version bigint not null,
    updated_at timestamptz not null
);

create table billing.fee (
    clinic_id uuid not null references billing.fee_schedule,
    service_type_id uuid not null,
    effective_from date not null,
    -- Minor units of `currency`; null = no co-pay.
    copay_amount bigint,
    -- Minor units of `currency`; null = no fee for a late cancellation or a missed visit.
    no_show_fee_amount bigint,
    currency text not null,
    primary key (clinic_id, service_type_id, effective_from),
    constraint fee_copay_positive check (copay_amount > 0),
    constraint fee_no_show_positive check (no_show_fee_amount > 0),
    constraint fee_currency_iso check (currency ~ '^[A-Z]{3}$')
);
