-- Fees that were reversed are few, and each reconciliation looks whether all of them could be given back.
create index visit_reversed on billing.visit (appointment_id) where fee_reversed;
