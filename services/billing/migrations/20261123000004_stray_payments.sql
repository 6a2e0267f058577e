-- A payment whose answer nobody waited for is ended when the provider tells of it.

-- The charge that the payment says it was made for; null = it does not say.
alter table billing.webhook_event add column charge_id uuid;
-- No charge had the payment as its newest when the event was applied: it is looked into by itself.
alter table billing.webhook_event add column stray boolean not null default false;
