//! The network in memory, by which searches are answered without the database; every replica keeps its own.
//!
//! It follows counters, not events. Whoever changes a provider's calendar or busy time raises that provider's counter in the
//! same transaction, under the counter's row lock; whoever changes the catalog raises the catalog's. Writers of one counter thus
//! commit in the order of its values, and a reader who sees value n sees every change up to n: nothing that commits late can
//! hide behind a position already passed, as it can on a sequence or a stream. A replica compares all counters (one query, every
//! [`POLL`] and at once after a change made in this process) and reads again only what differs, in one snapshot with the
//! counters. It needs no broker, no leader, no memory of its own, and any number of replicas do the same without knowing of each
//! other.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use kit::clock::Clock;
use kit::db::Db;
use kit::ids::ProviderId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::domain::network::{Busy, Calendar, Catalog, Network};
use crate::store::{self, Counters};

/// How soon a change made by another replica is seen.
const POLL: Duration = Duration::from_millis(100);
/// Wait before a failed look is repeated.
const RETRY: Duration = Duration::from_millis(500);
/// Time that passed longer ago than this is not kept in memory.
const PAST: TimeDelta = TimeDelta::days(3);
/// Rows read in one list that has no other bound.
const EVERYTHING: i64 = i64::MAX;

/// One consistent state.
#[derive(Clone, Debug)]
pub struct View {
    /// The network.
    pub network: Arc<Network>,
    /// Every change committed before this instant is in it.
    pub as_of: DateTime<Utc>,
}

/// The state that requests read and the follower replaces.
#[derive(Clone, Debug)]
pub struct Mirror(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    view: RwLock<View>,
    changed: Notify,
    refreshed: Notify,
}

impl Mirror {
    /// The newest state.
    pub fn view(&self) -> View {
        self.0.view.read().expect("no panic while the lock is held").clone()
    }

    /// Something was committed in this process: look now.
    pub fn wake(&self) {
        self.0.changed.notify_one();
    }

    /// Waits until everything committed before `instant` is in memory, so that who changes the network finds the change in the
    /// next search. Gives up after a moment: the change stands, and memory follows.
    pub async fn caught_up(&self, instant: DateTime<Utc>) {
        const PATIENCE: Duration = Duration::from_secs(2);
        let waiting = async {
            loop {
                let refreshed = self.0.refreshed.notified();
                if self.view().as_of >= instant {
                    return;
                }
                self.wake();
                refreshed.await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            tracing::debug!("a change is not in memory yet");
        }
    }
}

/// Keeps a [`Mirror`] up to date.
#[derive(Debug)]
pub struct Follower {
    db: Db,
    clock: Clock,
    mirror: Mirror,
    seen: Seen,
}

/// The counters of what is in memory.
#[derive(Debug, Default)]
struct Seen {
    catalog: i64,
    providers: HashMap<ProviderId, (i64, i64)>,
}

/// What was read again because its counter differed.
#[derive(Debug, Default)]
struct Changes {
    catalog: Option<Catalog>,
    calendars: HashMap<ProviderId, Calendar>,
    busy: HashMap<ProviderId, Vec<Busy>>,
}

impl Follower {
    /// Reads everything once, waiting for the database as long as it takes; `None` when told to stop before.
    pub async fn start(db: Db, clock: Clock, stop: &CancellationToken) -> Option<Self> {
        let now = clock.now();
        let view = View { network: Arc::new(Network::new(now.date_naive())), as_of: now };
        let mirror = Mirror(Arc::new(Shared {
            view: RwLock::new(view),
            changed: Notify::new(),
            refreshed: Notify::new(),
        }));
        let mut follower = Self { db, clock, mirror, seen: Seen::default() };
        while let Err(error) = stop.run_until_cancelled(follower.refresh()).await? {
            tracing::warn!(error = format!("{error:#}"), "the calendars could not be read yet");
            stop.run_until_cancelled(tokio::time::sleep(RETRY)).await?;
        }
        Some(follower)
    }

    /// What it keeps.
    pub fn mirror(&self) -> Mirror {
        self.mirror.clone()
    }

    /// Follows until `stop`. While the database is away the last state stays, and its `as_of` says so.
    pub async fn run(mut self, stop: CancellationToken) {
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
            tokio::select! {
                () = self.mirror.0.changed.notified() => {}
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    async fn refresh(&mut self) -> anyhow::Result<()> {
        let as_of = self.clock.now();
        let today = as_of.date_naive();
        let mut network = self.mirror.view().network;
        let counters = store::counters(self.db.pool()).await?;
        if self.seen.differs(&counters) || network.is_of_another_day(today) {
            let (counters, changes) = self.read(as_of).await?;
            // Expanding every calendar takes a while in a large network; the tasks of this thread need not wait.
            network = tokio::task::spawn_blocking(move || {
                let mut next = Network::clone(&network);
                if changes.catalog.is_some() || next.is_of_another_day(today) {
                    next.rebuild(today, changes.catalog);
                }
                for (provider, calendar) in changes.calendars {
                    next.set_calendar(provider, calendar);
                }
                for (provider, busy) in changes.busy {
                    next.set_busy(provider, busy);
                }
                Arc::new(next)
            })
            .await?;
            self.seen.take(&counters);
        }
        *self.mirror.0.view.write().expect("no panic while the lock is held") = View { network, as_of };
        self.mirror.0.refreshed.notify_waiters();
        Ok(())
    }

    /// Counters, and whatever differs by them, from one snapshot.
    async fn read(&self, now: DateTime<Utc>) -> sqlx::Result<(Counters, Changes)> {
        let mut tx = self.db.begin().await?;
        sqlx::query("set transaction isolation level repeatable read, read only").execute(&mut *tx).await?;
        let counters = store::counters(&mut *tx).await?;
        let since = now - PAST;
        let mut changes = Changes::default();
        if counters.catalog != self.seen.catalog {
            let list = store::catalog::List { after: None, limit: EVERYTHING, retired: true };
            let blackouts = store::calendar::blackouts(&mut tx, None, None, None, EVERYTHING).await?;
            changes.catalog = Some(Catalog {
                clinics: store::catalog::clinics(&mut *tx, list).await?,
                rooms: store::catalog::rooms(&mut *tx, list, None).await?,
                service_types: store::catalog::service_types(&mut *tx, list).await?,
                providers: store::catalog::providers(&mut *tx, list, None, None).await?,
                blackouts: blackouts.into_iter().map(|(_, blackout)| blackout).collect(),
            });
        }
        let of = |id: &ProviderId| self.seen.providers.get(id).copied().unwrap_or_default();
        let stale = counters.providers.iter().filter(|(id, version, _)| of(id).0 != *version);
        changes.calendars = stale
            .map(|(id, version, _)| (*id, Calendar { version: *version, ..Calendar::default() }))
            .collect();
        let ids: Vec<_> = changes.calendars.keys().copied().collect();
        for template in store::calendar::templates_of(&mut *tx, &ids).await? {
            changes.calendars.entry(template.provider_id).or_default().templates.push(template);
        }
        for exception in store::calendar::exceptions_of(&mut *tx, &ids, since).await? {
            changes.calendars.entry(exception.provider_id).or_default().exceptions.push(exception);
        }
        let stale = counters.providers.iter().filter(|(id, _, version)| of(id).1 != *version);
        changes.busy = stale.map(|(id, ..)| (*id, vec![])).collect();
        let ids: Vec<_> = changes.busy.keys().copied().collect();
        for (provider, busy) in store::busy::of(&mut *tx, &ids, since).await? {
            changes.busy.entry(provider).or_default().push(busy);
        }
        tx.commit().await?;
        Ok((counters, changes))
    }
}

impl Seen {
    fn differs(&self, counters: &Counters) -> bool {
        self.catalog != counters.catalog
            || counters.providers.iter().any(|(id, c, b)| self.providers.get(id) != Some(&(*c, *b)))
    }

    fn take(&mut self, counters: &Counters) {
        self.catalog = counters.catalog;
        self.providers = counters.providers.iter().map(|(id, c, b)| (*id, (*c, *b))).collect();
    }
}
