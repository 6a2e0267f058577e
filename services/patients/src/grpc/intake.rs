//! The RPCs of `IntakeService`: decode, call the app, encode.

use std::collections::BTreeMap;

use kit::fields::{Fields, timestamp};
use kit::ids::FormId;
use proto::clinic::patients::v1 as pb;
use proto::clinic::patients::v1::intake_service_server::IntakeService;
use proto::clinic::patients::v1::{IntakeView, get_intake_request};
use tonic::{Request, Response, Status};

use super::{why, wire};
use crate::access::Access;
use crate::app::App;
use crate::app::intake::{ShownIntake, aside, usual};
use crate::domain::answers::Answers;
use crate::domain::form::{Problem, Questions};
use crate::domain::intake::{Draft, Form, Translation};
use crate::domain::is_language;
use crate::error::Error;
use crate::repeat::{self, Attempt};
use crate::store::intake::Named;

/// Characters of a form's name.
const NAME: std::ops::RangeInclusive<usize> = 1..=100;
/// Characters of a translated text.
const TEXT: std::ops::RangeInclusive<usize> = 1..=2_000;
/// Languages beside the form's own.
const MAX_TRANSLATIONS: usize = 50;
/// Translated texts of one form at most, in all languages.
const MAX_TEXTS: usize = 20_000;

/// Full name of a method of the service, as rules and the access log have it.
macro_rules! method {
    ($name:literal) => {
        concat!("clinic.patients.v1.IntakeService/", $name)
    };
}

/// Answers `IntakeService`.
#[derive(Debug)]
pub struct Intakes {
    app: App,
}

impl Intakes {
    /// The calls on `app`.
    pub fn new(app: App) -> Self {
        Self { app }
    }
}

#[tonic::async_trait]
impl IntakeService for Intakes {
    async fn publish_form(
        &self,
        request: Request<pb::PublishFormRequest>,
    ) -> Result<Response<pb::Form>, Status> {
        const METHOD: &str = method!("PublishForm");
        let caller = kit::auth::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let request_id = fields.request_id(&request.request_id);
        let id = fields.optional_id("form_id", &request.form_id).unwrap_or_else(FormId::new);
        let given = request.form.clone().unwrap_or_default();
        fields.ensure(request.form.is_some(), "form", "is required");
        let etag = fields.text("form.etag", &given.etag, 0..=wire::MAX_ETAG);
        let form = draft(&mut fields, given).await.map_err(Error::from)?;
        fields.check().map_err(Error::from)?;
        let access = usual(&caller, METHOD)?;
        let attempt = repeat::begin(&self.app, &caller, METHOD, request_id, &request).await?;
        let mut fresh = match attempt {
            Attempt::Replayed(response) => return Ok(Response::new(response)),
            Attempt::Fresh(fresh) => fresh,
        };
        let published = self.app.publish_form(fresh.tx(), &access, (id, &etag), form).await?;
        let response = form_message(published);
        fresh.finish(&response).await?;
        Ok(Response::new(response))
    }

    async fn get_form(&self, request: Request<pb::GetFormRequest>) -> Result<Response<pb::Form>, Status> {
        kit::auth::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let id = fields.id("form_id", &request.form_id);
        let version = fields.number("version", request.version, 0..=i32::MAX);
        fields.check().map_err(Error::from)?;
        let form = self.app.form(id, (version > 0).then_some(version)).await?;
        Ok(Response::new(form_message(form)))
    }

    async fn list_forms(
        &self,
        request: Request<pb::ListFormsRequest>,
    ) -> Result<Response<pb::ListFormsResponse>, Status> {
        kit::auth::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let of = fields.optional_id("form_id", &request.form_id);
        let page = wire::page(&mut fields, request.page_size, &request.page_token);
        fields.check().map_err(Error::from)?;
        let (forms, next_page_token) = self.app.forms(of, page).await?;
        let forms = forms.into_iter().map(form_message).collect();
        Ok(Response::new(pb::ListFormsResponse { forms, next_page_token }))
    }

    async fn get_intake(
        &self,
        request: Request<pb::GetIntakeRequest>,
    ) -> Result<Response<pb::Intake>, Status> {
        let caller = kit::auth::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let named = match &request.key {
            Some(get_intake_request::Key::AppointmentId(id)) => {
                Named::Appointment(fields.id("appointment_id", id))
            }
            Some(get_intake_request::Key::IntakeId(id)) => Named::Intake(fields.id("intake_id", id)),
            None => Named::Intake(fields.id("intake_id", "")),
        };
        let view: IntakeView = wire::known(&mut fields, "view", request.view);
        let (purpose, reason) = why(&mut fields, request.purpose, &request.break_glass_reason);
        fields.check().map_err(Error::from)?;
        let access = Access::new(&caller, method!("GetIntake"), purpose, reason)?;
        let shown = self.app.intake(&access, named, view).await?;
        Ok(Response::new(intake_message(shown)))
    }

    async fn save_intake_draft(
        &self,
        request: Request<pb::SaveIntakeDraftRequest>,
    ) -> Result<Response<pb::Intake>, Status> {
        const METHOD: &str = method!("SaveIntakeDraft");
        let caller = kit::auth::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let request_id = fields.request_id(&request.request_id);
        let id = fields.id("intake_id", &request.intake_id);
        let answers = answers(&mut fields, &request.answers_json);
        let etag = fields.text("etag", &request.etag, 1..=wire::MAX_ETAG);
        fields.check().map_err(Error::from)?;
        let access = usual(&caller, METHOD)?;
        let attempt = repeat::begin(&self.app, &caller, METHOD, request_id, &request).await?;
        let mut fresh = match attempt {
            Attempt::Replayed(response) => return self.again(&access, response).await,
            Attempt::Fresh(fresh) => fresh,
        };
        let saved = self.app.save_draft(fresh.tx(), &access, (id, &etag), answers).await?;
        let response = intake_message(saved);
        fresh.finish(&response).await?;
        Ok(Response::new(response))
    }

    async fn submit_intake(
        &self,
        request: Request<pb::SubmitIntakeRequest>,
    ) -> Result<Response<pb::Intake>, Status> {
        const METHOD: &str = method!("SubmitIntake");
        let caller = kit::auth::caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let request_id = fields.request_id(&request.request_id);
        let id = fields.id("intake_id", &request.intake_id);
        let answers = match request.answers_json.as_str() {
            "" => None,
            text => Some(answers(&mut fields, text)),
        };
        let etag = fields.text("etag", &request.etag, 1..=wire::MAX_ETAG);
        fields.check().map_err(Error::from)?;
        let access = usual(&caller, METHOD)?;
        let attempt = repeat::begin(&self.app, &caller, METHOD, request_id, &request).await?;
        let mut fresh = match attempt {
            Attempt::Replayed(response) => return self.again(&access, response).await,
            Attempt::Fresh(fresh) => fresh,
        };
        let submitted = self.app.submit(fresh.tx(), &access, (id, &etag), answers).await?;
        let response = intake_message(submitted);
        fresh.finish(&response).await?;
        Ok(Response::new(response))
    }
}

impl Intakes {
    /// Answers what was answered before; that is a look, too.
    async fn again(&self, access: &Access, response: pb::Intake) -> Result<Response<pb::Intake>, Status> {
        self.app.intake_shown_again(access, &response.patient_id).await?;
        Ok(Response::new(response))
    }
}

fn answers(fields: &mut Fields, text: &str) -> Answers {
    Answers::read(text).unwrap_or_else(|problem| {
        fields.refuse("answers_json", problem);
        Answers::none()
    })
}

/// What is to be published. Its questions are compiled once, to see that they can be.
async fn draft(fields: &mut Fields, form: pb::Form) -> Result<Draft, kit::status::Error> {
    let name = fields.text("form.name", &form.name, NAME);
    let language = language(fields, "form.language", &form.language);
    let schema_json = form.schema_json.clone();
    let questions = match aside(move || Questions::read(&schema_json)).await? {
        Ok(questions) => Some(questions),
        Err(problems) => {
            for Problem { pointer, description } in problems {
                fields.refuse(format!("form.schema_json{pointer}"), description);
            }
            None
        }
    };
    let translations = translations(fields, &form, questions.as_ref());
    Ok(Draft { name, schema_json: form.schema_json, language, translations })
}

fn language(fields: &mut Fields, field: &str, tag: &str) -> String {
    fields.ensure(is_language(tag), field, "must be a BCP 47 language tag, such as es or en-US");
    tag.to_owned()
}

fn translations(fields: &mut Fields, form: &pb::Form, questions: Option<&Questions>) -> Vec<Translation> {
    let given = &form.translations;
    let texts: usize = given.iter().map(|t| t.texts.len()).sum();
    if given.len() > MAX_TRANSLATIONS || texts > MAX_TEXTS {
        let problem = format!("must have at most {MAX_TRANSLATIONS} languages and {MAX_TEXTS} texts");
        fields.refuse("form.translations", problem);
        return vec![];
    }
    let mut seen = vec![form.language.to_ascii_lowercase()];
    let mut read = vec![];
    for (i, translation) in given.iter().enumerate() {
        let field = format!("form.translations[{i}]");
        let language = language(fields, &format!("{field}.language"), &translation.language);
        let tag = language.to_ascii_lowercase();
        fields.ensure(!seen.contains(&tag), &format!("{field}.language"), "must not be named twice");
        seen.push(tag);
        let mut texts = BTreeMap::new();
        for (pointer, text) in &translation.texts {
            let field = format!("{field}.texts[{pointer}]");
            let known = questions.is_none_or(|questions| questions.is_text(pointer));
            fields.ensure(known, &field, "must be the place of a title, description or enum label");
            texts.insert(pointer.clone(), fields.text(&field, text, TEXT));
        }
        read.push(Translation { language, texts });
    }
    read
}

fn form_message(form: Form) -> pb::Form {
    let Form { id, version, form: Draft { name, schema_json, language, translations }, .. } = form;
    let translation =
        |t: Translation| pb::FormTranslation { language: t.language, texts: t.texts.into_iter().collect() };
    pb::Form {
        id: id.to_string(),
        version,
        name,
        schema_json,
        language,
        translations: translations.into_iter().map(translation).collect(),
        etag: version.to_string(),
        publish_time: Some(timestamp(form.publish_time)),
        published_by: form.published_by,
    }
}

fn intake_message(shown: ShownIntake) -> pb::Intake {
    let ShownIntake { intake, answers, problems } = shown;
    let problem = |p: Problem| pb::IntakeProblem { pointer: p.pointer, description: p.description };
    pb::Intake {
        id: intake.id.to_string(),
        appointment_id: intake.appointment.to_string(),
        patient_id: intake.patient.to_string(),
        form_id: intake.form.to_string(),
        form_version: intake.form_version,
        state: intake.state.into(),
        answers_json: answers.map(|a| a.text()).unwrap_or_default(),
        problems: problems.into_iter().map(problem).collect(),
        etag: intake.version.to_string(),
        create_time: Some(timestamp(intake.create_time)),
        update_time: Some(timestamp(intake.update_time)),
        submit_time: intake.submit_time.map(timestamp),
    }
}
