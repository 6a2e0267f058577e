-- Who the patients are. Contact data stands in a table of its own: it alone says how to reach them.

-- MRNs that the network assigns by itself.
create sequence patients.mrn_number;

create table patients.patient (
    id uuid primary key,
    mrn text not null constraint patient_mrn_unique unique
        constraint patient_mrn_shape check (mrn ~ '^[A-Z0-9-]{1,32}$'),
    given_name text not null constraint patient_given_name_present check (given_name <> ''),
    family_name text not null,
    -- Both names as they are compared: lower case, without accents, one space between words.
    search_name text not null,
    birth_date date not null,
    -- Counts PatientChanged and SmsConsentChanged together; it is the etag too.
    version bigint not null default 1,
    create_time timestamptz not null,
    update_time timestamptz not null
);

-- Names with typos, by trigrams.
create index patient_search_name on patients.patient using gin (search_name extensions.gin_trgm_ops);
create index patient_birth_date on patients.patient (birth_date, search_name);

create table patients.contact (
    patient_id uuid primary key constraint contact_patient references patients.patient,
    -- E.164; empty = none. Several patients may share one.
    phone text not null,
    email text not null,
    -- BCP 47; empty = the network's default.
    language text not null,
    -- IANA name; empty = that of the visit's clinic.
    time_zone text not null
);

create index contact_phone on patients.contact (phone) where phone <> '';
