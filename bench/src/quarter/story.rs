//! One quarter, from its first morning to its last evening: what patients do, in the order of time, and what comes of it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use scheduling::domain::span::Minute;
use scheduling::domain::zone;
use serde_json::{Value, json};
use uuid::Uuid;

use super::clinic::{Clinic, Visit};
use super::demand::{self, Fate, Patient};
use super::outcome;
use super::{DAY, Quarter, ZONE};

/// Whoever moves a visit finds a time within so long, from a day after it.
pub(super) const MOVES_WITHIN: Minute = 13 * DAY;
/// When the day's visits are closed, in minutes of the day.
const EVENING: u16 = 17 * 60 + 30;

/// What happens at a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    Asks(usize),
    AsksAgain(usize),
    /// The visit of a patient, if it is still the same.
    Cancels(usize, u64),
    Moves(usize, u64),
    Answers(usize, Uuid, bool),
    Evening,
}

/// How a patient stands.
#[derive(Clone, Debug, Default)]
struct Standing {
    visit: Option<Visit>,
    /// Times arranged so far.
    placements: u64,
    offers: u64,
    entry: Option<String>,
    /// Does not come to the visit.
    misses: bool,
    /// Called it off.
    cancelled: bool,
    closed: bool,
}

/// What patients did.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    cancelled: usize,
    moved: usize,
    missed: usize,
    attended: usize,
    joined: usize,
    /// Offers nearer than the patient's notice.
    too_near: usize,
}

pub(super) struct Story {
    quarter: Quarter,
    seed: u64,
    waitlist: bool,
    clinic: Clinic,
    patients: Vec<Patient>,
    standing: Vec<Standing>,
    /// By minute, then by the order in which they were planned.
    deeds: BinaryHeap<Reverse<(Minute, u64, Deed)>>,
    planned: u64,
    /// When the workers have something to do.
    due: Option<Minute>,
    now: Minute,
    counts: Counts,
}

impl Story {
    /// Plays a whole quarter; its figures.
    pub(super) async fn tell(quarter: Quarter, seed: u64, waitlist: bool) -> anyhow::Result<Value> {
        let patients = demand::patients(seed, &quarter);
        let clinic = Clinic::open(&quarter).await?;
        let mut story = Self {
            standing: vec![Standing::default(); patients.len()],
            quarter,
            seed,
            waitlist,
            clinic,
            patients,
            deeds: BinaryHeap::new(),
            planned: 0,
            due: None,
            now: quarter.begin(),
            counts: Counts::default(),
        };
        for n in 0..story.patients.len() {
            if let Some(at) = story.patients[n].asks(quarter.begin()) {
                story.plan(at, Deed::Asks(n));
            }
        }
        for day in quarter.workdays_since(0) {
            story.plan(zone::at(ZONE, day, EVENING), Deed::Evening);
        }
        story.play().await?;
        story.figures().await
    }

    fn plan(&mut self, at: Minute, deed: Deed) {
        self.planned += 1;
        self.deeds.push(Reverse((at, self.planned, deed)));
    }

    async fn play(&mut self) -> anyhow::Result<()> {
        let with = if self.waitlist { "with the waitlist" } else { "without" };
        let mut week = None;
        eprintln!("weeks before the first, {with}");
        loop {
            let next = self.deeds.peek().map(|Reverse((at, ..))| *at);
            let Some(now) = next.into_iter().chain(self.due).min() else { return Ok(()) };
            if now >= self.quarter.end() {
                return Ok(());
            }
            if week != self.quarter.week_of(now) {
                if week.is_none() {
                    self.counts = Counts::default();
                }
                week = self.quarter.week_of(now);
                eprintln!("week {} of {}, {with}", week.map_or(0, |week| week + 1), self.quarter.weeks);
            }
            self.clinic.advance_to(now).await;
            self.now = now;
            if self.due.is_some_and(|due| due <= now) {
                self.settle().await?;
            }
            while let Some(Reverse((at, _, deed))) = self.deeds.peek().copied().filter(|deed| deed.0.0 <= now)
            {
                anyhow::ensure!(at == now, "{deed:?} was planned for the past");
                self.deeds.pop();
                self.perform(deed).await?;
            }
        }
    }

    async fn perform(&mut self, deed: Deed) -> anyhow::Result<()> {
        match deed {
            Deed::Asks(n) => self.asks(n).await,
            Deed::AsksAgain(n) => self.asks_again(n).await,
            Deed::Cancels(n, placement) | Deed::Moves(n, placement) => {
                let standing = &self.standing[n];
                let Some(visit) = standing.visit.clone() else { return Ok(()) };
                if standing.placements != placement || standing.closed {
                    return Ok(());
                }
                if matches!(deed, Deed::Moves(..)) {
                    self.moves(n, visit).await
                } else {
                    self.cancels(n, visit).await
                }
            }
            Deed::Answers(n, offer, true) => {
                if let Some(visit) = self.clinic.accept(offer).await? {
                    self.place(n, visit);
                }
                self.settle().await
            }
            Deed::Answers(_, offer, false) => {
                self.clinic.decline(offer).await?;
                self.settle().await
            }
            Deed::Evening => self.evening().await,
        }
    }

    /// Looks for a time, takes it, and waits for a better one.
    async fn asks(&mut self, n: usize) -> anyhow::Result<()> {
        let patient = self.patients[n].clone();
        let (now, until) = (self.now, patient.patient_until);
        if let Some(free) = self.clinic.first_free(&patient, now, patient.earliest(now), until)? {
            let visit = self.clinic.book(&patient, free).await?;
            self.place(n, visit);
            self.clinic.follow().await?;
        }
        if self.is_content(n) {
            return Ok(());
        }
        if let Some(at) = patient.asks_again_at.filter(|at| *at > now) {
            self.plan(at, Deed::AsksAgain(n));
        }
        if self.waitlist && now >= self.quarter.opens() && patient.joins && patient.earliest(now) < until {
            let entry = self.clinic.join(&patient, now, self.standing[n].visit.as_ref()).await?;
            self.standing[n].entry = Some(entry);
            self.counts.joined += 1;
        }
        Ok(())
    }

    /// Looks whether there is a better time by now.
    async fn asks_again(&mut self, n: usize) -> anyhow::Result<()> {
        let patient = self.patients[n].clone();
        let standing = &self.standing[n];
        if standing.cancelled || self.is_content(n) {
            return Ok(());
        }
        let old = standing.visit.clone();
        let until = old.as_ref().map_or(patient.patient_until, |visit| visit.start - 1);
        let earliest = patient.earliest(self.now);
        if earliest >= until {
            return Ok(());
        }
        let Some(free) = self.clinic.first_free(&patient, self.now, earliest, until)? else { return Ok(()) };
        let visit = match &old {
            Some(old) => self.clinic.reschedule(old, free).await?,
            None => self.clinic.book(&patient, free).await?,
        };
        self.place(n, visit);
        self.leave(n).await?;
        self.settle().await
    }

    /// Moves to a later day, or cancels when none suits.
    async fn moves(&mut self, n: usize, visit: Visit) -> anyhow::Result<()> {
        let from = visit.start + DAY;
        let free = self.clinic.first_free(&self.patients[n], self.now, from, from + MOVES_WITHIN)?;
        let Some(free) = free else { return self.cancels(n, visit).await };
        let visit = self.clinic.reschedule(&visit, free).await?;
        self.counts.moved += 1;
        self.place(n, visit);
        self.leave(n).await?;
        self.settle().await
    }

    async fn cancels(&mut self, n: usize, visit: Visit) -> anyhow::Result<()> {
        self.clinic.cancel(&visit).await?;
        self.counts.cancelled += 1;
        let standing = &mut self.standing[n];
        (standing.visit, standing.cancelled) = (None, true);
        self.leave(n).await?;
        self.settle().await
    }

    async fn leave(&mut self, n: usize) -> anyhow::Result<()> {
        match self.standing[n].entry.take() {
            Some(entry) => self.clinic.leave(entry).await,
            None => Ok(()),
        }
    }

    /// Closes the visits of the day.
    async fn evening(&mut self) -> anyhow::Result<()> {
        let mut over = vec![];
        for standing in &mut self.standing {
            let Some(visit) = standing.visit.as_ref().filter(|visit| visit.start < self.now) else {
                continue;
            };
            if !std::mem::replace(&mut standing.closed, true) {
                over.push((visit.clone(), standing.misses));
            }
        }
        let missed = over.iter().filter(|(_, missed)| *missed).count();
        self.counts.missed += missed;
        self.counts.attended += over.len() - missed;
        self.clinic.close(over).await?;
        self.settle().await
    }

    /// A patient has a visit from now on; what becomes of it is drawn.
    fn place(&mut self, n: usize, visit: Visit) {
        let standing = &mut self.standing[n];
        standing.placements += 1;
        let placement = standing.placements;
        let fate = self.patients[n].fate(self.seed, placement, self.now, visit.start);
        standing.misses = fate == Fate::Missed;
        standing.visit = Some(visit);
        match fate {
            Fate::Cancelled(at) => self.plan(at, Deed::Cancels(n, placement)),
            Fate::Moved(at) => self.plan(at, Deed::Moves(n, placement)),
            Fate::Attended | Fate::Missed => {}
        }
    }

    fn is_content(&self, n: usize) -> bool {
        self.standing[n].visit.as_ref().is_some_and(|visit| visit.start <= self.patients[n].content_until)
    }

    /// Whatever is due is done; who was offered something will answer.
    async fn settle(&mut self) -> anyhow::Result<()> {
        if self.waitlist {
            self.clinic.settle().await?;
            for offer in self.clinic.new_offers().await? {
                let n = offer.patient;
                self.standing[n].offers += 1;
                if offer.start < self.patients[n].earliest(self.now) {
                    self.counts.too_near += 1;
                }
                let answer =
                    self.patients[n].answer(self.seed, self.standing[n].offers, self.now, offer.start);
                if let Some((at, accepts)) = answer {
                    self.plan(at, Deed::Answers(n, offer.id, accepts));
                }
            }
            self.due = self.clinic.next_due().await?;
        }
        self.clinic.follow().await
    }

    async fn figures(mut self) -> anyhow::Result<Value> {
        let mut figures = outcome::figures(self.clinic.db(), &self.quarter).await?;
        let Counts { cancelled, moved, missed, attended, joined, too_near } = self.counts;
        let opens = self.quarter.opens();
        let asked = self.patients.iter().filter(|patient| patient.asks_at >= opens).count();
        figures["counts"] = json!({
            "asked": asked, "cancelled": cancelled, "moved": moved, "missed": missed, "attended": attended,
            "joined": joined, "too_near": too_near,
        });
        figures["waits"] = self.waits();
        Ok(figures)
    }

    /// Of those who wanted to come soon, and whose patience ended within the quarter: days from asking to the visit.
    fn waits(&self) -> Value {
        let (opens, end) = (self.quarter.opens(), self.quarter.end());
        let asked = self.patients.iter().zip(&self.standing);
        let settled: Vec<_> = asked
            .filter(|(patient, _)| patient.soon && patient.asks_at >= opens && patient.patient_until <= end)
            .collect();
        let mut days: Vec<f64> = settled
            .iter()
            .filter_map(|(patient, standing)| {
                let visit = standing.visit.as_ref()?;
                Some((visit.start - patient.asks_at) as f64 / DAY as f64)
            })
            .collect();
        days.sort_by(f64::total_cmp);
        let soon_enough = settled.iter().filter(|(patient, _)| self.is_content(patient.number)).count();
        let cancelled = settled.iter().filter(|(_, standing)| standing.cancelled).count();
        json!({
            "asked": settled.len(), "with_visit": days.len(), "soon_enough": soon_enough, "cancelled": cancelled,
            "without_visit": settled.len() - days.len() - cancelled,
            "mean": days.iter().sum::<f64>() / days.len().max(1) as f64,
            "median": days.get(days.len() / 2).copied().unwrap_or_default(),
        })
    }
}
