//! A search that stays open: its answer, then what becomes free and what is taken.
//!
//! A stream keeps the starts that it has told, as bit sets. Whenever the network in memory changes, and with each minute that passes,
//! it searches again and tells the difference, so a reader who skips states misses nothing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use kit::clock::Clock;
use kit::fields::timestamp;
use kit::ids::ProviderId;
use kit::watch::{Ending, Seat, Teller};
use proto::clinic::scheduling::v1 as wire;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::codegen::BoxStream;

use super::availability::encode_slot;
use crate::DOMAIN;
use crate::domain::network::Network;
use crate::domain::search::{Query, Search, Slot, Starts};
use crate::domain::span::{Minute, minute};
use crate::error::Error;
use crate::mirror::View;

/// How often the clock is looked at while nothing is heard of the network, as when the database is away.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(1);
/// Slots that an open search may have.
const MAX_SLOTS: usize = 20_000;
/// Slots of one message, freed and taken counted apart.
const MESSAGE_SLOTS: usize = 500;

/// What a stream yields.
pub(crate) type Changes = BoxStream<wire::WatchAvailabilityResponse>;

/// An open search and what was told of it.
pub(super) struct Watch {
    clock: Clock,
    views: watch::Receiver<View>,
    query: Query,
    asked: DateTime<Utc>,
    /// What was searched last, and the minute that it was then.
    seen: (Arc<Network>, Minute),
    told: Starts,
    /// The length of the visits that were told.
    visit_minutes: i32,
    first: Vec<wire::WatchAvailabilityResponse>,
}

impl Watch {
    /// Searches the newest of `views` for the first time.
    pub(super) fn open(
        clock: Clock,
        mut views: watch::Receiver<View>,
        query: Query,
        now: DateTime<Utc>,
    ) -> Result<Self, Error> {
        let view = views.borrow_and_update().clone();
        let search = Search::new(&view.network, &query, now)?;
        let told = search.starts();
        if told.count() > MAX_SLOTS {
            return Err(Error::TooManySlots { found: told.count(), most: MAX_SLOTS });
        }
        let mut first = messages(&view, &search, &told.without(&Starts::default()), &[]);
        let versions = search.calendar_versions().into_iter().map(|(id, v)| (id.to_string(), v));
        first[0].calendar_versions = versions.collect();
        let visit_minutes = search.visit_minutes();
        let seen = (view.network.clone(), minute(now));
        Ok(Self { clock, views, query, asked: now, seen, told, visit_minutes, first })
    }

    /// The stream. It ends when its reader goes, falls behind, or `stop`.
    pub(super) fn follow(self, stop: CancellationToken, seat: Seat) -> Changes {
        kit::watch::open(DOMAIN, seat, stop, async |teller| match self.tell(&teller).await {
            Ok(never) => match never {},
            Err(ending) => ending,
        })
    }

    /// Tells what is found until it cannot go on.
    async fn tell(mut self, teller: &Teller<wire::WatchAvailabilityResponse>) -> Result<Infallible, Ending> {
        let mut pending = std::mem::take(&mut self.first);
        loop {
            for message in pending {
                teller.tell(message).await?;
            }
            let view = loop {
                tokio::select! {
                    changed = self.views.changed() => changed.map_err(|_| Ending::Stopped)?,
                    () = tokio::time::sleep(LOOK_AT_CLOCK) => {}
                }
                let view = self.views.borrow_and_update().clone();
                let now = minute(self.clock.now());
                if !Arc::ptr_eq(&view.network, &self.seen.0) || now != self.seen.1 {
                    self.seen = (view.network.clone(), now);
                    break view;
                }
            };
            pending = self.increment(&view).map_err(|error| Ending::With(Box::new(error.into())))?;
        }
    }

    fn increment(&mut self, view: &View) -> Result<Vec<wire::WatchAvailabilityResponse>, Error> {
        let search = Search::following(&view.network, &self.query, self.asked, self.clock.now())?;
        let starts = search.starts();
        let nothing = Starts::default();
        // Visits of another length are other slots, wherever they start.
        let same_length = search.visit_minutes() == self.visit_minutes;
        let (before, after) = if same_length { (&self.told, &starts) } else { (&nothing, &nothing) };
        let (added, removed) = (starts.without(before), self.told.without(after));
        self.visit_minutes = search.visit_minutes();
        self.told = starts;
        let nothing_new = added.is_empty() && removed.is_empty();
        Ok(if nothing_new { vec![] } else { messages(view, &search, &added, &removed) })
    }
}

/// What was found, in messages of bounded length; at least one, and the last is complete.
fn messages(
    view: &View,
    search: &Search<'_>,
    added: &[Slot],
    removed: &[Slot],
) -> Vec<wire::WatchAvailabilityResponse> {
    // All that is taken comes before anything that is freed: a visit of another length may be both.
    let taken = removed.len().div_ceil(MESSAGE_SLOTS);
    let before_added = taken.saturating_sub(1);
    let count = taken.max(before_added + added.len().div_ceil(MESSAGE_SLOTS)).max(1);
    let part = |slots: &[Slot], n: Option<usize>| {
        n.and_then(|n| slots.chunks(MESSAGE_SLOTS).nth(n)).unwrap_or_default().to_vec()
    };
    let version = |id: ProviderId| Some((id.to_string(), view.network.member(id)?.calendar.version));
    let message = |n: usize| {
        let (added, removed) = (part(added, n.checked_sub(before_added)), part(removed, Some(n)));
        let providers = added.iter().chain(&removed).map(|slot| slot.provider_id);
        let encode = |slots: Vec<Slot>| slots.into_iter().map(|slot| encode_slot(search, slot)).collect();
        wire::WatchAvailabilityResponse {
            calendar_versions: providers.filter_map(version).collect(),
            added: encode(added),
            removed: encode(removed),
            as_of: Some(timestamp(view.as_of)),
            complete: n + 1 == count,
        }
    };
    (0..count).map(message).collect()
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use futures::StreamExt as _;
    use kit::clock::Offset;
    use kit::ids::{ClinicId, RoomId, ServiceTypeId, WeeklyTemplateId};
    use kit::watch::Seats;
    use tonic::Status;
    use uuid::Uuid;

    use super::*;
    use crate::domain::calendar::WeeklyTemplate;
    use crate::domain::catalog::{Clinic, OpeningHours, Provider, Room, ServiceType};
    use crate::domain::network::{Calendar, Catalog};
    use crate::domain::rule::Rule;
    use crate::domain::span::instant;

    const ID: Uuid = Uuid::max();

    /// One of everything; the provider works every day from 09:00 to `until` o'clock UTC.
    fn network(now: DateTime<Utc>, until: u16) -> Network {
        let clinic = Clinic {
            id: ID.into(),
            name: String::new(),
            time_zone: chrono_tz::UTC,
            opening_hours: (1..=7).map(|day| OpeningHours { day, open: 0, close: 1_440 }).collect(),
            phone: String::new(),
            address: String::new(),
            retired: false,
            version: 1,
        };
        let (clinic_id, name, features) = (clinic.id, String::new(), vec![]);
        let room = Room { id: RoomId::from(ID), clinic_id, name, features, retired: false, version: 1 };
        let provider = Provider {
            id: ID.into(),
            name: String::new(),
            specialty: String::new(),
            languages: vec![],
            service_type_ids: vec![],
            retired: false,
            version: 1,
            calendar_version: 1,
        };
        let service = ServiceType {
            id: ID.into(),
            name: String::new(),
            description: String::new(),
            duration_minutes: 30,
            buffer_before_minutes: 0,
            buffer_after_minutes: 0,
            step_minutes: 0,
            minimum_notice_minutes: 0,
            booking_horizon_days: 30,
            room_features: vec![],
            intake_form_id: None,
            copay_required: false,
            retired: false,
            version: 1,
        };
        let template = WeeklyTemplate {
            id: WeeklyTemplateId::from(ID),
            provider_id: provider.id,
            clinic_id,
            rule: Rule::parse("DTSTART;TZID=UTC:20250101T090000\nRRULE:FREQ=DAILY").unwrap(),
            start_minute: 9 * 60,
            end_minute: until * 60,
            first_date: None,
            last_date: None,
            calendar_version: 1,
            version: 1,
        };
        let mut network = Network::new(now.date_naive());
        network.set_catalog(Catalog {
            clinics: vec![clinic],
            rooms: vec![room],
            service_types: vec![service],
            providers: vec![provider],
            blackouts: vec![],
        });
        network
            .set_calendar(ID.into(), Calendar { version: 1, templates: vec![template], exceptions: vec![] });
        network
    }

    fn tomorrow(now: DateTime<Utc>) -> Query {
        let day = Some(now.date_naive() + TimeDelta::days(1));
        Query {
            service_type: ServiceTypeId::from(ID),
            clinics: vec![],
            providers: vec![],
            first: day,
            last: day,
            from_minute: 0,
            before_minute: 1_440,
            weekdays: vec![],
            any_provider: false,
        }
    }

    /// A clock at the very beginning of a minute, so that none passes during a test.
    fn clock() -> (Clock, Offset) {
        let now = Clock::System.now();
        let offset = Offset::new(instant(minute(now)) - now);
        (Clock::Simulated(offset.clone()), offset)
    }

    /// How many slots the next message adds and removes.
    async fn told(stream: &mut Changes) -> Result<(usize, usize), Status> {
        let message = tokio::time::timeout(testkit::SOON, stream.next()).await.expect("a message soon");
        let message = message.expect("not the end")?;
        assert!(message.complete);
        Ok((message.added.len(), message.removed.len()))
    }

    #[tokio::test]
    async fn a_change_between_the_first_search_and_the_first_message_is_told() {
        let (clock, _) = clock();
        let now = clock.now();
        let (states, views) = watch::channel(View::of(network(now, 11), now));
        let watch = Watch::open(clock, views, tomorrow(now), now).unwrap();
        states.send_replace(View::of(network(now, 10), now));
        let mut stream =
            watch.follow(CancellationToken::new(), Seats::default().take("somebody", DOMAIN).unwrap());
        assert_eq!(told(&mut stream).await.unwrap(), (4, 0));
        assert_eq!(told(&mut stream).await.unwrap(), (0, 2));
        drop(states);
        assert_eq!(told(&mut stream).await.unwrap_err().code(), tonic::Code::Unavailable);
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn time_passes_even_when_nothing_is_heard_of_the_network() {
        let (clock, offset) = clock();
        let now = clock.now();
        let (_states, views) = watch::channel(View::of(network(now, 11), now));
        let watch = Watch::open(clock, views, tomorrow(now), now).unwrap();
        let mut stream =
            watch.follow(CancellationToken::new(), Seats::default().take("somebody", DOMAIN).unwrap());
        assert_eq!(told(&mut stream).await.unwrap(), (4, 0));
        offset.set(TimeDelta::days(2));
        assert_eq!(told(&mut stream).await.unwrap(), (0, 4));
    }

    #[test]
    fn all_that_is_taken_comes_before_what_is_freed_in_as_few_messages_as_will_do() {
        let now = Clock::System.now();
        let view = View::of(network(now, 11), now);
        let query = tomorrow(now);
        let search = Search::new(&view.network, &query, now).unwrap();
        let slot = |n: Minute| Slot {
            start: minute(now) / 5 * 5 + 5 * n,
            clinic_id: ClinicId::from(ID),
            provider_id: ProviderId::from(ID),
        };
        for (added, removed, expected) in [
            (0, 0, &[(0, 0)][..]),
            (500, 500, &[(500, 500)]),
            (501, 0, &[(500, 0), (1, 0)]),
            (700, 1_200, &[(0, 500), (0, 500), (500, 200), (200, 0)]),
        ] {
            let slots = |count| (0..count).map(slot).collect::<Vec<_>>();
            let told = messages(&view, &search, &slots(added), &slots(removed));
            let sizes: Vec<_> = told.iter().map(|m| (m.added.len(), m.removed.len())).collect();
            assert_eq!(sizes, expected);
            let complete: Vec<_> = told.iter().map(|m| m.complete).collect();
            assert_eq!(complete.iter().filter(|c| **c).count(), 1);
            assert_eq!(complete.last(), Some(&true));
        }
    }
}
