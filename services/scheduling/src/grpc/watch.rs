//! A search that stays open: its answer, then what becomes free and what is taken.
//!
//! A stream keeps the starts that it has told, as bit sets. Whenever the network in memory changes, and with each minute that passes,
//! it searches again and tells the difference, so a reader who skips states misses nothing. One message waits at most for a
//! reader; who does not take it for [`PATIENCE`] is told so and let go.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use kit::clock::Clock;
use kit::fields::timestamp;
use proto::clinic::scheduling::v1 as wire;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::codegen::BoxStream;

use super::availability::encode_slot;
use crate::app::App;
use crate::domain::search::{Query, Search, Slot, Starts};
use crate::domain::span::minute;
use crate::error::Error;
use crate::mirror::View;

/// How long a message waits for its reader.
const PATIENCE: Duration = Duration::from_secs(5);
/// Slots that an open search may have.
const MAX_SLOTS: usize = 20_000;
/// Slots of one message, freed and taken counted apart.
const MESSAGE_SLOTS: usize = 500;
/// Streams that may be open.
const MAX_STREAMS: usize = 1_000;
/// Streams of one caller that may be open.
const MAX_STREAMS_OF_CALLER: usize = 50;

/// What a stream yields.
pub(crate) type Changes = BoxStream<wire::WatchAvailabilityResponse>;

/// Who watches, by caller.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seats(Arc<Mutex<HashMap<String, usize>>>);

/// A place among those who watch, given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Seats,
    caller: String,
}

impl Seats {
    /// Takes a place for `caller`.
    pub(super) fn take(&self, caller: &str) -> Result<Seat, Error> {
        let mut taken = self.0.lock().expect("no panic while the lock is held");
        let all: usize = taken.values().sum();
        let own = taken.entry(caller.to_owned()).or_default();
        if all >= MAX_STREAMS || *own >= MAX_STREAMS_OF_CALLER {
            return Err(Error::TooManyStreams);
        }
        *own += 1;
        Ok(Seat { seats: self.clone(), caller: caller.to_owned() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().expect("no panic while the lock is held");
        if let Some(own) = taken.get_mut(&self.caller) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.caller);
            }
        }
    }
}

/// An open search and what was told of it.
pub(super) struct Watch {
    clock: Clock,
    views: watch::Receiver<View>,
    query: Query,
    asked: DateTime<Utc>,
    told: Starts,
    first: Vec<wire::WatchAvailabilityResponse>,
}

impl Watch {
    /// Searches for the first time.
    pub(super) fn open(app: &App, query: Query, now: DateTime<Utc>) -> Result<Self, Error> {
        let views = app.mirror.views();
        let mut watch = Self {
            clock: app.clock.clone(),
            views,
            query,
            asked: now,
            told: Starts::default(),
            first: vec![],
        };
        let view = watch.views.borrow_and_update().clone();
        let search = Search::new(&view.network, &watch.query, now)?;
        let starts = search.starts();
        if starts.count() > MAX_SLOTS {
            return Err(Error::TooManySlots { found: starts.count(), most: MAX_SLOTS });
        }
        watch.first = messages(&search, &starts.without(&watch.told), &[], view.as_of);
        let versions = search.calendar_versions().into_iter().map(|(id, v)| (id.to_string(), v));
        watch.first[0].calendar_versions = versions.collect();
        watch.told = starts;
        Ok(watch)
    }

    /// The stream. It ends when its reader goes, falls behind, or `stop`.
    pub(super) fn follow(mut self, stop: CancellationToken, seat: Seat) -> Changes {
        let (sender, receiver) = mpsc::channel(1);
        let (end, ended) = oneshot::channel();
        tokio::spawn(async move {
            let _seat = seat;
            let ending = tokio::select! {
                ending = self.tell(&sender) => ending,
                () = stop.cancelled() => Some(Error::WatchEnded),
            };
            // Nobody listens any more when the reader has gone.
            let _ = end.send(ending);
        });
        let messages = tokio_stream::wrappers::ReceiverStream::new(receiver).map(Ok);
        let ending = futures::stream::once(ended)
            .filter_map(async |ending| ending.ok().flatten().map(|error| Err(Status::from(error))));
        Box::pin(messages.chain(ending))
    }

    /// Tells what is found until the reader goes (`None`) or it cannot go on.
    async fn tell(&mut self, sender: &mpsc::Sender<wire::WatchAvailabilityResponse>) -> Option<Error> {
        let mut pending = std::mem::take(&mut self.first);
        let mut seen = (self.views.borrow().network.clone(), minute(self.asked));
        loop {
            for message in pending {
                match sender.send_timeout(message, PATIENCE).await {
                    Ok(()) => {}
                    Err(mpsc::error::SendTimeoutError::Timeout(_)) => return Some(Error::ReaderTooSlow),
                    Err(mpsc::error::SendTimeoutError::Closed(_)) => return None,
                }
            }
            let view = loop {
                tokio::select! {
                    changed = self.views.changed() => if changed.is_err() { return Some(Error::WatchEnded) },
                    () = sender.closed() => return None,
                }
                let view = self.views.borrow_and_update().clone();
                let now = minute(self.clock.now());
                if !Arc::ptr_eq(&view.network, &seen.0) || now != seen.1 {
                    seen = (view.network.clone(), now);
                    break view;
                }
            };
            pending = match self.increment(&view) {
                Ok(messages) => messages,
                Err(error) => return Some(error),
            };
        }
    }

    fn increment(&mut self, view: &View) -> Result<Vec<wire::WatchAvailabilityResponse>, Error> {
        let search = Search::following(&view.network, &self.query, self.asked, self.clock.now())?;
        let starts = search.starts();
        let (added, removed) = (starts.without(&self.told), self.told.without(&starts));
        if added.is_empty() && removed.is_empty() {
            return Ok(vec![]);
        }
        let messages = messages(&search, &added, &removed, view.as_of);
        self.told = starts;
        Ok(messages)
    }
}

/// What was found, in messages of bounded length; at least one, and the last is complete.
fn messages(
    search: &Search<'_>,
    added: &[Slot],
    removed: &[Slot],
    as_of: DateTime<Utc>,
) -> Vec<wire::WatchAvailabilityResponse> {
    let versions = search.calendar_versions();
    let count = added.len().max(removed.len()).div_ceil(MESSAGE_SLOTS).max(1);
    // What is taken is told before what is freed, whatever the messages it comes in: a slot is never both.
    let part = |slots: &[Slot], n: usize| slots.chunks(MESSAGE_SLOTS).nth(n).unwrap_or_default().to_vec();
    let message = |n: usize| {
        let (added, removed) = (part(added, n), part(removed, n));
        let providers = added.iter().chain(&removed).map(|slot| slot.provider_id);
        let versions = providers.filter_map(|id| Some((id.to_string(), *versions.get(&id)?)));
        let encode = |slots: Vec<Slot>| slots.into_iter().map(|slot| encode_slot(search, slot)).collect();
        wire::WatchAvailabilityResponse {
            calendar_versions: versions.collect(),
            added: encode(added),
            removed: encode(removed),
            as_of: Some(timestamp(as_of)),
            complete: n + 1 == count,
        }
    };
    (0..count).map(message).collect()
}
