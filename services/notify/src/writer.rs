//! Writes messages: what is known of a visit and its clinic, in the words in force.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use kit::ids::{AppointmentId, ClinicId};
use proto::clinic::notify::v1::{Channel, MessageKind};

use crate::domain::notice::Facts;
use crate::ports::{Clinic, Clinics, Patients};
use crate::templates::Templates;
use crate::words::template::{Placeholder, allowed};
use crate::words::{About, Text};

/// What a message is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Whose name it carries; `None` = nobody's.
    pub clinic: Option<ClinicId>,
    /// The visit.
    pub appointment: Option<AppointmentId>,
    /// When the visit starts.
    pub start: Option<DateTime<Utc>>,
    /// The clinic's zone.
    pub zone: Tz,
    /// Its intake form waits to be filled in.
    pub form_open: bool,
    /// What else is said.
    pub facts: &'a Facts,
}

/// Writes messages; clones share what they remember.
#[derive(Clone)]
pub struct Writer {
    clinics: Arc<dyn Clinics>,
    templates: Templates,
    portal_url: String,
}

impl Writer {
    /// Of `clinics`, in the words of `templates`; links lead to `portal_url`, empty = there are none.
    pub fn new(clinics: Arc<dyn Clinics>, templates: Templates, portal_url: &str) -> Self {
        Self { clinics, templates, portal_url: portal_url.trim_end_matches('/').to_owned() }
    }

    /// The words it writes in.
    pub fn templates(&self) -> &Templates {
        &self.templates
    }

    /// The message of a kind to a recipient of the language `tag`, and the language it is in.
    pub async fn write(
        &self,
        kind: MessageKind,
        channel: Channel,
        tag: &str,
        subject: &Subject<'_>,
    ) -> anyhow::Result<(Text, String)> {
        let clinic = match subject.clinic {
            Some(clinic) => self.clinics.clinic(clinic).await?,
            None => Clinic::default(),
        };
        let link = |page: &str| match subject.appointment {
            Some(appointment) if !self.portal_url.is_empty() => {
                format!("{}/{page}/{appointment}", self.portal_url)
            }
            Some(_) | None => String::new(),
        };
        let (visit_link, form_link) = (link("visits"), link("intake"));
        let about = About {
            clinic_name: &clinic.name,
            clinic_phone: &clinic.phone,
            start: subject.start,
            zone: subject.zone,
            link: &visit_link,
            form_open: subject.form_open,
            intake_link: if subject.form_open { &form_link } else { "" },
            facts: subject.facts,
        };
        let default = self.templates.default_language();
        let tag = if tag.is_empty() { default.tag() } else { tag };
        self.templates.write(kind, channel, tag, |language| about.values(language, default)).await
    }
}

/// Whether a message of `kind` may say that the intake form of `visit` waits; `None` = no form belongs to the visit. Nobody is asked where
/// none does.
pub async fn form_open(
    patients: &dyn Patients,
    kind: MessageKind,
    visit: Option<AppointmentId>,
) -> anyhow::Result<bool> {
    match visit.filter(|_| allowed(kind).contains(&Placeholder::IntakeLink)) {
        Some(visit) => patients.has_open_intake(visit).await,
        None => Ok(false),
    }
}
