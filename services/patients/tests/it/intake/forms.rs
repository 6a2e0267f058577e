//! Forms: published in versions, translated, refused with every reason.

use proto::clinic::auth::v1::Role;
use proto::clinic::patients::v1::{
    Form, FormTranslation, GetFormRequest, ListFormsRequest, PublishFormRequest,
};
use tonic::Code;

use super::{SCHEMA, form, no_form};
use crate::{Suite, bad_fields, nobody, refused};

fn translation(language: &str, texts: &[(&str, &str)]) -> FormTranslation {
    let texts = texts.iter().map(|(place, text)| ((*place).to_owned(), (*text).to_owned())).collect();
    FormTranslation { language: language.to_owned(), texts }
}

fn next(form_id: &str, etag: &str, schema_json: &str) -> PublishFormRequest {
    let form = Form { etag: etag.to_owned(), ..form(schema_json) };
    PublishFormRequest { form_id: form_id.to_owned(), form: Some(form), ..PublishFormRequest::default() }
}

#[tokio::test]
async fn versions_follow_each_other_and_each_stays_readable() {
    let suite = Suite::start().await;
    let mut max = suite.intakes(Role::Manager, "max");
    let mut request = next("", "", SCHEMA);
    request.request_id = nobody();
    let spanish = [
        ("/properties/smokes/title", "¿Fuma?"),
        ("/properties/smokes/enum/0", "sí"),
        ("/$defs/allergy/properties/name/title", "¿A qué?"),
    ];
    request.form.as_mut().expect("a form").translations = vec![translation("es", &spanish)];
    let first = max.publish_form(request.clone()).await.expect("published").into_inner();
    assert_eq!((first.version, first.published_by.as_str()), (1, "max"));
    assert_eq!(max.publish_form(request).await.expect("the same again").into_inner(), first);

    let second = max.publish_form(next(&first.id, &first.etag, r#"{"type": "object"}"#)).await;
    let second = second.expect("published").into_inner();
    assert_eq!((&second.id, second.version), (&first.id, 2));
    let stale = max.publish_form(next(&first.id, &first.etag, SCHEMA)).await;
    refused(stale, Code::Aborted, "ETAG_MISMATCH");
    refused(max.publish_form(next(&first.id, "", SCHEMA)).await, Code::Aborted, "ETAG_MISMATCH");

    let mut patient = suite.intakes(Role::Patient, &nobody());
    let get = |version| GetFormRequest { form_id: first.id.clone(), version };
    assert_eq!(patient.get_form(get(0)).await.expect("the newest").into_inner(), second);
    let shown = patient.get_form(get(1)).await.expect("the first").into_inner();
    assert_eq!((shown.schema_json.as_str(), shown.translations.len()), (SCHEMA, 1));
    assert_eq!(shown, first);
    refused(patient.get_form(get(3)).await, Code::NotFound, "FORM_NOT_FOUND");
    let none = GetFormRequest { form_id: no_form(), version: 0 };
    refused(patient.get_form(none).await, Code::NotFound, "FORM_NOT_FOUND");
}

#[tokio::test]
async fn lists_have_the_newest_of_each_form_by_name_or_every_version_of_one() {
    let suite = Suite::start().await;
    let mut max = suite.intakes(Role::Manager, "max");
    let chosen = no_form();
    for (name, id, etag) in [("B", chosen.as_str(), ""), ("C", &chosen, "1"), ("A", "", ""), ("D", "", "")] {
        let mut request = next(id, etag, SCHEMA);
        request.form.as_mut().expect("a form").name = name.to_owned();
        max.publish_form(request).await.expect("published");
    }
    let mut seen = vec![];
    let mut request = ListFormsRequest { page_size: 2, ..ListFormsRequest::default() };
    loop {
        let page = max.list_forms(request.clone()).await.expect("a page").into_inner();
        assert!(page.forms.iter().all(|form| form.schema_json.is_empty()));
        seen.extend(page.forms.into_iter().map(|form| (form.name, form.version)));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, [("A", 1), ("C", 2), ("D", 1)].map(|(name, version)| (name.to_owned(), version)));

    let mut request = ListFormsRequest { form_id: chosen, page_size: 1, page_token: String::new() };
    let newest = max.list_forms(request.clone()).await.expect("a page").into_inner();
    request.page_token = newest.next_page_token;
    let oldest = max.list_forms(request).await.expect("a page").into_inner();
    assert_eq!((newest.forms[0].version, oldest.forms[0].version), (2, 1));
    assert_eq!(oldest.next_page_token, "");
}

#[tokio::test]
async fn every_fault_of_a_form_is_named_by_its_place() {
    let suite = Suite::start().await;
    let mut max = suite.intakes(Role::Manager, "max");
    let schema = r##"{
        "type": "array",
        "$schema": "http://json-schema.org/draft-07/schema#",
        "properties": {
            "a/b": {"$ref": "https://example.com/form.json"},
            "again": {"$ref": "#/properties/again"},
            "secret": {"format": "regex", "unevaluatedProperties": false}
        }
    }"##;
    let bad = Form {
        language: "English".to_owned(),
        translations: vec![
            translation("es", &[("/properties/nothing/title", "nada")]),
            translation("ES", &[("/type", "")]),
        ],
        name: String::new(),
        ..form(schema)
    };
    let request = PublishFormRequest { form: Some(bad), ..PublishFormRequest::default() };
    let status = refused(max.publish_form(request).await, Code::InvalidArgument, "INVALID_FIELD");
    let mut named = bad_fields(&status);
    named.sort();
    let expected = [
        "form.language",
        "form.name",
        "form.schema_json/$schema",
        "form.schema_json/properties/again",
        "form.schema_json/properties/a~1b/$ref",
        "form.schema_json/properties/secret/format",
        "form.schema_json/properties/secret/unevaluatedProperties",
        "form.schema_json/type",
        "form.translations[1].language",
        "form.translations[1].texts[/type]",
    ];
    assert_eq!(named, expected);

    let places = [translation("es", &[("/properties/nothing/title", "nada"), ("/required/0", "fuma")])];
    let misplaced = Form { translations: places.to_vec(), ..form(SCHEMA) };
    let request = PublishFormRequest { form: Some(misplaced), ..PublishFormRequest::default() };
    let status = refused(max.publish_form(request).await, Code::InvalidArgument, "INVALID_FIELD");
    let places = ["/properties/nothing/title", "/required/0"];
    assert_eq!(bad_fields(&status), places.map(|p| format!("form.translations[0].texts[{p}]")));
}

#[tokio::test]
async fn only_managers_and_admins_publish() {
    let suite = Suite::start().await;
    for role in [Role::FrontDesk, Role::Provider, Role::Patient, Role::Service] {
        let answer = suite.intakes(role, &nobody()).publish_form(next("", "", SCHEMA)).await;
        refused(answer, Code::PermissionDenied, "ROLE_REQUIRED");
    }
    suite.intakes(Role::Admin, "root").publish_form(next("", "", SCHEMA)).await.expect("published");
}
