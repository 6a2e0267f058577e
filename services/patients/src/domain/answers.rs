//! Answers to a form: a JSON object within bounds, and what the form says against it, in words of the form alone.

use std::collections::HashSet;
use std::fmt;

use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use serde_json::{Map, Value};

use super::form::{Problem, escaped};

/// Bytes of answers at most.
pub const MAX_ANSWERS: usize = 64 * 1024;
/// Values in them at most, objects and lists included.
const MAX_VALUES: usize = 2_000;
/// Objects and lists within each other at most.
const MAX_DEPTH: usize = 24;
/// Bytes of one text at most: patterns are tried on it.
const MAX_TEXT: usize = 16 * 1024;

/// What a patient answered. Not printed by `Debug`: it would end in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Answers(Value);

impl Answers {
    /// Reads a JSON object within bounds, or says what it must be.
    pub fn read(text: &str) -> Result<Self, String> {
        if text.len() > MAX_ANSWERS {
            return Err(format!("must have at most {MAX_ANSWERS} bytes"));
        }
        // The parser's own words would show what it met.
        let value: Value = serde_json::from_str(text).map_err(|error| {
            format!("must be a JSON object; line {}, column {} is not", error.line(), error.column())
        })?;
        if !value.is_object() {
            return Err("must be a JSON object".to_owned());
        }
        let (values, depth, longest) = count(&value);
        for (found, most, what) in [
            (values, MAX_VALUES, "values"),
            (depth, MAX_DEPTH, "levels"),
            (longest, MAX_TEXT, "bytes in one text"),
        ] {
            if found > most {
                return Err(format!("must have at most {most} {what}"));
            }
        }
        Ok(Self(value))
    }

    /// Nothing answered yet.
    pub fn none() -> Self {
        Self(Value::Object(Map::new()))
    }

    pub(super) fn value(&self) -> &Value {
        &self.0
    }

    /// What the form asks where `error` was found in them. `properties` are the names that the form gives; others are the patient's
    /// words, and a pointer ends before them.
    pub(super) fn problem(&self, error: &ValidationError<'_>, properties: &HashSet<String>) -> Problem {
        let (mut pointer, mut place) = (String::new(), &self.0);
        for segment in error.instance_path().as_str().split('/').skip(1) {
            let name = segment.replace("~1", "/").replace("~0", "~");
            let below = match place {
                Value::Array(entries) => name.parse().ok().and_then(|i: usize| entries.get(i)),
                Value::Object(members) if properties.contains(&name) => members.get(&name),
                _ => None,
            };
            let Some(below) = below else { break };
            place = below;
            pointer = format!("{pointer}/{segment}");
        }
        if let Kind::Required { property: Value::String(name) } = error.kind() {
            return Problem::new(format!("{pointer}/{}", escaped(name)), "is required");
        }
        Problem::new(pointer, asked(error.kind()))
    }

    /// Their JSON text.
    pub fn text(&self) -> String {
        self.0.to_string()
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answers(…)")
    }
}

/// How many values, how deep, and how long the longest text or name. What the parser let through is at most 128 levels deep.
pub(super) fn count(value: &Value) -> (usize, usize, usize) {
    let below: (usize, usize, usize) = match value {
        Value::String(text) => return (1, 0, text.len()),
        Value::Array(items) => items.iter().map(count).fold((0, 0, 0), together),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| together(count(value), (0, 0, name.len())));
            members.fold((0, 0, 0), together)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => return (1, 0, 0),
    };
    (below.0 + 1, below.1 + 1, below.2)
}

fn together(one: (usize, usize, usize), other: (usize, usize, usize)) -> (usize, usize, usize) {
    (one.0 + other.0, one.1.max(other.1), one.2.max(other.2))
}

/// What a rule asks. Whatever a kind holds of the answer stays out: only limits and names that stand in the form are told.
fn asked(kind: &Kind) -> String {
    match kind {
        Kind::Required { .. } => "is required".to_owned(),
        Kind::Type { kind: TypeKind::Single(one) } => format!("must be of type {one}"),
        Kind::Type { kind: TypeKind::Multiple(several) } => {
            let names: Vec<_> = several.iter().map(|one| one.to_string()).collect();
            format!("must be of type {}", names.join(" or "))
        }
        Kind::Enum { .. } => "must be one of the form's choices".to_owned(),
        Kind::Constant { .. } => "must be the one value that the form allows".to_owned(),
        Kind::Minimum { limit } => format!("must be at least {limit}"),
        Kind::Maximum { limit } => format!("must be at most {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("must be more than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("must be a multiple of {multiple_of}"),
        Kind::MinLength { limit } => format!("must have at least {limit} characters"),
        Kind::MaxLength { limit } => format!("must have at most {limit} characters"),
        Kind::MinItems { limit } => format!("must have at least {limit} entries"),
        Kind::MaxItems { limit } => format!("must have at most {limit} entries"),
        Kind::AdditionalItems { limit } => format!("must have no more than {limit} entries"),
        Kind::MinProperties { limit } => format!("must have at least {limit} properties"),
        Kind::MaxProperties { limit } => format!("must have at most {limit} properties"),
        Kind::UniqueItems => "must not have an entry twice".to_owned(),
        Kind::Contains => "must have the entries that the form asks for".to_owned(),
        Kind::Format { format } => format!("must have the format {format}"),
        Kind::Pattern { .. } => "must have the form's pattern".to_owned(),
        Kind::AdditionalProperties { .. } | Kind::PropertyNames { .. } => {
            "has a property that the form does not ask for".to_owned()
        }
        Kind::AnyOf { .. } | Kind::OneOfNotValid { .. } => {
            "must be one of the form's alternatives".to_owned()
        }
        Kind::OneOfMultipleValid { .. } => "must be exactly one of the form's alternatives".to_owned(),
        Kind::FalseSchema => "must be left out".to_owned(),
        Kind::Not { .. } => "must not be what the form excludes".to_owned(),
        _ => "must fit the form".to_owned(),
    }
}
