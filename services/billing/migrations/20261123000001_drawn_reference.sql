-- Fees name the payment they drew from: the co-pay of a patient who came after all is asked for anew, with a payment of its own.

-- The co-pay's payment ("pi_…") that took drawn_from_copay_amount; null = nothing was drawn.
alter table billing.charge add column drawn_reference text;
update billing.charge fee set drawn_reference = copay.provider_reference
from billing.charge copay
where copay.appointment_id = fee.appointment_id and copay.kind = 'COPAY' and fee.drawn_from_copay_amount > 0;

create index charge_of_drawn_payment on billing.charge (drawn_reference) where drawn_reference is not null;
