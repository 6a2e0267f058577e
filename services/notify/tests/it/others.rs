//! The patients and appointments services, as far as answers concern them: who is at a phone, what was decided, what was cancelled.

use std::sync::Mutex;

use async_trait::async_trait;
use kit::ids::{AppointmentId, PatientId};
use notify::domain::notice::Alternative;
use notify::replies::ports::{Cancelled, Holder, Holders, Moved, Visits, Wish};
use uuid::Uuid;

use crate::PHONE;

#[derive(Default)]
pub(crate) struct Others {
    at_phone: Mutex<Vec<Holder>>,
    wishes: Mutex<Vec<(PatientId, bool, String)>>,
    cancelled: Mutex<Vec<(AppointmentId, Uuid)>>,
    moved: Mutex<Vec<(AppointmentId, Alternative)>>,
    /// Answers to come to cancellations that are lost.
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

    /// Loses the next answer to a cancellation.
    pub(crate) fn lose_an_answer(&self) {
        *self.losses.lock().expect("held") += 1;
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
        let mut losses = self.losses.lock().expect("held");
        anyhow::ensure!(*losses == 0, {
            *losses -= 1;
            "the answer was lost"
        });
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
}
