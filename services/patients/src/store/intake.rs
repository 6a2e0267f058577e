//! SQL of forms, of the visits that ask for them, and of intakes.
//!
//! Answers leave and enter the database in this file alone, sealed.

use chrono::{DateTime, Utc};
use kit::ids::{AppointmentId, FormId, IntakeId, PatientId};
use kit::status::Error as KitError;
use proto::clinic::patients::v1::IntakeState;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::domain::answers::Answers;
use crate::domain::intake::{Draft, Form, Intake, Translation};
use crate::error::Error;
use crate::seal::{Keys, Place};

/// Keeps others from publishing the form, and visits that ask for it from being followed, until the transaction ends.
pub async fn lock_form(tx: &mut PgConnection, id: FormId) -> sqlx::Result<()> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('patients.form ' || $1::uuid, 0))", id.uuid())
        .execute(tx)
        .await
        .map(drop)
}

/// Keeps others from publishing the form until the transaction ends.
pub async fn share_form(tx: &mut PgConnection, id: FormId) -> sqlx::Result<()> {
    sqlx::query!(
        "select pg_advisory_xact_lock_shared(hashtextextended('patients.form ' || $1::uuid, 0))",
        id.uuid()
    )
    .execute(tx)
    .await
    .map(drop)
}

/// The newest version of a form; `None` = no such form.
pub async fn newest_version(conn: &mut PgConnection, id: FormId) -> sqlx::Result<Option<i32>> {
    sqlx::query_scalar!("select max(version) from patients.form where form_id = $1", id.uuid())
        .fetch_one(conn)
        .await
}

/// Publishes a version.
pub async fn insert_form(tx: &mut PgConnection, form: &Form) -> Result<(), Error> {
    let Form { id, version, form: Draft { name, schema_json, language, translations }, .. } = form;
    let translations = serde_json::to_string(translations).map_err(KitError::internal)?;
    sqlx::query!(
        "insert into patients.form
            (form_id, version, name, schema_json, language, translations, publish_time, published_by)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        id.uuid(),
        version,
        name,
        schema_json,
        language,
        translations,
        form.publish_time,
        form.published_by,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// One version of a form, the newest when `version` is `None`.
pub async fn form(conn: &mut PgConnection, id: FormId, version: Option<i32>) -> Result<Form, Error> {
    let row = sqlx::query!(
        "select version, name, schema_json, language, translations, publish_time, published_by
         from patients.form where form_id = $1 and ($2::int is null or version = $2)
         order by version desc limit 1",
        id.uuid(),
        version,
    )
    .fetch_optional(conn)
    .await?
    .ok_or_else(|| KitError::not_found(id))?;
    let translations: Vec<Translation> =
        serde_json::from_str(&row.translations).map_err(KitError::internal)?;
    Ok(Form {
        id,
        version: row.version,
        form: Draft { name: row.name, schema_json: row.schema_json, language: row.language, translations },
        publish_time: row.publish_time,
        published_by: row.published_by,
    })
}

/// Place of a form in a list: name, id, version.
pub type Key = (String, Uuid, i32);

/// Every version of one form, newest first; or the newest of each form, by name, then id. Without schemas and translations.
pub async fn forms(
    conn: &mut PgConnection,
    of: Option<FormId>,
    after: Option<Key>,
    limit: i64,
) -> sqlx::Result<Vec<Form>> {
    let (name, id, version) = match after {
        Some((name, id, version)) => (Some(name), Some(id), Some(version)),
        None => (None, None, None),
    };
    let rows = sqlx::query!(
        "select form_id, version, name, language, publish_time, published_by
         from patients.form f
         where case when $1::uuid is not null then form_id = $1 and ($4::int is null or version < $4)
                    else not exists (select from patients.form n where n.form_id = f.form_id and n.version > f.version)
                         and ($2::text is null or (name, form_id) > ($2, $3::uuid)) end
         order by case when $1 is null then name end, form_id, version desc
         limit $5",
        of.map(Uuid::from),
        name,
        id,
        version,
        limit,
    )
    .fetch_all(conn)
    .await?;
    let forms = rows.into_iter().map(|row| Form {
        id: row.form_id.into(),
        version: row.version,
        form: Draft {
            name: row.name,
            schema_json: String::new(),
            language: row.language,
            translations: vec![],
        },
        publish_time: row.publish_time,
        published_by: row.published_by,
    });
    Ok(forms.collect())
}

/// What is known of a visit.
#[derive(Clone, Copy, Debug)]
pub struct Visit {
    /// The appointment.
    pub appointment: AppointmentId,
    /// Its version.
    pub version: i64,
    /// Who comes.
    pub patient: PatientId,
    /// What it asks for.
    pub form: FormId,
    /// Not called off and not over.
    pub expected: bool,
}

/// Notes how a visit stands; false when that is known already, or newer.
pub async fn see_visit(tx: &mut PgConnection, visit: &Visit) -> sqlx::Result<bool> {
    let seen = sqlx::query!(
        "insert into patients.visit as v (appointment_id, version, patient_id, form_id, expected)
         values ($1, $2, $3, $4, $5)
         on conflict (appointment_id) do update set version = excluded.version, expected = excluded.expected
         where v.version < excluded.version",
        visit.appointment.uuid(),
        visit.version,
        visit.patient.uuid(),
        visit.form.uuid(),
        visit.expected,
    )
    .execute(tx)
    .await?;
    Ok(seen.rows_affected() == 1)
}

/// Opens the intakes that are missing of `form`'s expected visits, or of one of them, in the form's newest version. Answers whose.
pub async fn open(
    tx: &mut PgConnection,
    form: FormId,
    appointment: Option<AppointmentId>,
    now: DateTime<Utc>,
) -> sqlx::Result<Vec<PatientId>> {
    sqlx::query_scalar!(
        r#"insert into patients.intake
               (id, appointment_id, patient_id, form_id, form_version, state, create_time, update_time)
           select uuidv7(), v.appointment_id, p.id, f.form_id, f.version, $3, $4, $4
           from patients.visit v
           join patients.patient p on p.id = v.patient_id
           cross join (select form_id, version from patients.form where form_id = $1 order by version desc limit 1) f
           where v.form_id = $1 and v.expected and ($2::uuid is null or v.appointment_id = $2)
           on conflict on constraint intake_appointment_unique do nothing
           returning patient_id as "patient: PatientId""#,
        form.uuid(),
        appointment.map(Uuid::from),
        IntakeState::Open.as_str_name(),
        now,
    )
    .fetch_all(tx)
    .await
}

/// Closes the intake of a visit that is called off or over, unless it is final. Answers whose it was.
pub async fn close(
    tx: &mut PgConnection,
    appointment: AppointmentId,
    now: DateTime<Utc>,
) -> sqlx::Result<Option<PatientId>> {
    sqlx::query_scalar!(
        r#"update patients.intake set state = $2, version = version + 1, update_time = $3
           where appointment_id = $1 and state = any($4)
           returning patient_id as "patient: PatientId""#,
        appointment.uuid(),
        IntakeState::Closed.as_str_name(),
        now,
        &[IntakeState::Open, IntakeState::Draft].map(|state| state.as_str_name().to_owned()),
    )
    .fetch_optional(tx)
    .await
}

/// How a caller names an intake.
#[derive(Clone, Copy, Debug)]
pub enum Named {
    /// By its own id.
    Intake(IntakeId),
    /// By its visit.
    Appointment(AppointmentId),
}

impl Named {
    /// What to answer when there is none, or it is not the caller's to see.
    pub fn not_found(self) -> Error {
        let error = match self {
            Self::Intake(id) => KitError::not_found(id),
            Self::Appointment(id) => KitError::NotFound { kind: "Intake", id: id.to_string() },
        };
        error.into()
    }
}

/// One intake, of the patient who answers for it; `locked` until the transaction ends.
pub async fn get(conn: &mut PgConnection, named: Named, locked: bool) -> Result<Intake, Error> {
    let (id, appointment) = match named {
        Named::Intake(id) => (Some(id.uuid()), None),
        Named::Appointment(appointment) => (None, Some(appointment.uuid())),
    };
    if locked {
        sqlx::query!(
            "select from patients.intake where id = $1 or appointment_id = $2 for update",
            id,
            appointment
        )
        .execute(&mut *conn)
        .await?;
    }
    let row = sqlx::query!(
        r#"select i.id, appointment_id, coalesce(p.merged_into, p.id) as "patient_id!", form_id, form_version, state,
                  i.version, i.create_time, i.update_time, submit_time
           from patients.intake i join patients.patient p on p.id = i.patient_id
           where i.id = $1 or appointment_id = $2"#,
        id,
        appointment,
    )
    .fetch_optional(conn)
    .await?
    .ok_or_else(|| named.not_found())?;
    Ok(Intake {
        id: row.id.into(),
        appointment: row.appointment_id.into(),
        patient: row.patient_id.into(),
        form: row.form_id.into(),
        form_version: row.form_version,
        state: IntakeState::from_str_name(&row.state).unwrap_or_default(),
        version: row.version,
        create_time: row.create_time,
        update_time: row.update_time,
        submit_time: row.submit_time,
    })
}

/// The answers saved last; `None` = none yet.
pub async fn answers(
    conn: &mut PgConnection,
    keys: &Keys,
    intake: &Intake,
) -> Result<Option<Answers>, Error> {
    let sealed = sqlx::query_scalar!("select answers from patients.intake where id = $1", intake.id.uuid())
        .fetch_one(conn)
        .await?;
    sealed.map(|sealed| open_answers(keys, intake.id, &sealed)).transpose()
}

/// Writes how far an intake is, and its answers.
pub async fn save(
    tx: &mut PgConnection,
    keys: &Keys,
    intake: &Intake,
    answers: &Answers,
) -> Result<(), Error> {
    sqlx::query!(
        "update patients.intake set state = $2, answers = $3, version = $4, update_time = $5, submit_time = $6
         where id = $1",
        intake.id.uuid(),
        intake.state.as_str_name(),
        seal_answers(keys, intake.id, answers)?,
        intake.version,
        intake.update_time,
        intake.submit_time,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Seals at most `limit` answers that an older key sealed with the newest, and answers how many; rows that others hold are left for
/// later. Answers that do not open are logged and stay as they are.
pub async fn reseal(tx: &mut PgConnection, keys: &Keys, limit: i64) -> Result<usize, Error> {
    let rows = sqlx::query!(
        r#"select id, answers as "answers!" from patients.intake
           where substring(answers from 1 for 4) < $1 order by substring(answers from 1 for 4) limit $2
           for update skip locked"#,
        keys.newest_prefix(),
        limit
    )
    .fetch_all(&mut *tx)
    .await?;
    let (mut ids, mut sealed) = (vec![], vec![]);
    for row in rows {
        let id = row.id.into();
        match open_answers(keys, id, &row.answers).and_then(|answers| seal_answers(keys, id, &answers)) {
            Ok(anew) => {
                ids.push(row.id);
                sealed.push(anew);
            }
            Err(error) => {
                let cause = anyhow::Error::new(error);
                tracing::error!(intake = %id, cause = format!("{cause:#}"), "answers cannot be sealed anew");
            }
        }
    }
    sqlx::query!(
        "update patients.intake i set answers = new.answers
         from unnest($1::uuid[], $2::bytea[]) as new (id, answers) where i.id = new.id",
        &ids,
        &sealed
    )
    .execute(tx)
    .await?;
    Ok(ids.len())
}

fn place_of(id: &Uuid) -> Place<'_> {
    Place { table: "intake", column: "answers", row: id.as_bytes() }
}

fn seal_answers(keys: &Keys, id: IntakeId, answers: &Answers) -> Result<Vec<u8>, Error> {
    Ok(keys.seal(place_of(&id.uuid()), answers.text().as_bytes()).map_err(KitError::from)?)
}

fn open_answers(keys: &Keys, id: IntakeId, sealed: &[u8]) -> Result<Answers, Error> {
    let text = keys.open(place_of(&id.uuid()), sealed).map_err(KitError::from)?;
    let text = String::from_utf8(text).map_err(|error| KitError::internal(error.utf8_error()))?;
    Answers::read(&text)
        .map_err(|problem| KitError::internal(anyhow::anyhow!("saved answers: {problem}")).into())
}
