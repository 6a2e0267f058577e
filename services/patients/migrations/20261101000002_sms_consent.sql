-- Every decision about texts. The youngest effective row is the one in force; without one nobody was asked yet.
create table patients.sms_consent (
    -- Order of recording. Rows of one patient are written under that patient's row lock.
    position bigint generated always as identity primary key,
    patient_id uuid not null constraint sms_consent_patient references patients.patient,
    -- Names of SmsConsentState and SmsConsentSource in the contract.
    state text not null,
    source text not null,
    wording text not null,
    wording_language text not null,
    decide_time timestamptz not null,
    record_time timestamptz not null,
    recorded_by text not null,
    -- False for a decision that came in after a newer one.
    effective boolean not null
);

create index sms_consent_history on patients.sms_consent (patient_id, position desc);
