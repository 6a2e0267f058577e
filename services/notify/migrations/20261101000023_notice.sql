-- What is to be told beside reminders: booked, moved, cancelled, a problem with a payment. Each waits here until it may be sent, then
-- becomes a message, and is gone.

create table notify.notice (
    -- The message's, once there is one.
    id uuid primary key,
    -- Names of MessageKind and Channel in the contract.
    kind text not null,
    channel text not null,
    -- Goes by e-mail where no number may be texted.
    or_email boolean not null,
    patient_id uuid not null,
    -- Whose name it carries; null = nobody's.
    clinic_id uuid,
    -- The visit, and the version that it speaks of; a newer one makes it old. Null and 0 = it does not depend on one.
    appointment_id uuid,
    appointment_version bigint not null,
    -- The charge it is about: newer news of it replace this.
    charge_id uuid,
    -- What it says beyond clinic, date and time; see `Facts` in the code.
    facts jsonb not null,
    -- Not worth telling from then on.
    expire_time timestamptz not null,
    -- When it is looked at next; also its lease.
    next_try timestamptz not null,
    tries int not null default 0,
    create_time timestamptz not null
);

create index notice_open on notify.notice (next_try);
create index notice_appointment on notify.notice (appointment_id);
create index notice_charge on notify.notice (charge_id) where charge_id is not null;

-- E-mails wait where texts wait.
alter table notify.message
    alter column reminder_id drop not null,
    alter column appointment_id drop not null,
    -- Of an e-mail.
    add column subject text not null default '',
    -- When it is looked at next; also its lease. Null = never again.
    add column if not exists next_try timestamptz,
    -- Tries that failed.
    add column if not exists tries int not null default 0;

create index message_mail on notify.message (next_try)
    where channel = 'CHANNEL_EMAIL' and state in ('MESSAGE_STATE_QUEUED', 'MESSAGE_STATE_SENDING');

-- The texts that count towards what a patient may get in a day and in a week: sent or on their way, and not answers to the patient's
-- own act.
create view notify.unasked_text as
select id, patient_id, coalesce(send_time, update_time) as moment from notify.message
where channel = 'CHANNEL_SMS'
  and state in ('MESSAGE_STATE_QUEUED', 'MESSAGE_STATE_SENDING', 'MESSAGE_STATE_UNKNOWN', 'MESSAGE_STATE_SENT',
                'MESSAGE_STATE_DELIVERED', 'MESSAGE_STATE_UNDELIVERED')
  and kind in ('MESSAGE_KIND_REMINDER_24H', 'MESSAGE_KIND_REMINDER_2H', 'MESSAGE_KIND_BOOKED', 'MESSAGE_KIND_RESCHEDULED',
               'MESSAGE_KIND_CANCELLED', 'MESSAGE_KIND_DISPLACED', 'MESSAGE_KIND_PAYMENT_PROBLEM',
               'MESSAGE_KIND_INTAKE_OPEN', 'MESSAGE_KIND_WAITLIST_OFFER', 'MESSAGE_KIND_LATE_VISIT',
               'MESSAGE_KIND_CALL_CLINIC');
