-- Offers of freed time: who has taken one by text, and those that wait to be told, which do not queue behind other news.
create index choice_offer on notify.choice (offer_id) where offer_id is not null;

create index notice_due on notify.notice ((kind = 'MESSAGE_KIND_WAITLIST_OFFER'), next_try);
drop index notify.notice_open;
