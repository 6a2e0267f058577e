-- A search reads a slice of the patients at a time and stops when its page is full: a name that thousands bear costs no more than
-- one that a hundred bear. What may be the beginning of very many words is looked up as a word of its own.

-- What a patient is found by: each word of the names; its first letter, two and three, after a ^; and the patient's slice, one of
-- 256 by the last byte of the id, after a #. Words have neither sign.
create function patients.entries(names text, id uuid) returns tsvector language sql immutable strict parallel safe as $$
    select array_to_tsvector(array_remove(string_to_array(
        names
        || regexp_replace(' ' || names, ' +(\S)\S*', ' ^\1', 'g')
        || regexp_replace(' ' || names, ' +(\S{1,2})\S*', ' ^\1', 'g')
        || regexp_replace(' ' || names, ' +(\S{1,3})\S*', ' ^\1', 'g')
        || ' #' || to_hex(get_byte(uuid_send(id), 15)), ' '), ''))
$$;

alter table patients.patient
    alter words set expression as (patients.entries(search_name || ' ' || also_known, id));
