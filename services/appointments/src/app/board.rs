//! A clinic's day as it changes, for the front desk.
//!
//! One task per process asks the database what changed since its last look, and hands the rows to all who watch. A look remembers
//! the snapshot it was made with (PostgreSQL's own), and the next finds the changes of exactly those transactions that were not
//! in it: whatever order they were committed in, and by whichever replica, none is missed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;
use kit::ids::{AppointmentId, ClinicId, ProviderId};
use kit::page::Page;
use kit::watch::{Ending, Teller};
use proto::clinic::appointments::v1 as pb;
use tokio::sync::{Notify, broadcast, watch};
use tonic::Status;

use super::{App, List};
use crate::domain::{Reservation, State};
use crate::error::Error;
use crate::store::{self, Filter};
use crate::wire;

/// How soon a change made by another replica is seen.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Wait before a failed look is repeated.
const RETRY: Duration = Duration::from_millis(500);
/// Looks that a watcher may lag behind before it is let go.
const LOOKS_KEPT: usize = 256;
/// Appointments of one message, and of one read of the day.
const MESSAGE: i32 = 200;

/// What changed, for those who watch.
#[derive(Clone, Debug)]
pub(crate) struct Feed(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    changes: broadcast::Sender<Arc<[Reservation]>>,
    /// Counts the looks.
    looks: watch::Sender<u64>,
    wake: Notify,
}

impl Default for Feed {
    fn default() -> Self {
        let (changes, looks) = (broadcast::Sender::new(LOOKS_KEPT), watch::Sender::new(0));
        Self(Arc::new(Shared { changes, looks, wake: Notify::new() }))
    }
}

impl Feed {
    /// Everything that is committed after this returns, and perhaps some that was before.
    async fn subscribe(&self) -> broadcast::Receiver<Arc<[Reservation]>> {
        let receiver = self.0.changes.subscribe();
        let mut looks = self.0.looks.subscribe();
        let before = *looks.borrow_and_update();
        self.0.wake.notify_one();
        // A look that had begun before we came may have been the last of those who left; the one after it is ours.
        let _ = looks.wait_for(|looks| *looks > before + 1).await;
        receiver
    }
}

/// Which day is watched.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the contract's WatchAppointmentsRequest explains each")]
pub struct Day {
    pub clinic: ClinicId,
    pub date: NaiveDate,
    pub provider: Option<ProviderId>,
}

impl Day {
    fn has(&self, row: &Reservation) -> bool {
        row.clinic_id == self.clinic
            && row.visit_date == self.date
            && self.provider.is_none_or(|provider| provider == row.provider_id)
    }
}

impl App {
    /// Looks for changes while anyone watches, until told to stop.
    pub async fn feed(self) {
        let shared = self.feed.0.clone();
        let mut last = None;
        while !self.stop.is_cancelled() {
            let pause = if shared.changes.receiver_count() == 0 {
                last = None;
                Duration::MAX
            } else {
                match self.look(last.as_deref()).await {
                    Ok((snapshot, rows)) => {
                        last = Some(snapshot);
                        if !rows.is_empty() {
                            // The last watcher may have gone meanwhile.
                            let _ = shared.changes.send(rows.into());
                        }
                        shared.looks.send_modify(|looks| *looks += 1);
                        LOOK_EVERY
                    }
                    Err(error) => {
                        tracing::debug!(%error, "changes could not be looked for");
                        RETRY
                    }
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shared.wake.notified() => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    async fn look(&self, last: Option<&str>) -> Result<(String, Vec<Reservation>), Error> {
        let mut conn = self.db.pool().acquire().await?;
        Ok(store::changed_since(&mut conn, last).await?)
    }

    /// Tells a day: everything on it, then each change.
    pub(crate) async fn tell_day(self, day: Day, teller: Teller<pb::WatchAppointmentsResponse>) -> Ending {
        match self.follow_day(day, &teller).await {
            Ok(ending) | Err(Told::Ending(ending)) => ending,
            Err(Told::Failed(error)) => Ending::With(Box::new(Status::from(error))),
        }
    }

    async fn follow_day(
        &self,
        day: Day,
        teller: &Teller<pb::WatchAppointmentsResponse>,
    ) -> Result<Ending, Told> {
        let mut changes = self.feed.subscribe().await;
        let mut known: HashMap<AppointmentId, i64> = HashMap::new();
        let mut page_token = String::new();
        loop {
            let filter = Filter {
                clinic: Some(day.clinic),
                date: Some(day.date),
                provider: day.provider,
                states: State::ALL.to_vec(),
                ..Filter::default()
            };
            let page = Page::parse(MESSAGE, &page_token).map_err(Error::from)?;
            let (rows, next) = self.list(&List { filter, latest_first: false, page }).await?;
            known.extend(rows.iter().map(|row| (row.id, row.version)));
            teller
                .tell(pb::WatchAppointmentsResponse {
                    appointments: rows.iter().map(wire::appointment).collect(),
                    removed_appointment_ids: vec![],
                    snapshot_complete: next.is_empty(),
                })
                .await?;
            if next.is_empty() {
                break;
            }
            page_token = next;
        }
        loop {
            let rows = match changes.recv().await {
                Ok(rows) => rows,
                Err(broadcast::error::RecvError::Lagged(_)) => return Ok(Ending::TooSlow),
                Err(broadcast::error::RecvError::Closed) => return Ok(Ending::Stopped),
            };
            let mut message = pb::WatchAppointmentsResponse { snapshot_complete: true, ..Default::default() };
            for row in rows.iter() {
                if !day.has(row) {
                    message.removed_appointment_ids.extend(known.remove(&row.id).map(|_| row.id.to_string()));
                } else if known.insert(row.id, row.version).is_none_or(|version| version < row.version) {
                    message.appointments.push(wire::appointment(row));
                }
            }
            if !message.appointments.is_empty() || !message.removed_appointment_ids.is_empty() {
                teller.tell(message).await?;
            }
        }
    }
}

/// What ends a stream early.
enum Told {
    Ending(Ending),
    Failed(Error),
}

impl From<Ending> for Told {
    fn from(ending: Ending) -> Self {
        Self::Ending(ending)
    }
}

impl From<Error> for Told {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}
