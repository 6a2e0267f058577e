//! Which appointments stand in each other's way.

use std::collections::BTreeSet;

use appointments::domain::State;
use chrono::NaiveDate;

use super::Model;
use crate::model::neighbours::{local_day, overlap};
use crate::model::values::Appt;

impl Model {
    /// Which rules forbid `new` beside those appointments that occupy time; `own` does not count.
    pub(super) fn clashes(&self, new: &Appt, rooms: &[usize], own: Option<usize>) -> BTreeSet<&'static str> {
        let others: Vec<_> = (0..self.appts.len())
            .filter(|i| Some(*i) != own)
            .map(|i| &self.appts[i])
            .filter(|a| a.state.occupies() && !a.is_over(self.now))
            .collect();
        let day = |a: &Appt| local_day(a.clinic, a.start);
        let near = |a: NaiveDate, b: NaiveDate| (a - b).num_days().abs() < 7;
        let full = |room: &usize| others.iter().any(|a| a.room == *room && overlap(a.visit(), new.visit()));
        let own_patient = || others.iter().filter(|a| a.patient == new.patient);
        let rules = [
            (
                "SLOT_TAKEN",
                others.iter().any(|a| a.provider == new.provider && overlap(a.occupied(), new.occupied())),
            ),
            ("ROOM_TAKEN", !rooms.is_empty() && rooms.iter().all(full)),
            ("PATIENT_BUSY", own_patient().any(|a| overlap(a.visit(), new.visit()))),
            ("WITHIN_7_DAYS", own_patient().any(|a| a.provider == new.provider && near(day(a), day(new)))),
            ("TOO_MANY_HOLDS", new.state == State::Held && own_patient().any(|a| a.state == State::Held)),
        ];
        rules.into_iter().filter(|(_, broken)| *broken).map(|(rule, _)| rule).collect()
    }

    /// Rooms in which holds whose time is up are in the way: while one is free, none is.
    pub(super) fn rooms_to_clear<'a>(
        &self,
        new: &Appt,
        rooms: &'a [usize],
        own: Option<usize>,
    ) -> &'a [usize] {
        if self.free_room(new, rooms, own).is_none() { rooms } else { &[] }
    }

    /// Ends the holds in the way of `new` whose time is up.
    pub(super) fn clear_the_way(&mut self, new: &Appt, rooms: &[usize]) {
        let (now, occupied) = (self.now, new.occupied());
        for a in self.appts.iter_mut().filter(|a| a.state == State::Held && a.is_over(now)) {
            let meets = (a.provider == new.provider && overlap(a.occupied(), occupied))
                || (rooms.contains(&a.room) && overlap(a.visit(), occupied))
                || a.patient == new.patient;
            if meets {
                a.expire();
            }
        }
    }

    /// The first of `rooms` that nobody has for `new`, not even by a hold whose time is up.
    pub(super) fn free_room(&self, new: &Appt, rooms: &[usize], own: Option<usize>) -> Option<usize> {
        let others = || self.appts.iter().enumerate().filter(|(i, a)| Some(*i) != own && a.state.occupies());
        let taken = |room: usize| others().any(|(_, a)| a.room == room && overlap(a.visit(), new.visit()));
        rooms.iter().copied().find(|room| !taken(*room))
    }

    /// What a refusal by the schedule may add as long as nobody has ended the holds whose time is up.
    pub(super) fn unswept(&self) -> BTreeSet<&'static str> {
        let unswept = self.appts.iter().any(|a| a.state == State::Held && a.is_over(self.now));
        let all = ["SLOT_TAKEN", "PATIENT_BUSY", "WITHIN_7_DAYS", "TOO_MANY_HOLDS"];
        if unswept { BTreeSet::from(all) } else { BTreeSet::new() }
    }
}
