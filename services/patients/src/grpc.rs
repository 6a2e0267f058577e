//! The RPCs: decode, call the app, encode.

pub mod intake;
mod wire;

use kit::fields::Fields;
use kit::ids::PatientId;
use kit::page::Page;
use phonenumber::country;
use proto::clinic::patients::v1 as pb;
use proto::clinic::patients::v1::patient_service_server::PatientService;
use proto::clinic::patients::v1::{AccessPurpose, PatientView, SmsConsentSource, SmsConsentState};
use tonic::{Request, Response, Status};

use crate::access::{Access, fields_of};
use crate::app::{App, Decision, History, Registered, Seen};
use crate::domain::comparable;
use crate::error::Error;
use crate::repeat::{self, Attempt};
use crate::store::access_log::Filter;
use crate::store::search::Criteria;

/// Characters of the words a decision about texts answers.
const WORDING: std::ops::RangeInclusive<usize> = 1..=1_000;
/// Characters of a reason: of break-glass access, of a merge.
const REASON: std::ops::RangeInclusive<usize> = 10..=500;
/// Characters of a name search.
const QUERY: std::ops::RangeInclusive<usize> = 2..=200;

/// Answers `PatientService`.
#[derive(Debug)]
pub struct Patients {
    app: App,
    region: country::Id,
}

impl Patients {
    /// The calls on `app`; `region` is the country of phone numbers without a country code.
    pub fn new(app: App, region: country::Id) -> Self {
        Self { app, region }
    }
}

/// Full name of a method of the service, as rules and the access log have it.
macro_rules! method {
    ($name:literal) => {
        concat!("clinic.patients.v1.PatientService/", $name)
    };
}

/// Why the caller looks, and its break-glass reason.
fn why(fields: &mut Fields, purpose: i32, break_glass_reason: &str) -> (AccessPurpose, String) {
    let purpose = wire::known(fields, "purpose", purpose);
    let reason = match break_glass_reason {
        "" => String::new(),
        text => fields.text("break_glass_reason", text, REASON),
    };
    (purpose, reason)
}

#[tonic::async_trait]
impl PatientService for Patients {
    async fn register_patient(
        &self,
        request: Request<pb::RegisterPatientRequest>,
    ) -> Result<Response<pb::RegisterPatientResponse>, Status> {
        const METHOD: &str = method!("RegisterPatient");
        let caller = kit::auth::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let request_id = fields.request_id(&request.request_id);
        let id = fields.optional_id("patient_id", &request.patient_id).unwrap_or_else(PatientId::new);
        let given = request.patient.clone().unwrap_or_default();
        fields.ensure(request.patient.is_some(), "patient", "is required");
        let mut form = wire::Form::new(&mut fields, self.region, self.app.now());
        let identity = form.identity(&given);
        let contact = form.contact(&given);
        fields.check().map_err(Error::from)?;
        let access = Access::new(&caller, METHOD, AccessPurpose::Unspecified, String::new())?;
        let attempt = repeat::begin(&self.app, &caller, METHOD, request_id, &request).await?;
        let mut fresh = match attempt {
            Attempt::Replayed(response) => {
                let shown = wire::shown_in(&response);
                self.app.shown_again(&access, shown, fields_of(PatientView::Full)).await?;
                return Ok(Response::new(response));
            }
            Attempt::Fresh(fresh) => fresh,
        };
        let assigned = identity.mrn.is_empty();
        let new = (id, identity, contact);
        let registered = self.app.register(fresh.tx(), &access, new, request.validate_only).await?;
        let Registered { patient, duplicates, duplicates_view } = registered;
        let mut answer = wire::patient(&patient, PatientView::Full, &History::default());
        if request.validate_only {
            // What was not kept has no id, and no number that another may get.
            answer = pb::Patient {
                id: String::new(),
                mrn: if assigned { String::new() } else { answer.mrn },
                etag: String::new(),
                create_time: None,
                update_time: None,
                ..answer
            };
        }
        let response = pb::RegisterPatientResponse {
            patient: Some(answer),
            likely_duplicates: duplicates.iter().map(|m| wire::patient_match(m, duplicates_view)).collect(),
        };
        fresh.finish(&response).await?;
        Ok(Response::new(response))
    }

    async fn get_patient(
        &self,
        request: Request<pb::GetPatientRequest>,
    ) -> Result<Response<pb::Patient>, Status> {
        let caller = kit::auth::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let id = fields.id("patient_id", &request.patient_id);
        let view = wire::known(&mut fields, "view", request.view);
        let (purpose, reason) = why(&mut fields, request.purpose, &request.break_glass_reason);
        fields.check().map_err(Error::from)?;
        let access = Access::new(&caller, method!("GetPatient"), purpose, reason)?;
        let view = access.view(view)?;
        let shown = self.app.get(&access, id, view, request.show_merged).await?;
        Ok(Response::new(wire::patient(&shown.patient, view, &shown.history)))
    }

    async fn update_patient(
        &self,
        request: Request<pb::UpdatePatientRequest>,
    ) -> Result<Response<pb::Patient>, Status> {
        const METHOD: &str = method!("UpdatePatient");
        let caller = kit::auth::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let request_id = fields.request_id(&request.request_id);
        let given = request.patient.clone().unwrap_or_default();
        let id = fields.id("patient.id", &given.id);
        let etag = fields.text("patient.etag", &given.etag, 1..=wire::MAX_ETAG);
        let paths = request.update_mask.as_ref().map_or(&[][..], |mask| &mask.paths);
        let correction = wire::Form::new(&mut fields, self.region, self.app.now()).correction(&given, paths);
        let (purpose, reason) = why(&mut fields, request.purpose, &request.break_glass_reason);
        fields.check().map_err(Error::from)?;
        let access = Access::new(&caller, METHOD, purpose, reason)?;
        let attempt = repeat::begin(&self.app, &caller, METHOD, request_id, &request).await?;
        let mut fresh = match attempt {
            Attempt::Replayed(response) => {
                self.app.shown_again(&access, vec![id], fields_of(PatientView::Full)).await?;
                return Ok(Response::new(response));
            }
            Attempt::Fresh(fresh) => fresh,
        };
        let patient = self.app.update(fresh.tx(), &access, (id, &etag), correction).await?;
        let response = wire::patient(&patient, PatientView::Full, &History::default());
        fresh.finish(&response).await?;
        Ok(Response::new(response))
    }

    async fn search_patients(
        &self,
        request: Request<pb::SearchPatientsRequest>,
    ) -> Result<Response<pb::SearchPatientsResponse>, Status> {
        let caller = kit::auth::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let name = match request.query.as_str() {
            "" => String::new(),
            query => comparable(&fields.text("query", query, QUERY)),
        };
        let form = &mut wire::Form::new(&mut fields, self.region, self.app.now());
        let phone = form.phone("phone", &request.phone);
        let birth_date = request.birth_date.as_ref().map(|date| form.birth_date("birth_date", Some(date)));
        let mrn = form.optional_mrn("mrn", &request.mrn.to_ascii_uppercase());
        let none = name.is_empty() && phone.is_none() && birth_date.is_none() && mrn.is_empty();
        fields.ensure(!none, "query", "at least one of query, phone, birth_date and mrn is required");
        let (purpose, reason) = why(&mut fields, request.purpose, &request.break_glass_reason);
        let page = wire::page(&mut fields, request.page_size, &request.page_token);
        fields.check().map_err(Error::from)?;
        let access = Access::new(&caller, method!("SearchPatients"), purpose, reason)?;
        let view = access.view(PatientView::Unspecified)?;
        let criteria = Criteria { name, phone, birth_date, mrn };
        let (matches, next_page_token) = self.app.search(&access, &criteria, &page).await?;
        let matches = matches.iter().map(|m| wire::patient_match(m, view)).collect();
        Ok(Response::new(pb::SearchPatientsResponse { matches, next_page_token }))
    }

    async fn merge_patients(
        &self,
        request: Request<pb::MergePatientsRequest>,
    ) -> Result<Response<pb::Patient>, Status> {
        const METHOD: &str = method!("MergePatients");
        let caller = kit::auth::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let request_id = fields.request_id(&request.request_id);
        let survivor = fields.id("surviving_patient_id", &request.surviving_patient_id);
        let duplicate: PatientId = fields.id("merged_patient_id", &request.merged_patient_id);
        let two = request.surviving_patient_id.is_empty() || duplicate != survivor;
        fields.ensure(two, "merged_patient_id", "must be another than the survivor");
        let survivor = Seen {
            id: survivor,
            etag: fields.text("surviving_etag", &request.surviving_etag, 1..=wire::MAX_ETAG),
        };
        let duplicate = Seen {
            id: duplicate,
            etag: fields.text("merged_etag", &request.merged_etag, 1..=wire::MAX_ETAG),
        };
        let reason = fields.text("reason", &request.reason, REASON);
        fields.check().map_err(Error::from)?;
        let access = Access::new(&caller, METHOD, AccessPurpose::Unspecified, reason)?;
        let attempt = repeat::begin(&self.app, &caller, METHOD, request_id, &request).await?;
        let mut fresh = match attempt {
            Attempt::Replayed(response) => {
                self.app.shown_again(&access, vec![survivor.id], fields_of(PatientView::Full)).await?;
                return Ok(Response::new(response));
            }
            Attempt::Fresh(fresh) => fresh,
        };
        let patient = self.app.merge(fresh.tx(), &access, survivor, duplicate).await?;
        let response = wire::patient(&patient, PatientView::Full, &History::default());
        fresh.finish(&response).await?;
        Ok(Response::new(response))
    }

    async fn export_patients(
        &self,
        request: Request<pb::ExportPatientsRequest>,
    ) -> Result<Response<pb::ExportPatientsResponse>, Status> {
        let caller = kit::auth::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let unspecified = AccessPurpose::Unspecified.into();
        let (purpose, reason) = why(&mut fields, unspecified, &request.break_glass_reason);
        let page = wire::page(&mut fields, request.page_size, &request.page_token);
        fields.check().map_err(Error::from)?;
        let access = Access::new(&caller, method!("ExportPatients"), purpose, reason)?;
        let (patients, next_page_token) = self.app.export(&access, &page).await?;
        let shown = |p| wire::patient(p, PatientView::Full, &History::default());
        Ok(Response::new(pb::ExportPatientsResponse {
            patients: patients.iter().map(shown).collect(),
            next_page_token,
        }))
    }

    async fn set_sms_consent(
        &self,
        request: Request<pb::SetSmsConsentRequest>,
    ) -> Result<Response<pb::SmsConsent>, Status> {
        const METHOD: &str = method!("SetSmsConsent");
        let caller = kit::auth::caller(&request)?;
        let access = Access::new(&caller, METHOD, AccessPurpose::Unspecified, String::new())?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let request_id = fields.request_id(&request.request_id);
        let id = fields.id("patient_id", &request.patient_id);
        let state: SmsConsentState = wire::known(&mut fields, "state", request.state);
        let decided = matches!(state, SmsConsentState::Granted | SmsConsentState::Revoked);
        fields.ensure(decided, "state", "must be GRANTED or REVOKED");
        let source: SmsConsentSource = wire::known(&mut fields, "source", request.source);
        if let Some(why_not) = wire::source_refused(source, access.role) {
            fields.refuse("source", why_not);
        }
        let wording = fields.text("wording", &request.wording, WORDING);
        let form = &mut wire::Form::new(&mut fields, self.region, self.app.now());
        let wording_language = form.language("wording_language", &request.wording_language);
        let decide_time = request.decide_time.map(|time| form.past("decide_time", time));
        fields.check().map_err(Error::from)?;
        let attempt = repeat::begin(&self.app, &caller, METHOD, request_id, &request).await?;
        let mut fresh = match attempt {
            Attempt::Replayed(response) => {
                self.app.shown_again(&access, vec![id], vec!["sms_consent"]).await?;
                return Ok(Response::new(response));
            }
            Attempt::Fresh(fresh) => fresh,
        };
        let decision = Decision { state, source, wording, wording_language, decide_time };
        let consent = self.app.set_consent(fresh.tx(), &access, id, decision).await?;
        let response = wire::consent(&consent);
        fresh.finish(&response).await?;
        Ok(Response::new(response))
    }

    async fn list_access_log(
        &self,
        request: Request<pb::ListAccessLogRequest>,
    ) -> Result<Response<pb::ListAccessLogResponse>, Status> {
        let caller = kit::auth::caller(&request)?;
        let access =
            Access::new(&caller, method!("ListAccessLog"), AccessPurpose::Unspecified, String::new())?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let patient = fields.optional_id("patient_id", &request.patient_id);
        fields.ensure(patient.is_some() || !access.is_patient(), "patient_id", "is required of a patient");
        let (start, end) = request.interval.map_or((None, None), |i| (i.start_time, i.end_time));
        let from = start.map(|time| fields.instant("interval.start_time", Some(time)));
        let until = end.map(|time| fields.instant("interval.end_time", Some(time)));
        let page: Page<_> = wire::page(&mut fields, request.page_size, &request.page_token);
        fields.check().map_err(Error::from)?;
        let filter =
            Filter { patient, from, until, actor: request.actor, break_glass_only: request.break_glass_only };
        let (entries, next_page_token) = self.app.access_log(&access, &filter, &page).await?;
        let entries = entries.iter().map(wire::entry).collect();
        Ok(Response::new(pb::ListAccessLogResponse { entries, next_page_token }))
    }
}
