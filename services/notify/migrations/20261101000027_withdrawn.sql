-- Texts that were refused because their recipient had opted out at the provider, until patients has heard of it.
create index message_withdrawn on notify.message (next_try)
    where failure_reason = 'FAILURE_REASON_OPTED_OUT' and next_try is not null;
