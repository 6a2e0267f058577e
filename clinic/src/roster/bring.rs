//! One row: who is registered already, who is somebody else's double, and what becomes of the rest.
//!
//! The service is asked first with `validate_only`: it names every bad field, reads phone numbers in its own region, and tells of
//! likely duplicates before anything is kept.

use proto::clinic::patients::v1::patient_service_client::PatientServiceClient;
use proto::clinic::patients::v1::{
    AccessPurpose, Patient, PatientMatch, RegisterPatientRequest, RegisterPatientResponse,
    SearchPatientsRequest, UpdatePatientRequest,
};
use tonic::{Code, Status};
use uuid::Uuid;

use super::Column;
use crate::caller::{Caller, with_retries};

/// Likely duplicates that a complaint names.
const NAMED: usize = 3;

/// Where rows are brought, and what may be done with them.
pub(super) struct Desk {
    pub(super) caller: Caller,
    pub(super) rules: Rules,
}

/// What may be done with a row.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    /// Nothing is kept.
    pub(super) dry_run: bool,
    /// Who is registered with other data gets the file's.
    pub(super) update: bool,
    /// A likely double is registered all the same.
    pub(super) allow_duplicates: bool,
}

/// What became of a row, or would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Became {
    Registered,
    Updated,
    There,
}

/// Why a row did not come in.
pub(super) enum Refused {
    /// Something about the row, in words.
    Row(String),
    /// Something that the next row would meet, too.
    All(Status),
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::InvalidArgument
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::NotFound
            | Code::Aborted
            | Code::OutOfRange
            | Code::Internal => Self::Row(status.message().replace("patient.", "")),
            _ => Self::All(status),
        }
    }
}

impl Desk {
    /// Brings one row in: what became of it, and what else there is to say. `request_id` is the same whenever the same file is imported.
    pub(super) async fn bring(
        &self,
        request_id: Uuid,
        row: &Patient,
    ) -> Result<(Became, Option<String>), Refused> {
        let checked = match self.register(row, None).await {
            Ok(checked) => checked,
            Err(status) if is_taken(&status) => return Ok((self.compare(row).await?, None)),
            Err(status) => return Err(status.into()),
        };
        let twin = |m: &PatientMatch| m.patient.as_ref().is_some_and(|known| agrees(&checked, known));
        if row.mrn.is_empty() && checked.likely_duplicates.iter().any(twin) {
            return Ok((Became::There, None));
        }
        let double = checked.likely_duplicates.iter().any(is_double);
        if double && !self.rules.allow_duplicates {
            let who = named(&checked.likely_duplicates).unwrap_or_default();
            return Err(Refused::Row(format!("{who}; --allow-duplicates registers it all the same")));
        }
        if self.rules.dry_run {
            return Ok((Became::Registered, named(&checked.likely_duplicates)));
        }
        match self.register(row, Some(request_id)).await {
            Ok(done) => Ok((Became::Registered, named(&done.likely_duplicates))),
            Err(status) if is_taken(&status) => Ok((self.compare(row).await?, None)),
            Err(status) => Err(status.into()),
        }
    }

    /// A row whose MRN is registered: nothing to do, an update, or a conflict.
    async fn compare(&self, row: &Patient) -> Result<Became, Refused> {
        let known = self.find(&row.mrn).await?;
        // A number of somebody merged since leads to the survivor, who keeps their own data.
        if known.mrn != row.mrn || differing(row, &known).is_empty() {
            return Ok(Became::There);
        }
        let unnumbered = Patient { mrn: String::new(), ..row.clone() };
        let read = self.register(&unnumbered, None).await?.patient.unwrap_or_default();
        let differing = differing(&read, &known);
        if differing.is_empty() {
            return Ok(Became::There);
        }
        let Rules { update, dry_run, .. } = self.rules;
        if !update {
            return Err(Refused::Row(format!(
                "its MRN is registered with another {} (patient {}); --update takes over the file's",
                differing.join(", "),
                known.id
            )));
        }
        if !dry_run {
            self.update(row, &known).await?;
        }
        Ok(Became::Updated)
    }

    /// Registers, or with no request id only checks.
    async fn register(
        &self,
        row: &Patient,
        request_id: Option<Uuid>,
    ) -> Result<RegisterPatientResponse, Status> {
        let request = RegisterPatientRequest {
            request_id: request_id.map(|id| id.to_string()).unwrap_or_default(),
            patient: Some(row.clone()),
            validate_only: request_id.is_none(),
            ..Default::default()
        };
        let answer = with_retries(|| {
            let (mut patients, request) = (self.patients(), request.clone());
            async move { patients.register_patient(request).await }
        });
        Ok(answer.await?.into_inner())
    }

    async fn find(&self, mrn: &str) -> Result<Patient, Refused> {
        let request = SearchPatientsRequest {
            mrn: mrn.to_owned(),
            purpose: AccessPurpose::Operations.into(),
            ..Default::default()
        };
        let answer = with_retries(|| {
            let (mut patients, request) = (self.patients(), request.clone());
            async move { patients.search_patients(request).await }
        });
        let found = answer.await?.into_inner().matches.into_iter().find_map(|m| m.patient);
        found.ok_or_else(|| Refused::Row("its MRN is in use, but nobody is found by it".to_owned()))
    }

    /// An empty cell changes nothing.
    async fn update(&self, row: &Patient, known: &Patient) -> Result<(), Status> {
        let patient = Patient { id: known.id.clone(), etag: known.etag.clone(), ..row.clone() };
        let request = UpdatePatientRequest {
            request_id: Uuid::now_v7().to_string(),
            patient: Some(patient),
            purpose: AccessPurpose::Operations.into(),
            ..Default::default()
        };
        let answer = with_retries(|| {
            let (mut patients, request) = (self.patients(), request.clone());
            async move { patients.update_patient(request).await }
        });
        answer.await.map(drop)
    }

    fn patients(&self) -> PatientServiceClient<kit::client::Outbound> {
        PatientServiceClient::new(self.caller.channel())
    }
}

fn is_taken(status: &Status) -> bool {
    kit::status::reason(status) == "MRN_EXISTS"
}

/// Whether a patient has all that a checked row says.
fn agrees(checked: &RegisterPatientResponse, known: &Patient) -> bool {
    checked.patient.as_ref().is_some_and(|row| differing(row, known).is_empty())
}

/// The columns in which a row says something else than is known. An empty cell says nothing.
fn differing(row: &Patient, known: &Patient) -> Vec<&'static str> {
    let differs = |column: &Column| {
        let cell = column.of(row);
        !cell.is_empty() && cell != column.of(known)
    };
    Column::ALL.into_iter().filter(differs).map(Column::name).collect()
}

/// Whether somebody is so alike that registering them again needs a word from a person. Families share phones and addresses; they do
/// not share names and birth dates.
fn is_double(found: &PatientMatch) -> bool {
    let fits = |field: &str| found.matched_fields.iter().any(|fitting| fitting == field);
    fits("name") && fits("birth_date")
}

/// The likely duplicates in words, by their ids; `None` = there are none.
fn named(duplicates: &[PatientMatch]) -> Option<String> {
    let each = duplicates.iter().take(NAMED).map(|m| {
        let id = m.patient.as_ref().map(|p| p.id.as_str()).unwrap_or_default();
        format!("patient {id} (alike in {})", m.matched_fields.join(", "))
    });
    let each: Vec<_> = each.collect();
    (!each.is_empty()).then(|| format!("probably {}", each.join(" or ")))
}
