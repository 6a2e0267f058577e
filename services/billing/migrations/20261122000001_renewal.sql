-- Renewing reservations, and fees with a payment of their own.

-- When the co-pay was last learned to be reserved; null = it never was.
alter table billing.charge add column authorized_at timestamptz;
update billing.charge set authorized_at = updated_at
where kind = 'COPAY' and (authorized_amount > 0 or captured_amount > 0 or state = 'LAPSED');

-- A fee's provider_reference is its own payment, which took captured_amount - drawn_from_copay_amount; null = it has none.
-- What it drew was taken by its visit's co-pay's payment.
update billing.charge set provider_reference = null where kind = 'NO_SHOW_FEE';

-- Reservations that nobody plans to look at: made before there were renewals, or by a program from before.
create index charge_unplanned on billing.charge (appointment_id)
    where due_at is null and state in ('AUTHORIZED', 'LAPSED');
