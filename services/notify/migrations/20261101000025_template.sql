-- Words that somebody set in place of the built-in ones.
create table notify.template (
    -- Names of MessageKind and Channel in the contract.
    kind text not null,
    channel text not null,
    -- BCP 47, language in lower case.
    language text not null,
    subject text not null,
    -- Empty = back to the built-in words. The row stays, so that its version goes on counting.
    body text not null,
    version int not null,
    update_time timestamptz not null,
    -- The caller's subject.
    updated_by text not null,
    primary key (kind, channel, language)
);
