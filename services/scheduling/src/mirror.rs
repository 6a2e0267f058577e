//! The network in memory, by which searches are answered without the database; every replica keeps its own.
//!
//! It follows counters, not events. Whoever changes a calendar raises that provider's version in the same transaction, under the
//! row's lock; whoever changes the catalog raises the catalog's; changes to busy time are numbered one after the other. Writers of
//! one counter thus commit in the order of its values, and a reader who sees value n sees every change up to n: nothing that
//! commits late can hide behind a position already passed, as it can on a plain sequence or a stream. A replica compares the
//! counters (one row, every [`POLL`] and at once after a change made in this process) and reads only what differs, in one
//! snapshot with them. It needs no broker, no leader, no memory of its own, and any number of replicas do the same without
//! knowing of each other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use kit::clock::Clock;
use kit::db::Db;
use kit::ids::ProviderId;
use sqlx::PgConnection;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::domain::network::{Calendar, Catalog, Network};
use crate::store::busy::Change;
use crate::store::{self, Counters};

/// How soon a change made by another replica is seen.
const POLL: Duration = Duration::from_millis(100);
/// Looks are at least so far apart: under load one brings many changes.
const PACE: Duration = Duration::from_millis(50);
/// Wait before a failed look is repeated.
const RETRY: Duration = Duration::from_millis(500);
/// Time that passed longer ago than this is not kept in memory.
pub const PAST: TimeDelta = TimeDelta::days(3);
/// Rows read in one list that has no other bound.
const EVERYTHING: i64 = i64::MAX;

/// One consistent state.
#[derive(Clone, Debug)]
pub struct View {
    /// The network.
    pub network: Arc<Network>,
    /// Every change committed before this instant is in it.
    pub as_of: DateTime<Utc>,
    seen: Arc<Seen>,
}

impl View {
    /// A state that was never stored.
    #[cfg(test)]
    pub(crate) fn of(network: Network, as_of: DateTime<Utc>) -> Self {
        Self { network: Arc::new(network), as_of, seen: Arc::default() }
    }

    /// The state as the transaction of `db` sees it, its own changes included. Busy time may be a moment older.
    pub async fn within(&self, db: &mut PgConnection) -> sqlx::Result<Self> {
        let counters = Counters { busy: self.seen.counters.busy, ..store::counters(&mut *db).await? };
        if counters == self.seen.counters {
            return Ok(self.clone());
        }
        let (seen, changes) = read(db, &self.seen, counters, self.as_of).await?;
        let mut network = Network::clone(&self.network);
        changes.apply(&mut network);
        Ok(Self { network: Arc::new(network), as_of: self.as_of, seen: Arc::new(seen) })
    }
}

/// The state that requests read and the follower replaces.
#[derive(Clone, Debug)]
pub struct Mirror {
    view: watch::Receiver<View>,
    look: Arc<Notify>,
}

impl Mirror {
    /// The newest state.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Every state from now on, the newest first; states that nobody waited for are skipped.
    pub fn views(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// Something was committed in this process: look now.
    pub fn wake(&self) {
        self.look.notify_one();
    }

    /// Waits until everything committed before `instant` is in memory, so that who changes the network finds the change in the
    /// next search. Gives up after a moment: the change stands, and memory follows. Answers the state, if it came.
    pub async fn caught_up(&self, instant: DateTime<Utc>) -> Option<View> {
        const PATIENCE: Duration = Duration::from_secs(2);
        let mut views = self.views();
        self.wake();
        let caught_up = views.wait_for(|view| view.as_of >= instant);
        let view = tokio::time::timeout(PATIENCE, caught_up).await.ok()?.ok()?;
        Some(view.clone())
    }
}

/// Keeps a [`Mirror`] up to date.
#[derive(Debug)]
pub struct Follower {
    db: Db,
    clock: Clock,
    view: watch::Sender<View>,
    look: Arc<Notify>,
}

/// What is in memory.
#[derive(Debug, Default)]
struct Seen {
    counters: Counters,
    calendars: HashMap<ProviderId, i64>,
}

/// What was read again because a counter differed.
#[derive(Debug, Default)]
struct Changes {
    catalog: Option<Catalog>,
    calendars: HashMap<ProviderId, Calendar>,
    busy: Vec<Change>,
}

impl Follower {
    /// Reads everything once, waiting for the database as long as it takes; `None` when told to stop before.
    pub async fn start(db: Db, clock: Clock, stop: &CancellationToken) -> Option<Self> {
        let now = clock.now();
        let view =
            View { network: Arc::new(Network::new(now.date_naive())), as_of: now, seen: Arc::default() };
        let (view, look) = (watch::Sender::new(view), Arc::new(Notify::new()));
        let follower = Self { db, clock, view, look };
        while let Err(error) = stop.run_until_cancelled(follower.refresh()).await? {
            tracing::warn!(error = format!("{error:#}"), "the calendars could not be read yet");
            stop.run_until_cancelled(tokio::time::sleep(RETRY)).await?;
        }
        Some(follower)
    }

    /// What it keeps.
    pub fn mirror(&self) -> Mirror {
        Mirror { view: self.view.subscribe(), look: self.look.clone() }
    }

    /// Follows until `stop`. While the database is away the last state stays, and its `as_of` says so.
    pub async fn run(self, stop: CancellationToken) {
        let mut lost = false;
        while !stop.is_cancelled() {
            let pause = match stop.run_until_cancelled(self.refresh()).await {
                None => return,
                Some(Ok(())) => {
                    lost = false;
                    POLL
                }
                Some(Err(error)) => {
                    if !std::mem::replace(&mut lost, true) {
                        tracing::warn!(
                            error = format!("{error:#}"),
                            "searches are answered from the last known state"
                        );
                    }
                    RETRY
                }
            };
            let woken = async { tokio::join!(self.look.notified(), tokio::time::sleep(PACE)) };
            tokio::select! {
                _ = woken => {}
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    async fn refresh(&self) -> anyhow::Result<()> {
        let as_of = self.clock.now();
        let today = as_of.date_naive();
        let View { mut network, mut seen, .. } = self.view.borrow().clone();
        let counters = store::counters(self.db.pool()).await?;
        if seen.counters != counters || network.is_outrun(today) {
            let mut tx = self.db.begin().await?;
            let snapshot = "set transaction isolation level repeatable read, read only";
            sqlx::query(snapshot).execute(&mut *tx).await?;
            let counters = store::counters(&mut *tx).await?;
            let (now_seen, changes) = read(&mut tx, &seen, counters, as_of).await?;
            tx.commit().await?;
            seen = Arc::new(now_seen);
            // Expanding calendars takes a while in a large network; the tasks of this thread need not wait.
            network = tokio::task::spawn_blocking(move || {
                let outrun = network.is_outrun(today);
                let mut next = if outrun { network.rolled(today) } else { Network::clone(&network) };
                changes.apply(&mut next);
                Arc::new(next)
            })
            .await?;
        }
        self.view.send_replace(View { network, as_of, seen });
        Ok(())
    }
}

/// Whatever differs from what was seen, now that the counters are these.
async fn read(
    db: &mut PgConnection,
    seen: &Seen,
    counters: Counters,
    now: DateTime<Utc>,
) -> sqlx::Result<(Seen, Changes)> {
    let since = now - PAST;
    let mut changes = Changes::default();
    if counters.catalog != seen.counters.catalog {
        let list = store::catalog::List { after: None, limit: EVERYTHING, retired: true };
        let blackouts = store::calendar::blackouts(&mut *db, None, None, None, EVERYTHING).await?;
        changes.catalog = Some(Catalog {
            clinics: store::catalog::clinics(&mut *db, list).await?,
            rooms: store::catalog::rooms(&mut *db, list, None).await?,
            service_types: store::catalog::service_types(&mut *db, list).await?,
            providers: store::catalog::providers(&mut *db, list, None, None).await?,
            blackouts: blackouts.into_iter().map(|(_, blackout)| blackout).collect(),
        });
    }
    let mut calendars = seen.calendars.clone();
    if counters.calendars != seen.counters.calendars {
        for (id, version) in store::calendar_versions(&mut *db).await? {
            if calendars.insert(id, version) != Some(version) {
                changes.calendars.insert(id, Calendar { version, ..Calendar::default() });
            }
        }
        let ids: Vec<_> = changes.calendars.keys().copied().collect();
        for template in store::calendar::templates_of(&mut *db, &ids).await? {
            changes.calendars.entry(template.provider_id).or_default().templates.push(template);
        }
        for exception in store::calendar::exceptions_of(&mut *db, &ids, since).await? {
            changes.calendars.entry(exception.provider_id).or_default().exceptions.push(exception);
        }
    }
    if counters.busy != seen.counters.busy {
        changes.busy = match seen.counters.busy {
            0 => store::busy::taken(&mut *db, since).await?,
            busy => store::busy::changes(&mut *db, busy).await?,
        };
    }
    Ok((Seen { counters, calendars }, changes))
}

impl Changes {
    fn apply(self, network: &mut Network) {
        if let Some(catalog) = self.catalog {
            network.set_catalog(catalog);
        }
        for (provider, calendar) in self.calendars {
            network.set_calendar(provider, calendar);
        }
        network.take_busy(self.busy);
    }
}
