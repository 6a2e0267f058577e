-- The money of appointments: what billing knows of a visit, its charges, and each time the provider was asked for one.

-- A visit as appointments last told it. Whoever changes charges locks this row first, so that a hold that ends and an
-- authorization that arrives are always seen in one order.
create table billing.visit (
    appointment_id uuid primary key,
    -- The appointment's version that this row shows; 0 = only AuthorizeCopay has named it.
    version bigint not null,
    patient_id uuid not null,
    clinic_id uuid not null,
    service_type_id uuid not null,
    start_time timestamptz not null,
    -- How it ended; null = it is held or booked.
    ending text,
    -- The no-show fee this ending costs, minor units; 0 = none.
    fee_amount bigint not null,
    constraint visit_ending_known check (ending in ('HOLD_ENDED', 'CANCELLED', 'CANCELLED_LATE', 'NO_SHOW', 'ATTENDED')),
    constraint visit_fee_not_negative check (fee_amount >= 0)
);

create index visit_of_patient on billing.visit (patient_id);

create table billing.charge (
    id uuid primary key,
    appointment_id uuid not null references billing.visit,
    kind text not null,
    state text not null,
    currency text not null,
    -- All amounts in minor units of `currency`.
    amount bigint not null,
    authorized_amount bigint not null,
    captured_amount bigint not null,
    drawn_from_copay_amount bigint not null,
    refunded_amount bigint not null,
    owed_amount bigint not null,
    -- The part of a co-pay's authorization that the visit's fee takes when the rest is released.
    draw_amount bigint not null,
    payment_method_id uuid references billing.payment_method,
    -- The provider's newest payment ("pi_…").
    provider_reference text,
    capture_before timestamptz,
    decline_code text,
    -- Lets the patient's browser confirm; present in REQUIRES_ACTION alone.
    client_secret text,
    void_cause text,
    -- The newest row of billing.attempt; 0 = the provider was never asked.
    attempt int not null,
    -- Events told about this charge.
    version bigint not null,
    -- Changes of this row: the etag.
    revision bigint not null,
    -- When a worker looks at it next: the end of someone's lease, or of a pause between tries. Null = nothing to do.
    due_at timestamptz,
    -- How often it was looked at since it last changed.
    tries int not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint charge_once_per_kind unique (appointment_id, kind),
    constraint charge_kind_known check (kind in ('COPAY', 'NO_SHOW_FEE')),
    constraint charge_state_known check (state in ('AUTHORIZING', 'AUTHORIZED', 'REQUIRES_ACTION', 'DECLINED',
        'CAPTURING', 'CAPTURED', 'VOIDING', 'VOIDED', 'LAPSED', 'REFUNDED')),
    constraint charge_void_cause_known check (void_cause in ('HOLD_ENDED', 'CANCELLED', 'CANCELLED_LATE', 'NO_SHOW')),
    constraint charge_amount_positive check (amount > 0),
    constraint charge_parts_not_negative check (least(authorized_amount, captured_amount, drawn_from_copay_amount,
        refunded_amount, owed_amount, draw_amount) >= 0),
    constraint charge_within_amount check (captured_amount + owed_amount <= amount),
    constraint charge_refund_within_capture check (refunded_amount <= captured_amount),
    constraint charge_secret_only_for_action check (client_secret is null or state = 'REQUIRES_ACTION')
);

create index charge_due on billing.charge (due_at) where due_at is not null;
create index charge_newest on billing.charge (created_at desc, id);
create index charge_of_payment on billing.charge (provider_reference) where provider_reference is not null;

-- One request to authorize. Its parameters are kept because the provider honours an idempotency key only with the same ones.
create table billing.attempt (
    charge_id uuid not null references billing.charge,
    number int not null,
    -- The caller's name for it; null = the appointment alone is the key.
    request_id uuid,
    -- The caller's request, hashed: the same name with another request is refused.
    fingerprint bytea not null,
    payment_method_id uuid not null references billing.payment_method,
    off_session boolean not null,
    -- The payment of the attempt before, to be cancelled before this one is asked for.
    replaces text,
    -- Why it was declined; null = it was not, or is not answered yet.
    decline_code text,
    created_at timestamptz not null,
    primary key (charge_id, number),
    constraint attempt_request_once unique (request_id)
);
