//! Malformed schemas and answers: errors, no panic, bounded time and memory.

use patients::domain::answers::Answers;
use patients::domain::form::{MAX_PROBLEMS, Questions};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Deep and wide JSON of any kind.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |below| {
        prop_oneof![
            vec(below.clone(), 0..6).prop_map(Value::from),
            btree_map(".{0,6}", below, 0..6).prop_map(|members| members.into_iter().collect::<Value>()),
        ]
    })
}

/// Schemas as somebody might write them, right and wrong: every keyword with a value that fits it, or with anything.
fn schema() -> impl Strategy<Value = Value> {
    let odd_numbers = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!(1e308)),
        Just(json!(5e-324)),
        Just(json!(0)),
    ];
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        ("[a-z]{1,6}|date|email|uri|regex|object|array|string|integer").prop_map(|t| json!({"type": t})),
        ("date|date-time|time|email|uri|uuid|regex|ipv4").prop_map(|f| json!({"format": f})),
        ".{0,20}".prop_map(|p| json!({"pattern": p})),
        "[\\[\\](){}*+?|^$\\\\a-z0-9,.-]{0,24}".prop_map(|p| json!({"type": "string", "pattern": p})),
        vec(any_json(), 0..4).prop_map(|choices| json!({"enum": choices})),
        any_json().prop_map(|value| json!({"const": value})),
        ("multipleOf|minimum|maximum|minLength|maxLength|minItems|maxItems|minProperties", odd_numbers)
            .prop_map(|(keyword, number)| json!({keyword: number})),
        "#|#/|#/properties/a|#/\\$defs/[a-c]|#[a-z]|[a-z]{0,4}:.{0,6}|#/%7[0-9]"
            .prop_map(|uri| json!({"$ref": uri})),
        ("[$a-zA-Z]{1,12}", any_json()).prop_map(|(keyword, value)| json!({keyword: value})),
    ];
    leaf.prop_recursive(5, 60, 5, |below| {
        let several = vec(below.clone(), 0..4);
        let named = btree_map("[a-c]|.{0,4}", below.clone(), 0..4)
            .prop_map(|members| members.into_iter().collect::<Value>())
            .boxed();
        prop_oneof![
            ("allOf|anyOf|oneOf|prefixItems", several).prop_map(|(k, v)| json!({k: v})),
            ("not|if|then|else|items|contains|propertyNames|additionalProperties|unevaluatedItems", below)
                .prop_map(|(k, v)| json!({k: v})),
            ("properties|patternProperties|\\$defs|dependentSchemas", named.clone())
                .prop_map(|(k, v)| json!({k: v})),
            (named.clone(), named, vec("[a-c]", 0..3)).prop_map(|(properties, defs, required)| json!({
                "type": "object", "properties": properties, "$defs": defs, "required": required,
            })),
        ]
    })
}

/// As a form: an object at the top.
fn form() -> impl Strategy<Value = Value> {
    let named =
        btree_map("[a-c]", schema(), 0..4).prop_map(|members| members.into_iter().collect::<Value>()).boxed();
    (named.clone(), named, schema()).prop_map(|(properties, defs, more)| {
        let mut form = json!({"properties": properties, "$defs": defs});
        if let (Some(form), Value::Object(more)) = (form.as_object_mut(), more) {
            form.extend(more);
            form.insert("type".to_owned(), json!("object"));
        }
        form
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_form_is_read_or_refused_and_judges_any_answers(form in form(), answers in any_json()) {
        match Questions::read(&form.to_string()) {
            Err(problems) => prop_assert!(!problems.is_empty() && problems.len() <= MAX_PROBLEMS),
            Ok(questions) => {
                let answers = json!({"a": answers, "b": answers, "c": 1});
                let answers = Answers::read(&answers.to_string()).expect("small");
                prop_assert!(questions.problems(&answers).len() <= MAX_PROBLEMS);
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}", cut in 0..400_usize) {
        let _ = Questions::read(&text);
        let _ = Answers::read(&text);
        let mut cut_off = super::SCHEMA.to_owned();
        cut_off.truncate(cut_off.floor_char_boundary(cut));
        prop_assert!(cut >= super::SCHEMA.len() || Questions::read(&cut_off).is_err());
    }

    #[test]
    fn no_problem_repeats_a_word_of_the_answers(
        form in form(),
        word in "[b-z]{3}q[b-z]{12}",
        shape in 0..5_usize,
    ) {
        let Ok(questions) = Questions::read(&form.to_string()) else { return Ok(()) };
        let placed = match shape {
            0 => json!({"a": word, "b": [word, {"c": word}]}),
            1 => json!({word.clone(): 1, "a": {word.clone(): word}}),
            2 => json!({"a": {"b": {"c": {word.clone(): [word]}}}}),
            3 => json!({"c": [[word]], "b": word}),
            _ => json!({word.clone(): {word.clone(): {word.clone(): null}}}),
        };
        let answers = Answers::read(&placed.to_string()).expect("small");
        for problem in questions.problems(&answers) {
            let told = format!("{} {}", problem.pointer, problem.description);
            prop_assert!(!told.contains(&word), "{told}");
        }
    }
}

#[test]
fn references_that_double_at_each_level_are_refused_at_once() {
    for keyword in ["allOf", "anyOf", "oneOf"] {
        let mut defs = serde_json::Map::new();
        for i in 0..20 {
            let next = json!({"$ref": format!("#/$defs/d{}", i + 1)});
            defs.insert(format!("d{i}"), json!({keyword: [next, next]}));
        }
        defs.insert("d20".to_owned(), json!({"type": "string"}));
        let bomb = json!({"type": "object", "$defs": defs, "properties": {"a": {"$ref": "#/$defs/d0"}}});
        assert!(Questions::read(&bomb.to_string()).is_err(), "{keyword}");
    }
}

#[test]
fn circles_long_chains_and_deep_nests_are_refused() {
    let circle = json!({"type": "object", "properties": {"a": {"$ref": "#"}}});
    let mut chain = serde_json::Map::new();
    for i in 0..3_000 {
        chain.insert(format!("d{i}"), json!({"$ref": format!("#/$defs/d{}", i + 1)}));
    }
    chain.insert("d3000".to_owned(), json!({"type": "string"}));
    let chain = json!({"type": "object", "$defs": chain});
    let mut nest = json!({});
    for _ in 0..50 {
        nest = json!({"type": "object", "properties": {"a": nest}});
    }
    for bad in [circle, chain, nest] {
        assert!(Questions::read(&bad.to_string()).is_err());
    }
    assert!(Questions::read(&"[".repeat(200_000)).is_err());
    assert!(Questions::read(&"{\"a\":".repeat(200_000)).is_err());
    assert!(Answers::read(&"{\"a\":".repeat(10_000)).is_err());
}

#[test]
fn patterns_are_bounded_and_never_backtrack() {
    let with = |pattern: &str| {
        let form = json!({"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}});
        Questions::read(&form.to_string())
    };
    for bad in ["(", "(?=a)b", "(a)\\1", "((a{1000}){1000}){1000}", &"a".repeat(501)] {
        assert!(with(bad).is_err(), "{bad:.40}");
    }
    // Exponential for an engine that backtracks.
    let questions = with("^(([a-z])+.)+[A-Z]([a-z])+$").expect("a pattern");
    let answers = Answers::read(&json!({"a": "a".repeat(16_000)}).to_string()).expect("answers");
    assert_eq!(questions.problems(&answers).len(), 1);
    let patterns: serde_json::Map<_, _> =
        (0..60).map(|i| (format!("p{i}"), json!({"pattern": format!("^{i}")}))).collect();
    let many = json!({"type": "object", "properties": patterns});
    assert!(Questions::read(&many.to_string()).is_err());
}

#[test]
fn the_largest_form_and_the_largest_answers_are_judged() {
    let alternatives: Vec<_> = (0..300).map(|i| json!({"required": [format!("r{i}")]})).collect();
    let properties: serde_json::Map<_, _> =
        (0..1_500).map(|i| (format!("q{i}"), json!({"type": "integer", "title": "a question"}))).collect();
    let form = json!({"type": "object", "properties": properties, "anyOf": alternatives});
    let questions = Questions::read(&form.to_string()).expect("a large form");
    let answers: serde_json::Map<_, _> =
        (0..1_500).map(|i| (format!("q{i}"), json!("a wrong answer of some length"))).collect();
    let answers = Answers::read(&Value::from(answers).to_string()).expect("large answers");
    assert_eq!(questions.problems(&answers).len(), MAX_PROBLEMS);

    // Each of the names that are missing keeps a copy of all answers while it is judged.
    let names: Vec<_> = (0..990).map(|i| format!("r{i}")).collect();
    let form = json!({"type": "object", "anyOf": [{"required": names}]});
    let questions = Questions::read(&form.to_string()).expect("a form of many names");
    let answers = json!({"a": vec!["x".repeat(16_000); 3], "b": vec![1; 1_000]});
    let answers = Answers::read(&answers.to_string()).expect("long answers");
    assert_eq!(questions.problems(&answers).len(), 1);

    let (mut form, mut answers) = (json!({"type": "string"}), json!(1));
    for _ in 0..23 {
        form = json!({"type": "object", "properties": {"a": form}});
        answers = json!({"a": answers});
    }
    let questions = Questions::read(&form.to_string()).expect("the deepest form");
    let answers = Answers::read(&answers.to_string()).expect("the deepest answers");
    assert_eq!(questions.problems(&answers)[0].pointer, "/a".repeat(23));
}

#[test]
fn a_thousand_choices_and_a_hundred_questions_are_an_ordinary_form() {
    let choices: Vec<_> = (0..400).map(|i| format!("choice {i}")).collect();
    let labelled: Vec<_> = (0..40).map(|i| json!({"const": i, "title": format!("label {i}")})).collect();
    let properties: serde_json::Map<_, _> = (0..100)
        .map(|i| {
            let question = match i % 5 {
                0 => json!({"type": "string", "format": "date", "title": "When?"}),
                1 => json!({"type": "string", "maxLength": 500}),
                2 => json!({"type": "array", "items": {"type": "string", "maxLength": 80}, "maxItems": 30}),
                3 if i < 20 => json!({"enum": choices}),
                _ if i < 50 => json!({"oneOf": labelled[..20]}),
                _ => json!({"type": "boolean", "description": "Yes or no?"}),
            };
            (format!("q{i}"), question)
        })
        .collect();
    let form = json!({"type": "object", "properties": properties, "required": ["q0", "q1"],
                      "if": {"properties": {"q1": {"const": "x"}}}, "then": {"required": ["q2"]}});
    let questions = Questions::read(&form.to_string()).map_err(|problems| format!("{problems:?}"));
    let questions = questions.expect("an ordinary form");
    let problems = questions.problems(&Answers::none());
    let missing: Vec<_> = problems.iter().map(|p| p.pointer.as_str()).collect();
    // The condition holds where its question was not answered: JSON Schema has it so.
    assert_eq!(missing, ["/q0", "/q1", "/q2"]);
}
