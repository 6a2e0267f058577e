//! Forms: JSON Schemas (draft 2020-12) that managers publish and patients answer.
//!
//! A schema is measured before it is compiled, with each reference counted as what it refers to. What passes compiles, and judges
//! any answers, in bounded time and memory: there are no circles, no backtracking patterns, nothing to fetch.

use std::collections::{HashMap, HashSet};

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::{Map, Value};

use super::answers::{Answers, count};

/// What `$schema` may say.
const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Bytes of a schema's text at most.
pub const MAX_SCHEMA: usize = 256 * 1024;
/// Schemas below each other at most, references included.
const MAX_DEPTH: usize = 24;
/// Schemas and values to compare with, references unfolded, at most.
const MAX_SIZE: usize = 10_000;
/// Of these, below `anyOf` and `oneOf`: for each that fails, the answer it was tried on is copied.
const MAX_ALTERNATIVES: usize = 1_000;
/// Patterns, references unfolded, at most.
const MAX_PATTERNS: usize = 50;
/// Characters of a pattern at most.
const MAX_PATTERN: usize = 500;
/// Bytes of a compiled pattern at most, and of what it remembers while it runs.
const MAX_PATTERN_BYTES: usize = 128 * 1024;
/// Characters of a property's name at most.
const MAX_PROPERTY: usize = 100;
/// Problems that are named at most.
pub const MAX_PROBLEMS: usize = 100;
/// Characters of a problem's description at most.
const MAX_DESCRIPTION: usize = 200;

const SCHEMA: [&str; 10] = [
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "$ref",
];
const NAMED_SCHEMAS: [&str; 5] =
    ["$defs", "definitions", "dependentSchemas", "patternProperties", "properties"];
const LISTED_SCHEMAS: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
/// What answers are compared with.
const COMPARED: [&str; 4] = ["const", "dependentRequired", "enum", "required"];
/// Ways to refer elsewhere or in a circle, and rules whose cost doubles with each level.
const REFUSED: [&str; 11] = [
    "$anchor",
    "$dynamicAnchor",
    "$dynamicRef",
    "$id",
    "$recursiveAnchor",
    "$recursiveRef",
    "$vocabulary",
    "dependencies",
    "discriminator",
    "unevaluatedItems",
    "unevaluatedProperties",
];
const FORMATS: [&str; 6] = ["date", "date-time", "email", "time", "uri", "uuid"];

/// What is wrong with one place of a schema or of answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// JSON Pointer (RFC 6901); empty = the whole.
    pub pointer: String,
    /// What is asked there, in English.
    pub description: String,
}

impl Problem {
    /// A problem at `pointer`.
    pub fn new(pointer: impl Into<String>, description: impl Into<String>) -> Self {
        let mut description: String = description.into();
        if let Some((end, _)) = description.char_indices().nth(MAX_DESCRIPTION) {
            description.truncate(end);
            description.push('…');
        }
        Self { pointer: pointer.into(), description }
    }
}

/// A form's questions, ready to judge answers.
#[derive(Debug)]
pub struct Questions {
    schema: Value,
    /// Every property that the schema names.
    properties: HashSet<String>,
    validator: Validator,
}

impl Questions {
    /// Reads a schema's text, or says what is wrong with it, by places in the schema.
    pub fn read(schema_json: &str) -> Result<Self, Vec<Problem>> {
        if schema_json.len() > MAX_SCHEMA {
            return Err(vec![Problem::new("", format!("must have at most {MAX_SCHEMA} bytes"))]);
        }
        let mut schema: Value = serde_json::from_str(schema_json)
            .map_err(|error| vec![Problem::new("", format!("must be JSON: {error}"))])?;
        let Value::Object(root) = &mut schema else {
            return Err(vec![Problem::new("", "must be a JSON object")]);
        };
        // A name for the form elsewhere: nothing here refers to it.
        root.remove("$id");
        let draft = root
            .get("$schema")
            .is_none_or(|uri| uri.as_str().is_some_and(|uri| uri.trim_end_matches('#') == DRAFT));
        let mut survey = Survey::of(&schema);
        if !draft {
            survey.refuse("/$schema", "must be draft 2020-12, or left out");
        }
        if schema.get("type") != Some(&Value::from("object")) {
            survey.refuse("/type", "must be \"object\"");
        }
        survey.measure_all();
        if survey.problems.is_empty() {
            let bad = jsonschema::draft202012::meta::validator();
            let bad = bad.iter_errors(&schema).take(MAX_PROBLEMS);
            survey.problems = bad.map(|e| Problem::new(e.instance_path().as_str(), e.to_string())).collect();
        }
        let Survey { problems, properties, .. } = survey;
        if !problems.is_empty() {
            return Err(problems);
        }
        let properties = properties.into_iter().map(str::to_owned).collect();
        let patterns =
            PatternOptions::regex().size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_BYTES);
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .offline()
            .should_validate_formats(true)
            .with_pattern_options(patterns)
            .build(&schema)
            .map_err(|e| vec![Problem::new(e.instance_path().as_str(), e.to_string())])?;
        Ok(Self { schema, properties, validator })
    }

    /// What is missing or wrong in `answers`, by places in them; at most [`MAX_PROBLEMS`], and no word of the answers.
    pub fn problems(&self, answers: &Answers) -> Vec<Problem> {
        if self.validator.is_valid(answers.value()) {
            return vec![];
        }
        let wrong = self.validator.iter_errors(answers.value()).take(MAX_PROBLEMS);
        wrong.map(|error| answers.problem(&error, &self.properties)).collect()
    }

    /// Whether a translation may stand in for what is at `pointer`: a title, a description, or the label of a choice.
    pub fn is_text(&self, pointer: &str) -> bool {
        let labels = |parent: &str| parent.ends_with("/enum");
        let of_text = pointer
            .rsplit_once('/')
            .is_some_and(|(parent, last)| matches!(last, "title" | "description") || labels(parent));
        of_text && self.schema.pointer(pointer).is_some_and(Value::is_string)
    }
}

/// How much a schema asks, with each reference counted as what it refers to.
#[derive(Clone, Copy, Default)]
struct Size {
    total: usize,
    alternatives: usize,
    patterns: usize,
    depth: usize,
}

impl Size {
    fn add(&mut self, below: Self) {
        self.total = self.total.saturating_add(below.total);
        self.alternatives = self.alternatives.saturating_add(below.alternatives);
        self.patterns = self.patterns.saturating_add(below.patterns);
        self.depth = self.depth.max(below.depth + 1);
    }
}

/// A walk over a schema, once per place in it.
struct Survey<'a> {
    root: &'a Value,
    /// By the address of the place; `None` while it is being measured.
    sizes: HashMap<usize, Option<Size>>,
    properties: HashSet<&'a str>,
    problems: Vec<Problem>,
}

impl<'a> Survey<'a> {
    fn of(root: &'a Value) -> Self {
        Self { root, sizes: HashMap::new(), properties: HashSet::new(), problems: vec![] }
    }

    fn refuse(&mut self, pointer: &str, description: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem::new(pointer, description));
        }
    }

    fn measure_all(&mut self) {
        let Size { total, alternatives, patterns, depth } = self.measure(self.root, "", 0);
        for (found, most, what) in [
            (total, MAX_SIZE, "schemas and values"),
            (alternatives, MAX_ALTERNATIVES, "schemas and values below anyOf and oneOf"),
            (patterns, MAX_PATTERNS, "patterns"),
            (depth, MAX_DEPTH, "levels"),
        ] {
            if found > most {
                self.refuse(
                    "",
                    format!("must have at most {most} {what}, counting again what is referred to"),
                );
            }
        }
    }

    fn measure(&mut self, schema: &'a Value, pointer: &str, level: usize) -> Size {
        let place = std::ptr::from_ref(schema).addr();
        match self.sizes.get(&place) {
            Some(Some(size)) => return *size,
            Some(None) => {
                self.refuse(pointer, "must not refer to what it is a part of");
                return Size::default();
            }
            None => {}
        }
        if level > MAX_DEPTH {
            self.refuse(pointer, format!("must be at most {MAX_DEPTH} levels deep, references included"));
            return Size::default();
        }
        self.sizes.insert(place, None);
        let mut size = Size { total: 1, ..Size::default() };
        if let Value::Object(keywords) = schema {
            for (keyword, value) in keywords {
                let below = format!("{pointer}/{}", escaped(keyword));
                self.keyword(&mut size, keyword, value, &below, level);
            }
        }
        self.sizes.insert(place, Some(size));
        size
    }

    fn keyword(&mut self, size: &mut Size, keyword: &'a str, value: &'a Value, pointer: &str, level: usize) {
        let level = level + 1;
        match (keyword, value) {
            ("$ref", _) => {
                let target = value.as_str().and_then(|uri| uri.strip_prefix('#'));
                match target.and_then(|target| Some((target, self.root.pointer(target)?))) {
                    Some((target, schema)) => size.add(self.measure(schema, target, level)),
                    None => self.refuse(
                        pointer,
                        "must refer to a place in the schema itself, as in \"#/$defs/name\"",
                    ),
                }
            }
            ("$schema", _) if level > 1 => self.refuse(pointer, "may stand at the top only"),
            ("pattern", Value::String(pattern)) => self.pattern(size, pattern, pointer),
            ("format", Value::String(format)) if !FORMATS.contains(&format.as_str()) => {
                self.refuse(pointer, format!("must be one of {}", FORMATS.join(", ")));
            }
            (_, _) if REFUSED.contains(&keyword) => {
                self.refuse(pointer, "is a keyword that forms cannot use")
            }
            (_, _) if SCHEMA.contains(&keyword) => size.add(self.measure(value, pointer, level)),
            (_, Value::Object(named)) if NAMED_SCHEMAS.contains(&keyword) => {
                self.named(size, keyword, named, pointer, level);
            }
            (_, Value::Array(listed)) if LISTED_SCHEMAS.contains(&keyword) => {
                for (i, schema) in listed.iter().enumerate() {
                    let below = self.measure(schema, &format!("{pointer}/{i}"), level);
                    size.add(below);
                    if matches!(keyword, "anyOf" | "oneOf") {
                        // Alternatives within alternatives are tried once more for each level, and counted so.
                        size.alternatives = size.alternatives.saturating_add(below.total);
                    }
                }
            }
            (_, _) if COMPARED.contains(&keyword) => {
                size.total = size.total.saturating_add(count(value).0);
            }
            _ => {}
        }
    }

    fn named(
        &mut self,
        size: &mut Size,
        keyword: &str,
        named: &'a Map<String, Value>,
        pointer: &str,
        level: usize,
    ) {
        for (name, schema) in named {
            let below = format!("{pointer}/{}", escaped(name));
            match keyword {
                "patternProperties" => self.pattern(size, name, &below),
                "properties" => {
                    self.properties.insert(name);
                    if name.chars().count() > MAX_PROPERTY {
                        self.refuse(pointer, format!("names must have at most {MAX_PROPERTY} characters"));
                    }
                }
                _ => {}
            }
            size.add(self.measure(schema, &below, level));
        }
    }

    fn pattern(&mut self, size: &mut Size, pattern: &str, pointer: &str) {
        size.patterns = size.patterns.saturating_add(1);
        if pattern.chars().count() > MAX_PATTERN {
            self.refuse(pointer, format!("must have at most {MAX_PATTERN} characters"));
        }
    }
}

/// A name as a pointer has it.
pub(super) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
