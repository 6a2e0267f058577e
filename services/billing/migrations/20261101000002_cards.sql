-- Cards on file: the payment provider's names for them, never a card number.

create table billing.customer (
    patient_id uuid primary key,
    -- The provider's customer ("cus_…"). The row's lock orders changes to the patient's cards.
    provider_id text not null,
    created_at timestamptz not null,
    constraint customer_provider_once unique (provider_id)
);

create table billing.payment_method (
    id uuid primary key,
    patient_id uuid not null references billing.customer,
    -- The provider's card ("pm_…").
    provider_id text not null,
    -- The provider's record of saving it ("seti_…"), asked again while the patient's confirmation is awaited.
    setup_reference text not null,
    confirmed boolean not null,
    brand text not null,
    last4 text not null,
    expiry_month int not null,
    expiry_year int not null,
    is_default boolean not null,
    created_at timestamptz not null,
    constraint payment_method_provider_once unique (provider_id),
    constraint payment_method_expiry_month check (expiry_month between 1 and 12)
);

create unique index payment_method_one_default on billing.payment_method (patient_id) where is_default;
create index payment_method_of_patient on billing.payment_method (patient_id);
