-- Names are found by their words: an index of who has which, and a list of all words there are, in which typos are looked for. The
-- list is small where patients are many, so that a typo costs milliseconds among a million of them.

-- Both names as words: lower case, without accents and punctuation, one space between.
update patients.patient
set search_name = btrim(regexp_replace(translate(search_name, '''’ʼ`', ''), '[[:space:][:punct:]]+', ' ', 'g'))
where search_name ~ '[[:punct:]’ʼ]';

alter table patients.patient
    -- Words of the names of patients who were merged into this one.
    add also_known text not null default '',
    add words tsvector not null
        generated always as (array_to_tsvector(string_to_array(btrim(search_name || ' ' || also_known), ' '))) stored;

drop index patients.patient_search_name;
create index patient_words on patients.patient using gin (words);

-- The word, and what is left of it without any one of its letters: two words that share one of these are one typo apart, or two.
create function patients.near(word text) returns text[] language sql immutable strict parallel safe as $$
    select array_agg(distinct left(word, n - 1) || substr(word, n + 1)) || word
    from generate_series(1, char_length(word)) as n
$$;

-- Every word of any name. One that nobody has any more stays: it names nobody.
create table patients.name_word (
    word text collate "C" primary key,
    near text[] not null
);

insert into patients.name_word (word, near)
select word, patients.near(word)
from (select distinct unnest(tsvector_to_array(words)) as word from patients.patient) as present;

create index name_word_near on patients.name_word using gin (near);
create index name_word_trigrams on patients.name_word using gin (word extensions.gin_trgm_ops);
