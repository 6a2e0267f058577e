//! Forms and intakes: published by managers, opened by visits, answered by patients, submitted once.

use kit::auth::Caller;
use kit::db::Tx;
use kit::ids::{FormId, IntakeId};
use kit::page::Page;
use kit::status::{Error as KitError, Violation};
use proto::clinic::auth::v1::Role;
use proto::clinic::patients::v1::{AccessAction, AccessPurpose, IntakeState, IntakeView};
use sqlx::PgConnection;

use super::App;
use crate::access::{Access, Look};
use crate::domain::answers::Answers;
use crate::domain::form::{Problem, Questions};
use crate::domain::intake::{Draft, Form, Intake};
use crate::error::Error;
use crate::events;
use crate::store::access_log;
use crate::store::intake::{self as store, Key, Named, Visit};

/// An intake without its answers, as the log names it.
const INTAKE: &str = "intake";
/// The answers, as the log names them.
const ANSWERS: &str = "intake.answers";

/// An intake as it is shown.
pub struct ShownIntake {
    /// The intake.
    pub intake: Intake,
    /// Its answers; `None` = none saved, or not shown.
    pub answers: Option<Answers>,
    /// What keeps a draft from being submitted; empty when not shown.
    pub problems: Vec<Problem>,
}

impl App {
    /// Publishes a form, or its next version when the caller has seen the newest. Visits that waited for a new form get their intakes.
    pub async fn publish_form(
        &self,
        tx: &mut Tx,
        access: &Access,
        (id, etag): (FormId, &str),
        form: Draft,
    ) -> Result<Form, Error> {
        let now = self.now();
        store::lock_form(tx, id).await?;
        let version = match store::newest_version(tx, id).await? {
            None => 1,
            Some(newest) if newest.to_string() == etag => newest + 1,
            Some(_) => return Err(KitError::EtagMismatch { kind: "Form" }.into()),
        };
        let form = Form { id, version, form, publish_time: now, published_by: access.actor.clone() };
        store::insert_form(tx, &form).await?;
        let patients = store::open(tx, id, None, now).await?;
        access_log::append(tx, access, &[opened(patients)], now).await?;
        Ok(form)
    }

    /// One version of a form, the newest when `version` is `None`.
    pub async fn form(&self, id: FormId, version: Option<i32>) -> Result<Form, Error> {
        store::form(&mut *self.db.pool().acquire().await?, id, version).await
    }

    /// Every version of one form, or the newest of each, without schemas and translations.
    pub async fn forms(&self, of: Option<FormId>, page: Page<Key>) -> Result<(Vec<Form>, String), Error> {
        let mut conn = self.db.pool().acquire().await?;
        let rows = store::forms(&mut conn, of, page.after.clone(), page.limit()).await?;
        Ok(page.cut(rows, |row| (row.form.name.clone(), row.id.uuid(), row.version)))
    }

    /// Reads an intake, with its answers in the full view.
    pub async fn intake(
        &self,
        access: &Access,
        named: Named,
        view: IntakeView,
    ) -> Result<ShownIntake, Error> {
        let full = view == IntakeView::Full;
        if full && access.role == Role::Service {
            return Err(Error::AnswersNotAllowed);
        }
        if full {
            access.look()?;
        }
        let mut tx = self.db.begin().await?;
        let intake = store::get(&mut tx, named, false).await?;
        self.reach_intake(&mut tx, access, named, &intake).await?;
        let answers = if full { store::answers(&mut tx, &self.keys, &intake).await? } else { None };
        let problems = if full && intake.is_open() {
            self.problems(&mut tx, &intake, answers.clone().unwrap_or_else(Answers::none)).await?
        } else {
            vec![]
        };
        let fields = if full { vec![INTAKE, ANSWERS] } else { vec![INTAKE] };
        access_log::append(&mut tx, access, &[Look::read(intake.patient, fields)], self.now()).await?;
        tx.commit().await?;
        Ok(ShownIntake { intake, answers, problems })
    }

    /// Keeps unfinished answers, and says what is still missing or wrong.
    pub async fn save_draft(
        &self,
        tx: &mut Tx,
        access: &Access,
        (id, etag): (IntakeId, &str),
        answers: Answers,
    ) -> Result<ShownIntake, Error> {
        let mut intake = self.changeable(tx, access, id, etag).await?;
        let problems = self.problems(tx, &intake, answers.clone()).await?;
        intake.state = IntakeState::Draft;
        self.keep(tx, access, &mut intake, &answers).await?;
        Ok(ShownIntake { intake, answers: None, problems })
    }

    /// Submits answers, or the saved draft when there are none, once and for good.
    pub async fn submit(
        &self,
        tx: &mut Tx,
        access: &Access,
        (id, etag): (IntakeId, &str),
        answers: Option<Answers>,
    ) -> Result<ShownIntake, Error> {
        const FIELD: &str = "answers_json";
        let mut intake = self.changeable(tx, access, id, etag).await?;
        let answers = match answers {
            Some(answers) => answers,
            None => store::answers(tx, &self.keys, &intake)
                .await?
                .ok_or_else(|| KitError::invalid(FIELD, "is required: no draft is saved"))?,
        };
        let problems = self.problems(tx, &intake, answers.clone()).await?;
        if !problems.is_empty() {
            let violation =
                |p: Problem| Violation { field: format!("{FIELD}{}", p.pointer), description: p.description };
            return Err(KitError::Invalid(problems.into_iter().map(violation).collect()).into());
        }
        intake.state = IntakeState::Submitted;
        intake.submit_time = Some(self.now());
        events::intake_completed(tx, &intake).await?;
        self.keep(tx, access, &mut intake, &answers).await?;
        Ok(ShownIntake { intake, answers: None, problems: vec![] })
    }

    /// An answer given before shows an intake again.
    pub async fn intake_shown_again(&self, access: &Access, patient: &str) -> Result<(), Error> {
        let patient = patient.parse().map_err(KitError::internal)?;
        self.shown_again(access, vec![patient], vec![INTAKE]).await
    }

    /// Follows how visits stand: opens and closes intakes. In one transaction with the log's rows, written last.
    pub async fn follow_visits(&self, tx: &mut PgConnection, visits: &[Visit]) -> Result<(), Error> {
        let now = self.now();
        let (mut open, mut closed) = (opened(vec![]), touched(AccessAction::Update, vec![]));
        for visit in visits {
            store::share_form(tx, visit.form).await?;
            if !store::see_visit(tx, visit).await? {
                continue;
            }
            if visit.expected {
                open.patients.extend(store::open(tx, visit.form, Some(visit.appointment), now).await?);
            } else {
                closed.patients.extend(store::close(tx, visit.appointment, now).await?);
            }
        }
        let looks = [open, closed];
        if looks.iter().any(|look| !look.patients.is_empty()) {
            access_log::append(tx, &events::intake::access(), &looks, now).await?;
        }
        Ok(())
    }

    /// Seals all answers with the newest key. Others go on reading and writing meanwhile.
    pub async fn reseal_answers(&self) -> anyhow::Result<()> {
        /// Answers sealed in one transaction: others wait for them no longer than that.
        const BATCH: i64 = 100;
        loop {
            let mut tx = self.db.begin().await?;
            let sealed = store::reseal(&mut tx, &self.keys, BATCH).await?;
            tx.commit().await?;
            if sealed == 0 {
                return Ok(());
            }
        }
    }

    /// The intake, locked, if it is the caller's to change, still open, and as the caller read it.
    async fn changeable(
        &self,
        tx: &mut Tx,
        access: &Access,
        id: IntakeId,
        etag: &str,
    ) -> Result<Intake, Error> {
        let named = Named::Intake(id);
        let intake = store::get(tx, named, true).await?;
        self.reach_intake(tx, access, named, &intake).await?;
        if !intake.is_open() {
            return Err(Error::WrongState { id, state: intake.state });
        }
        if intake.version.to_string() != etag {
            return Err(KitError::EtagMismatch { kind: "Intake" }.into());
        }
        Ok(intake)
    }

    /// Another patient's intake is one that there is not.
    async fn reach_intake(
        &self,
        tx: &mut Tx,
        access: &Access,
        named: Named,
        intake: &Intake,
    ) -> Result<(), Error> {
        match self.reach(tx, access, intake.patient).await {
            Err(Error::Kit(KitError::NotFound { .. })) => Err(named.not_found()),
            reached => reached,
        }
    }

    async fn keep(
        &self,
        tx: &mut Tx,
        access: &Access,
        intake: &mut Intake,
        answers: &Answers,
    ) -> Result<(), Error> {
        let now = self.now();
        intake.version += 1;
        intake.update_time = now;
        store::save(tx, &self.keys, intake, answers).await?;
        let look =
            Look { action: AccessAction::Update, fields: vec![ANSWERS], patients: vec![intake.patient] };
        Ok(access_log::append(tx, access, &[look], now).await?)
    }

    /// What the intake's form has against `answers`.
    async fn problems(
        &self,
        conn: &mut PgConnection,
        intake: &Intake,
        answers: Answers,
    ) -> Result<Vec<Problem>, Error> {
        let form = store::form(conn, intake.form, Some(intake.form_version)).await?;
        let judged = aside(move || Ok(Questions::read(&form.form.schema_json)?.problems(&answers))).await?;
        judged.map_err(|bad: Vec<Problem>| {
            let words = bad.first().map(|p| p.description.clone()).unwrap_or_default();
            KitError::internal(anyhow::anyhow!("a published form cannot be read: {words}")).into()
        })
    }
}

/// Runs what computes for a while without waiting, away from the threads that answer calls.
pub(crate) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, KitError> {
    tokio::task::spawn_blocking(work).await.map_err(KitError::internal)
}

/// The access of `caller` for its role's usual purpose.
pub(crate) fn usual(caller: &Caller, method: &'static str) -> Result<Access, Error> {
    Access::new(caller, method, AccessPurpose::Unspecified, String::new())
}

fn opened(patients: Vec<kit::ids::PatientId>) -> Look {
    touched(AccessAction::Create, patients)
}

fn touched(action: AccessAction, patients: Vec<kit::ids::PatientId>) -> Look {
    Look { action, fields: vec![INTAKE], patients }
}
