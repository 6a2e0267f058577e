-- Contact and MRN are sealed by the service, which alone has the keys, and found by keyed hashes. The columns with plain text stay
-- until every installation has sealed its rows: the service does that when it starts, before it answers, and empties them.

alter table patients.contact
    alter phone drop not null,
    alter email drop not null,
    alter language drop not null,
    alter time_zone drop not null,
    -- Phone, e-mail, language and time zone.
    add sealed bytea,
    add phone_hash bytea,
    add email_hash bytea,
    add constraint contact_sealed_or_plain check ((sealed is null) = (phone is not null));

drop index patients.contact_phone;
create index contact_phone_hash on patients.contact (phone_hash) where phone_hash is not null;
create index contact_email_hash on patients.contact (email_hash) where email_hash is not null;
-- By the number of the key, 4 bytes in front; plain rows come first.
create index contact_key on patients.contact (coalesce(substring(sealed from 1 for 4), ''::bytea));

alter table patients.patient
    alter mrn drop not null,
    add mrn_sealed bytea,
    add mrn_hash bytea constraint patient_mrn_hash_unique unique,
    add constraint patient_mrn_sealed_or_plain check ((mrn_sealed is null) = (mrn is not null)),
    add constraint patient_mrn_hashed check ((mrn_sealed is null) = (mrn_hash is null));

-- By these a service knows at its start whether it has the keys that the data was sealed with. Number 0 stands for the key of the
-- hashes.
create table patients.key_check (
    key_id bigint primary key,
    value bytea not null
);

-- Answers kept for repeated requests held contact data. Who repeats a request of before this change is refused, not served twice.
update patients.request set response = ''::bytea;
