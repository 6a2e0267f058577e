//! What clients ask for: drawn from a seed, out of so few places and times that most attempts collide.

use chrono::{DateTime, NaiveTime, TimeDelta, Utc};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng, RngExt as _};
use uuid::Uuid;

use crate::facts::{Answer, Asked, Call, State, Told, Verb};
use crate::network::Network;

/// Days ahead on which visits are asked for: some within a week of each other, some just not, one today.
const DAYS: [i64; 6] = [0, 1, 6, 7, 8, 14];
/// On each day, starts are asked for within so many minutes, in whole steps.
const WINDOW_MINUTES: i64 = 180;
const STEP_MINUTES: i64 = 5;
/// How far back an override may ask for.
const PAST_MINUTES: i64 = 60;
/// An hour and a half before noon in Chicago, in UTC; in summer half an hour.
const BEFORE_NOON: NaiveTime = NaiveTime::from_hms_opt(16, 30, 0).expect("a time of day");
/// Appointments that clients remember, to change them.
const REMEMBERED: usize = 400;

/// A name for a call or a client's thing, out of the seed.
pub fn fresh_id(rng: &mut StdRng) -> Uuid {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// Draws a start. Those of other days lie around noon in Chicago, where shifts change. With an override also one that is past, for
/// whoever walks in, or does not.
pub fn start(rng: &mut StdRng, now: DateTime<Utc>, overriding: bool) -> DateTime<Utc> {
    let days = *DAYS.choose(rng).unwrap_or(&0);
    let minutes = TimeDelta::minutes(rng.random_range(0..WINDOW_MINUTES / STEP_MINUTES) * STEP_MINUTES);
    let from = if days == 0 {
        let step = STEP_MINUTES * 60;
        let back = if overriding { PAST_MINUTES * 60 } else { 0 };
        (now.timestamp() / step + 1) * step - back
    } else {
        let day = (now + TimeDelta::days(days)).date_naive().and_time(BEFORE_NOON);
        day.and_utc().timestamp()
    };
    DateTime::from_timestamp(from, 0).unwrap_or(now) + minutes
}

/// Draws a slot to take: sometimes with a named room, sometimes with any provider, sometimes against the schedule.
fn slot(rng: &mut StdRng, network: &Network, now: DateTime<Utc>) -> Asked {
    let Some(site) = network.clinics.choose(rng) else { return Asked::default() };
    let overriding = rng.random_bool(0.1);
    // With an override anyone may be asked for, also where they do not work.
    let providers = if overriding { &network.providers } else { &site.providers };
    let provider = (overriding || rng.random_bool(0.7)).then(|| providers.choose(rng).copied()).flatten();
    Asked {
        patient: network.patients.choose(rng).copied(),
        service_type: network.services.choose(rng).copied(),
        clinic: Some(site.id),
        provider,
        room: rng.random_bool(0.25).then(|| site.rooms.choose(rng).copied()).flatten(),
        start: Some(start(rng, now, overriding)),
        overriding,
        ..Asked::default()
    }
}

/// Appointments that may still change, as clients were last told of them. All clients share it, so that they cross each other.
#[derive(Debug, Default)]
pub struct Known(Vec<Told>);

impl Known {
    /// Notes what a client was told.
    pub fn note(&mut self, told: &Told, rng: &mut StdRng) {
        let ended = !told.state.occupies() && told.state != State::NoShow;
        match self.0.iter().position(|known| known.id == told.id) {
            Some(at) if ended => drop(self.0.swap_remove(at)),
            Some(at) => self.0[at] = told.clone(),
            None if ended => {}
            None if self.0.len() < REMEMBERED => self.0.push(told.clone()),
            None => {
                let at = rng.random_range(0..self.0.len());
                self.0[at] = told.clone();
            }
        }
    }

    /// Notes that an appointment cannot be changed any more.
    pub fn forget(&mut self, id: Uuid) {
        self.0.retain(|known| known.id != id);
    }

    /// One that `fits`; mostly one that also `suits`, for what suits nobody is soon refused.
    fn draw(
        &self,
        rng: &mut StdRng,
        fits: impl Fn(&Told) -> bool,
        suits: impl Fn(&Told) -> bool,
    ) -> Option<&Told> {
        let fitting: Vec<&Told> = self.0.iter().filter(|known| fits(known)).collect();
        let suiting: Vec<&Told> = fitting.iter().copied().filter(|known| suits(known)).collect();
        let chosen = if rng.random_bool(0.8) && !suiting.is_empty() { suiting } else { fitting };
        chosen.choose(rng).copied()
    }
}

/// Draws the next call.
pub fn draw(rng: &mut StdRng, network: &Network, known: &Known, now: DateTime<Utc>) -> (Verb, Asked) {
    let verb = match rng.random_range(0..100) {
        0..14 => Verb::Hold,
        14..54 => Verb::Book,
        54..60 => Verb::Release,
        60..76 => Verb::Reschedule,
        76..90 => Verb::Cancel,
        90..95 => Verb::CheckIn,
        _ => Verb::Complete,
    };
    let held = match verb {
        Verb::Hold => return (verb, slot(rng, network, now)),
        Verb::Book if rng.random_bool(0.7) => return (verb, slot(rng, network, now)),
        Verb::Book | Verb::Release => true,
        Verb::Reschedule | Verb::Cancel | Verb::CheckIn | Verb::Complete => false,
    };
    let suits = |told: &Told| match verb {
        Verb::CheckIn => told.state != State::CheckedIn && told.place.visit.start < now + TimeDelta::hours(3),
        Verb::Complete => told.state == State::CheckedIn || told.place.visit.start < now,
        _ => told.state != State::CheckedIn && told.state != State::NoShow,
    };
    let Some(told) = known.draw(rng, |told| (told.state == State::Held) == held, suits) else {
        return (Verb::Book, slot(rng, network, now));
    };
    let named = Asked { appointment: Some(told.id), ..Asked::default() };
    let etag = (!held && rng.random_bool(0.3)).then_some(told.version);
    let asked = match verb {
        Verb::Hold | Verb::Release => named,
        Verb::Book => Asked { patient: Some(told.patient), ..named },
        Verb::Reschedule => Asked { patient: None, service_type: None, etag, ..slot(rng, network, now) },
        Verb::Cancel | Verb::CheckIn => Asked { etag, ..named.clone() },
        // Whoever is here is seen; whoever is not, did not come.
        Verb::Complete => Asked { etag, no_show: told.state != State::CheckedIn, ..named.clone() },
    };
    (verb, Asked { appointment: Some(told.id), ..asked })
}

/// What follows a declined card: the hold stays, and the patient tries another one, or the same again.
pub fn follow_up(rng: &mut StdRng, network: &Network, call: &Call) -> Option<(Verb, Asked)> {
    let Answer::Refused(refusal) = &call.answer else { return None };
    let hold = refusal.hold.filter(|_| rng.random_bool(0.8))?;
    let card = call.asked.patient.and_then(|patient| network.other_cards.get(&patient).copied());
    let card = card.filter(|_| rng.random_bool(0.7));
    Some((
        Verb::Book,
        Asked { appointment: Some(hold), patient: call.asked.patient, card, ..Asked::default() },
    ))
}
