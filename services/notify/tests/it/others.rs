//! The patients and appointments services, as far as answers concern them: who is at a phone, what was decided, what was cancelled.

use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;
use kit::ids::{AppointmentId, PatientId};
use notify::domain::notice::Alternative;
use notify::replies::ports::{Cancelled, Holder, Holders, Moved, OfferAnswer, Settled, Visits, Wish};
use uuid::Uuid;

use crate::PHONE;

#[derive(Default)]
pub(crate) struct Others {
    at_phone: Mutex<Vec<Holder>>,
    wishes: Mutex<Vec<(PatientId, bool, String)>>,
    cancelled: Mutex<Vec<(AppointmentId, Uuid)>>,
    moved: Mutex<Vec<(AppointmentId, Alternative)>>,
    answered: Mutex<Vec<(OfferAnswer, Uuid)>>,
    /// What becomes of offers by answers to come, in this order; then they are taken, or turned down.
    outcomes: Mutex<VecDeque<Settled>>,
    /// Answers to come that are lost.
    losses: Mutex<u32>,
}

impl Others {
    /// Puts a patient at [`PHONE`].
    pub(crate) fn at_phone(&self, patient: PatientId) {
        self.at_phone.lock().expect("held").push(Holder { patient, language: "en".to_owned() });
    }

    /// What patients decided: who, whether texts may come, in which words.
    pub(crate) fn wishes(&self) -> Vec<(PatientId, bool, String)> {
        self.wishes.lock().expect("held").clone()
    }

    /// Cancellations asked for, under the names they were asked by.
    pub(crate) fn cancelled(&self) -> Vec<(AppointmentId, Uuid)> {
        self.cancelled.lock().expect("held").clone()
    }

    /// Moves asked for, where to.
    pub(crate) fn moved(&self) -> Vec<(AppointmentId, Alternative)> {
        self.moved.lock().expect("held").clone()
    }

    /// Answers given to offers, under the names they were given by.
    pub(crate) fn answered(&self) -> Vec<(OfferAnswer, Uuid)> {
        self.answered.lock().expect("held").clone()
    }

    /// Says what becomes of the offer that is answered next.
    pub(crate) fn settles(&self, settled: Settled) {
        self.outcomes.lock().expect("held").push_back(settled);
    }

    /// Loses the next answer.
    pub(crate) fn lose_an_answer(&self) {
        *self.losses.lock().expect("held") += 1;
    }
}

impl Others {
    fn may_be_lost(&self) -> anyhow::Result<()> {
        let mut losses = self.losses.lock().expect("held");
        anyhow::ensure!(*losses == 0, {
            *losses -= 1;
            "the answer was lost"
        });
        Ok(())
    }
}

#[async_trait]
impl Holders for Others {
    async fn at(&self, phone: &str) -> anyhow::Result<Vec<Holder>> {
        Ok(if phone == PHONE { self.at_phone.lock().expect("held").clone() } else { vec![] })
    }

    async fn decide(&self, patient: PatientId, wish: &Wish) -> anyhow::Result<()> {
        self.wishes.lock().expect("held").push((patient, wish.granted, wish.wording.clone()));
        Ok(())
    }
}

#[async_trait]
impl Visits for Others {
    async fn is_booked(&self, appointment: AppointmentId) -> anyhow::Result<bool> {
        Ok(!self.cancelled().iter().any(|(cancelled, _)| *cancelled == appointment))
    }

    async fn cancel(&self, appointment: AppointmentId, request: Uuid) -> anyhow::Result<Option<Cancelled>> {
        self.cancelled.lock().expect("held").push((appointment, request));
        self.may_be_lost()?;
        Ok(Some(Cancelled { late_fee: true }))
    }

    /// The first to ask for a time gets it.
    async fn move_to(
        &self,
        appointment: AppointmentId,
        to: Alternative,
        _request: Uuid,
    ) -> anyhow::Result<Moved> {
        let mut moved = self.moved.lock().expect("held");
        let taken = moved.iter().any(|(_, other)| *other == to);
        moved.push((appointment, to));
        Ok(if taken { Moved::Taken } else { Moved::Done })
    }

    async fn answer_offer(&self, answer: OfferAnswer, request: Uuid) -> anyhow::Result<Settled> {
        self.answered.lock().expect("held").push((answer, request));
        self.may_be_lost()?;
        let outcome = self.outcomes.lock().expect("held").pop_front();
        Ok(outcome.unwrap_or(if answer.takes { Settled::Booked } else { Settled::Declined }))
    }
}
