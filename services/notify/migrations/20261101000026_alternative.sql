-- What a digit that moves a displaced visit stands for, so that it can be done.
alter table notify.choice
    add column provider_id uuid,
    add column start_time timestamptz,
    add constraint choice_alternative check ((provider_id is null) = (start_time is null));
