//! Messages asked for, and templates: between the wire and [`crate::app`].

use std::collections::BTreeMap;

use kit::auth::Caller;
use kit::fields::{Fields, timestamp};
use proto::clinic::auth::v1::Role;
use proto::clinic::notify::v1 as pb;
use proto::clinic::notify::v1::{Channel, MessageKind};

use crate::app::{Wish, Words, etag};
use crate::gsm7;
use crate::store::templates::Stored;
use crate::templates::{self, InForce};
use crate::words::template::{Pattern, Placeholder, Values, clean, longest_values};

/// What the front desk may have sent.
const DESK: [MessageKind; 5] = [
    MessageKind::Booked,
    MessageKind::IntakeOpen,
    MessageKind::PaymentProblem,
    MessageKind::LateVisit,
    MessageKind::CallClinic,
];
/// Characters of a language tag at most (BCP 47, section 4.4.1).
const MOST_TAG: usize = 35;

/// The message that somebody asks for.
pub(super) fn wish(fields: &mut Fields, caller: &Caller, request: &pb::SendMessageRequest) -> Wish {
    let kind = request.kind();
    let allowed = DESK.contains(&kind) || kind == MessageKind::SignInCode && caller.is(Role::Service);
    fields.ensure(allowed, "kind", "must be a kind that the caller may have sent");
    Wish {
        id: fields.optional_id("message_id", &request.message_id),
        patient: fields.id("patient_id", &request.patient_id),
        appointment: fields.optional_id("appointment_id", &request.appointment_id),
        kind,
        channel: channel(fields, "channel", request.channel).unwrap_or_default(),
        language: language(fields, "language", &request.language),
        values: request.values.clone().into_iter().collect(),
    }
}

/// The template that somebody sets or looks at.
pub(super) fn template(fields: &mut Fields, template: Option<&pb::Template>) -> Words {
    let absent = pb::Template::default();
    let template = template.unwrap_or(&absent);
    let kind = template.kind();
    let known = !matches!(kind, MessageKind::Unspecified | MessageKind::Inbound);
    fields.ensure(known, "template.kind", "must be a kind of message that has words");
    let channel = channel(fields, "template.channel", template.channel);
    fields.ensure(
        channel.is_some_and(|channel| channel != Channel::Unspecified),
        "template.channel",
        "must be SMS or EMAIL",
    );
    fields.ensure(
        !template.language.is_empty(),
        "template.language",
        "is required: a tag such as es or es-MX",
    );
    Words {
        kind,
        channel: channel.unwrap_or_default(),
        language: language(fields, "template.language", &template.language),
        subject: template.subject.clone(),
        body: template.body.clone(),
        etag: template.etag.clone(),
    }
}

fn channel(fields: &mut Fields, field: &str, value: i32) -> Option<Channel> {
    let known = Channel::try_from(value).ok();
    fields.ensure(known.is_some(), field, "must be a value of the contract");
    known
}

/// A language tag, or none; only its shape is checked.
fn language(fields: &mut Fields, field: &str, tag: &str) -> String {
    let subtag =
        |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric());
    let good = tag.is_empty() || tag.len() <= MOST_TAG && tag.split('-').all(subtag);
    fields.ensure(good, field, "must be a BCP 47 tag such as es or es-MX");
    tag.to_owned()
}

/// Sample values by placeholder.
pub(super) fn values(fields: &mut Fields, given: &BTreeMap<String, String>) -> Values {
    let mut values = Values::new();
    for (name, value) in given {
        match Placeholder::of(name) {
            Some(known) => {
                values.insert(known, clean(value));
            }
            None => fields.refuse(format!("values.{name}"), "is no placeholder"),
        }
    }
    values
}

/// A template as it was set.
pub(super) fn stored(stored: &Stored) -> pb::Template {
    let builtin = stored.body.is_empty();
    pb::Template {
        kind: stored.kind.into(),
        channel: stored.channel.into(),
        language: stored.language.clone(),
        subject: stored.subject.clone(),
        body: stored.body.clone(),
        version: if builtin { 0 } else { stored.version },
        etag: etag(stored.version),
        update_time: (!builtin).then(|| timestamp(stored.update_time)),
        updated_by: if builtin { String::new() } else { stored.updated_by.clone() },
    }
}

/// What words make of samples: those given, or, where `wish` has none, those in force.
pub(super) fn preview(wish: Words, given: Values, found: Option<InForce>) -> pb::PreviewTemplateResponse {
    let template = if wish.body.is_empty() && wish.subject.is_empty() {
        in_force(&wish, found)
    } else {
        pb::Template {
            kind: wish.kind.into(),
            channel: wish.channel.into(),
            language: wish.language.clone(),
            subject: wish.subject.clone(),
            body: wish.body.clone(),
            etag: wish.etag.clone(),
            ..pb::Template::default()
        }
    };
    let shown = Words { subject: template.subject.clone(), body: template.body.clone(), ..wish };
    let mut problems: Vec<String> =
        shown.problems().into_iter().map(|(field, sentence)| format!("{field}: {sentence}")).collect();
    if template.body.is_empty() {
        problems.push("body: there are no words of this kind in this channel".to_owned());
    }
    let mut answer = pb::PreviewTemplateResponse { problems, template: Some(template), ..Default::default() };
    let patterns = [&shown.subject, &shown.body].map(|text| Pattern::parse(text));
    if let [Ok(subject), Ok(body)] = patterns {
        let used: Vec<Placeholder> = subject.placeholders().union(&body.placeholders()).copied().collect();
        let mut values: Values =
            [longest_values(&subject), longest_values(&body)].into_iter().flatten().collect();
        values.extend(given);
        answer.placeholders = used.iter().map(|name| name.name().to_owned()).collect();
        if let Ok(text) = templates::fill(shown.channel, &shown.subject, &shown.body, values) {
            if shown.channel == Channel::Sms {
                answer.non_gsm7_characters = gsm7::foreign(&text.body);
            }
            answer.encoding = text.measure.encoding.into();
            answer.segments = text.measure.segments as i32;
            answer.length_units = text.measure.units as i32;
            answer.subject = text.subject;
            answer.text = text.body;
        }
    }
    answer
}

/// The words in force for a language, under the language they are in.
fn in_force(wish: &Words, found: Option<InForce>) -> pb::Template {
    let Some(found) = found else {
        return pb::Template {
            kind: wish.kind.into(),
            channel: wish.channel.into(),
            language: wish.language.clone(),
            etag: etag(0),
            ..pb::Template::default()
        };
    };
    let set = found.stored.as_ref().filter(|stored| !stored.body.is_empty());
    pb::Template {
        kind: wish.kind.into(),
        channel: wish.channel.into(),
        language: found.language.clone(),
        subject: found.subject.clone(),
        body: found.body.clone(),
        version: set.map_or(0, |stored| stored.version),
        etag: etag(found.stored.as_ref().map_or(0, |stored| stored.version)),
        update_time: set.map(|stored| timestamp(stored.update_time)),
        updated_by: set.map(|stored| stored.updated_by.clone()).unwrap_or_default(),
    }
}
