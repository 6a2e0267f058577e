-- A reconciliation voids reservations that no booked visit stands behind.
alter table billing.charge drop constraint charge_void_cause_known;
alter table billing.charge add constraint charge_void_cause_known
    check (void_cause in ('HOLD_ENDED', 'CANCELLED', 'CANCELLED_LATE', 'NO_SHOW', 'RECONCILIATION'));
