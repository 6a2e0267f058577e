-- Payments and refunds that the provider does not know are waited for, and then given up.

-- Since when the provider has said that it does not know the newest payment; null = it knows it.
alter table billing.charge add column missing_since timestamptz;
create index charge_missing on billing.charge (id) where missing_since is not null;

-- The same of the provider's refund.
alter table billing.refund_part add column missing_since timestamptz;
