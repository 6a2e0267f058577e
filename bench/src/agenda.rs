//! Who books what, so that nobody stands in another's way: each booking has a provider's time of its own, and a patient who breaks
//! no rule with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bench::Sample;
use chrono::{DateTime, Days, Utc};
use kit::fields::timestamp;
use kit::ids::ServiceTypeId;
use proto::clinic::appointments::v1::BookAppointmentRequest;
use scheduling::domain::{span, zone};
use uuid::Uuid;

/// Everyone works from the one to the other, in minutes of the day.
pub(crate) const DAY: (u16, u16) = (8 * 60, 16 * 60);
/// Days that lanes are laid over.
const DAYS: usize = 200;
/// The first patient's id; SQL spells it too.
const PATIENT: u128 = 0x0000_0000_0000_7000_8000_0000_0000_0000;

/// A network's time, given out in lanes.
pub(crate) struct Agenda {
    pub(crate) sample: Sample,
    starts: Vec<u16>,
    lanes: AtomicUsize,
    patients: AtomicUsize,
}

/// One caller's share of the time: slots in an order in which both provider and time change from each to the next, so that one
/// patient may take as many in a row as there are providers. Clones take turns.
#[derive(Clone)]
pub(crate) struct Lane {
    agenda: Arc<Agenda>,
    number: usize,
    next: Arc<AtomicUsize>,
    /// Who takes them, one after another; empty = someone new each time.
    patients: Arc<[Uuid]>,
    service: ServiceTypeId,
}

impl Agenda {
    pub(crate) fn new(sample: Sample) -> Arc<Self> {
        let starts: Vec<u16> = (DAY.0..DAY.1).step_by(sample.service().duration_minutes as usize).collect();
        assert_eq!(starts.len() * DAYS % sample.members.len(), 0, "a lane comes round to its own first slot");
        Arc::new(Self { sample, starts, lanes: AtomicUsize::new(0), patients: AtomicUsize::new(0) })
    }

    /// So many lanes that nobody has had.
    pub(crate) fn lanes(self: &Arc<Self>, count: usize, service: ServiceTypeId) -> Vec<Lane> {
        let first = self.lanes.fetch_add(count, Ordering::Relaxed);
        assert!(first + count <= self.sample.members.len(), "there are as many lanes as providers");
        let lane = |number| Lane {
            agenda: self.clone(),
            number,
            next: Arc::default(),
            patients: Arc::from([]),
            service,
        };
        (first..first + count).map(lane).collect()
    }

    /// Someone who has not been here.
    pub(crate) fn new_patient(&self) -> Uuid {
        Uuid::from_u128(PATIENT + self.patients.fetch_add(1, Ordering::Relaxed) as u128)
    }

    /// A time after all lanes'.
    pub(crate) fn later(&self, n: usize) -> DateTime<Utc> {
        self.start(0, DAYS * self.starts.len() + n)
    }

    /// The `n`th time of the clinic of a provider.
    fn start(&self, provider: usize, n: usize) -> DateTime<Utc> {
        let clinics = &self.sample.catalog.clinics;
        let date = self.sample.first + Days::new((n / self.starts.len()) as u64);
        let minute = self.starts[n % self.starts.len()];
        span::instant(zone::at(clinics[provider % clinics.len()].time_zone, date, minute))
    }

    /// Asks for a time of a provider.
    pub(crate) fn request(
        &self,
        provider: usize,
        start: DateTime<Utc>,
        patient: Uuid,
        service: ServiceTypeId,
    ) -> BookAppointmentRequest {
        let clinics = &self.sample.catalog.clinics;
        BookAppointmentRequest {
            request_id: Uuid::now_v7().to_string(),
            patient_id: patient.to_string(),
            service_type_id: service.to_string(),
            clinic_id: clinics[provider % clinics.len()].id.to_string(),
            provider_id: self.sample.members[provider].0.to_string(),
            start_time: Some(timestamp(start)),
            ..Default::default()
        }
    }
}

impl Lane {
    /// Someone who has not been here.
    pub(crate) fn new_patient(&self) -> Uuid {
        self.agenda.new_patient()
    }

    /// Its slots are for these, each for as many in a row as there are providers.
    pub(crate) fn with_patients(self, patients: Vec<Uuid>) -> Self {
        Self { patients: patients.into(), ..self }
    }

    /// Asks for its next slot.
    pub(crate) fn request(&self) -> anyhow::Result<BookAppointmentRequest> {
        let (agenda, n) = (&self.agenda, self.next.fetch_add(1, Ordering::Relaxed));
        let (providers, times) = (agenda.sample.members.len(), agenda.starts.len() * DAYS);
        anyhow::ensure!(n < times, "a lane is used up: measure for a shorter time, or with more callers");
        let patient = match self.patients.get(n / providers) {
            Some(patient) => *patient,
            None if self.patients.is_empty() => agenda.new_patient(),
            None => anyhow::bail!("a lane has too few patients"),
        };
        let start = agenda.start(n % providers, (self.number + n) % times);
        Ok(agenda.request(n % providers, start, patient, self.service))
    }
}
