//! Finding patients whose names are half remembered.

use std::collections::BTreeSet;

use proto::clinic::auth::v1::Role;
use proto::clinic::patients::v1::{Patient, RegisterPatientRequest, SearchPatientsRequest};
use proto::google::r#type::Date;
use tonic::Code;

use crate::{Suite, bad_fields, refused, someone};

async fn names(suite: &Suite, request: SearchPatientsRequest) -> Vec<String> {
    let found = suite.desk().search_patients(request).await.expect("found").into_inner().matches;
    found.into_iter().map(|m| m.patient.expect("shown").family_name).collect()
}

fn by_name(query: &str) -> SearchPatientsRequest {
    SearchPatientsRequest { query: query.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn typos_accents_order_and_beginnings_do_not_hide_a_patient() {
    let suite = Suite::start().await;
    for (given, family) in [("José María", "Núñez"), ("Katherine", "Johnson"), ("Wei", "Zhang")] {
        suite.registered(someone(given, family, "")).await;
    }
    for query in ["jose nunez", "Nuñez José", "jose mar", "nunes", "NUÑ"] {
        assert_eq!(names(&suite, by_name(query)).await.first().map(String::as_str), Some("Núñez"), "{query}");
    }
    for query in ["kathrine jonson", "johnson, k", "Johnsen Katherine"] {
        assert_eq!(names(&suite, by_name(query)).await, ["Johnson"], "{query}");
    }
    assert!(names(&suite, by_name("Abernathy")).await.is_empty());
}

#[tokio::test]
async fn whole_names_come_before_beginnings_and_those_before_typos() {
    let suite = Suite::start().await;
    for (given, family) in
        [("Martin", "Smyth"), ("Martina", "Smith"), ("Smith", "Martin"), ("Martin", "Smithson"), ("Bo", "Li")]
    {
        suite.registered(someone(given, family, "")).await;
    }
    let mut request = by_name("martin smith");
    let mut ranked = names(&suite, request.clone()).await;
    // Two fit equally well, and stand in the order of their ids' last bytes.
    ranked[1..3].sort();
    assert_eq!(ranked, ["Martin", "Smith", "Smithson", "Smyth"]);
    let found = suite.desk().search_patients(request.clone()).await.expect("found").into_inner().matches;
    assert!(found.windows(2).all(|pair| pair[0].score >= pair[1].score) && found[0].score > found[3].score);

    // One at a time, the same in the same order.
    request.page_size = 1;
    let mut paged = vec![];
    loop {
        let page = suite.desk().search_patients(request.clone()).await.expect("a page").into_inner();
        paged.extend(page.matches);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(paged, found);
    assert_eq!(names(&suite, by_name("bo li")).await, ["Li"]);
    for nobody in ["ba li", "martin", "-- ' &|!:*", "<->", "martin & smith | x"] {
        let found = suite.desk().search_patients(by_name(nobody)).await;
        assert!(found.is_ok() || nobody.starts_with(['-', '<']), "{nobody} is a search or a bad field");
    }
}

#[tokio::test]
async fn letters_with_strokes_apostrophes_and_hyphens_are_found_as_they_are_typed() {
    let suite = Suite::start().await;
    for (given, family) in
        [("Łukasz", "Sørensen"), ("Siobhán", "O’Brien"), ("Anna", "Smith-Jones"), ("伟", "李")]
    {
        suite.registered(someone(given, family, "")).await;
    }
    for (query, family) in [
        ("lukasz sorensen", "Sørensen"),
        ("o'brien", "O’Brien"),
        ("obrien siobhan", "O’Brien"),
        ("jones anna smith", "Smith-Jones"),
        ("smith-jones", "Smith-Jones"),
        ("李 伟", "李"),
    ] {
        assert_eq!(names(&suite, by_name(query)).await, [family], "{query}");
    }
}

#[tokio::test]
async fn phone_birth_date_and_mrn_must_all_match() {
    let suite = Suite::start().await;
    let first =
        suite.registered(Patient { mrn: "M-1".to_owned(), ..someone("Ada", "King", "202-555-0123") }).await;
    suite.registered(Patient { mrn: "M-2".to_owned(), ..someone("Bea", "King", "202-555-0123") }).await;
    let phone = SearchPatientsRequest { phone: "1 (202) 555 0123".to_owned(), ..Default::default() };
    assert_eq!(names(&suite, phone.clone()).await.len(), 2);
    let both = SearchPatientsRequest { mrn: "m-1".to_owned(), birth_date: first.birth_date, ..phone.clone() };
    let found = suite.desk().search_patients(both.clone()).await.expect("found").into_inner().matches;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].matched_fields, ["phone", "birth_date", "mrn"]);
    assert_eq!(found[0].patient.as_ref(), Some(&first));
    let other = Some(Date { year: 1981, month: 1, day: 1 });
    assert!(names(&suite, SearchPatientsRequest { birth_date: other, ..both.clone() }).await.is_empty());

    let mut notify = suite.call_as(Role::Service, "notify");
    let contact = notify.search_patients(phone).await.expect("by phone").into_inner().matches;
    assert!(contact.iter().all(|m| m.patient.as_ref().is_some_and(|p| p.given_name.is_empty())));
    refused(notify.search_patients(both).await, Code::PermissionDenied, "VIEW_NOT_ALLOWED");
    let nothing = suite.desk().search_patients(SearchPatientsRequest::default()).await;
    assert_eq!(bad_fields(&refused(nothing, Code::InvalidArgument, "INVALID_FIELD")), ["query"]);
}

#[tokio::test]
async fn pages_follow_each_other_without_repeating_anyone() {
    let suite = Suite::start().await;
    for i in 0..5 {
        suite.registered(someone("Ada", &format!("King{i}"), "")).await;
    }
    let mut request = SearchPatientsRequest { page_size: 2, ..by_name("ada king") };
    let mut seen = vec![];
    loop {
        let page = suite.desk().search_patients(request.clone()).await.expect("a page").into_inner();
        seen.extend(page.matches.into_iter().map(|m| m.patient.expect("shown").family_name));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    seen.sort();
    assert_eq!(seen, ["King0", "King1", "King2", "King3", "King4"]);
}

/// Registers so many of one name, each born on another day.
async fn namesakes(suite: &Suite, given_name: &'static str, count: u32) {
    const AT_ONCE: u32 = 12;
    let tasks = (0..AT_ONCE).map(|task| {
        let mut desk = suite.desk();
        tokio::spawn(async move {
            for n in (task..count).step_by(AT_ONCE as usize) {
                let born = Date { year: 1930 + n as i32 / 28, month: 1, day: 1 + n as i32 % 28 };
                let patient = Patient { birth_date: Some(born), ..someone(given_name, "King", "") };
                let request = RegisterPatientRequest { patient: Some(patient), ..Default::default() };
                desk.register_patient(request).await.expect("registered");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no panic");
    }
}

/// Every page of a search: ids with scores, and the sizes of the pages.
async fn paged(suite: &Suite, request: &SearchPatientsRequest) -> (Vec<(String, i32)>, Vec<usize>) {
    let (mut request, mut found, mut sizes) = (request.clone(), vec![], vec![]);
    loop {
        let page = suite.desk().search_patients(request.clone()).await.expect("a page").into_inner();
        sizes.push(page.matches.len());
        let scored =
            page.matches.into_iter().map(|m| (m.patient.expect("shown").id, (m.score * 1e3).round() as i32));
        found.extend(scored);
        if page.next_page_token.is_empty() {
            return (found, sizes);
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn hundreds_of_one_name_come_page_by_page_each_once_and_in_one_order() {
    const ADAS: u32 = 300;
    const ADAMS: u32 = 100;
    let suite = Suite::start().await;
    tokio::join!(namesakes(&suite, "Ada", ADAS), namesakes(&suite, "Adam", ADAMS));
    for (query, exact, all) in [
        ("king", ADAS + ADAMS, ADAS + ADAMS),
        ("ada", ADAS, ADAS + ADAMS),
        ("king ada", ADAS, ADAS + ADAMS),
        ("a k", 0, ADAS + ADAMS),
        ("adam", ADAMS, ADAS + ADAMS),
    ] {
        let (whole, _) = paged(&suite, &SearchPatientsRequest { page_size: 500, ..by_name(query) }).await;
        assert_eq!(whole.len(), all as usize, "{query}");
        assert_eq!(whole.iter().collect::<BTreeSet<_>>().len(), whole.len(), "{query}: nobody twice");
        assert!(whole.is_sorted_by(|one, next| one.1 >= next.1), "{query}");
        let best = whole.iter().filter(|(_, score)| *score == 1000).count();
        assert_eq!(best, exact as usize, "{query}");
        for page_size in [7, 100] {
            let (found, sizes) = paged(&suite, &SearchPatientsRequest { page_size, ..by_name(query) }).await;
            assert_eq!(found, whole, "{query} by {page_size}");
            let (_, full) = sizes.split_last().expect("a page");
            assert!(full.iter().all(|size| *size == page_size as usize), "{query}: {sizes:?}");
        }
    }
}
