//! What is wrong with a document, field by field.

use serde_json::Value;
use serde_path_to_error::{Error, Segment};
use webhook_core::Invalid;

use crate::problem::Problem;

/// How often a document is read for its faults, and how many unknown fields are named.
const MOST: usize = 32;

/// Why a document is not what is wanted, and where.
#[derive(Debug)]
pub(crate) struct Fault {
    /// From the outside to the field.
    path: Vec<Step>,
    field: String,
    message: String,
}

#[derive(Debug)]
enum Step {
    Name(String),
    Index(usize),
    Elsewhere,
}

impl From<Error<serde_json::Error>> for Fault {
    fn from(error: Error<serde_json::Error>) -> Self {
        let path = error.path().iter().map(|segment| match segment {
            Segment::Map { key } => Step::Name(key.clone()),
            Segment::Seq { index } => Step::Index(*index),
            _ => Step::Elsewhere,
        });
        Self::at(path.collect(), &error.path().to_string(), &error.inner().to_string())
    }
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        Self::at(Vec::new(), ".", &error.to_string())
    }
}

impl Fault {
    fn at(path: Vec<Step>, dotted: &str, message: &str) -> Self {
        let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
        let named = ["unknown field `", "missing field `", "duplicate field `"]
            .iter()
            .find_map(|start| message.strip_prefix(start)?.split_once('`'))
            .map(|(field, _)| field);
        let dotted = dotted.trim_matches('.');
        let field = match named {
            Some(field) if dotted == field || dotted.ends_with(&format!(".{field}")) => dotted.to_owned(),
            Some(field) if dotted.is_empty() => field.to_owned(),
            Some(field) => format!("{dotted}.{field}"),
            None if dotted.is_empty() => "body".to_owned(),
            None => dotted.to_owned(),
        };
        Self { path, field, message: message.to_owned() }
    }

    /// The fields that there are, where the fault is one that there is not: in the words of serde.
    pub(super) fn expected(&self) -> Option<&str> {
        let (_, expected) = self.message.strip_prefix("unknown field `")?.rsplit_once("`, expected ")?;
        Some(expected)
    }

    /// All that is wrong with `document`, of which this is the first: one field that is not known is no reason to keep
    /// silent about the next. `fault_of` reads what is left of the document.
    pub(super) fn with_others(self, mut document: Value, fault_of: impl Fn(&Value) -> Option<Self>) -> Problem {
        let (mut invalid, mut named) = (Invalid::new(), 0);
        let mut next = Some(self);
        for _ in 0..MOST {
            let Some(fault) = next else { break };
            let removed = fault.remove_unknown(&mut document);
            if removed.is_empty() {
                invalid.push(fault.field, fault.message);
                break;
            }
            for (field, message) in removed {
                if named < MOST {
                    invalid.push(field, message);
                    named += 1;
                }
            }
            next = fault_of(&document);
        }
        invalid.into()
    }

    /// Takes the unknown field and the unknown ones beside it out of the document; each with its message.
    fn remove_unknown(&self, document: &mut Value) -> Vec<(String, String)> {
        let Some((expected, Step::Name(name), parents)) =
            self.expected().zip(self.path.split_last()).map(|(expected, (last, parents))| (expected, last, parents))
        else {
            return Vec::new();
        };
        let Some(prefix) = self.field.strip_suffix(name.as_str()) else { return Vec::new() };
        let parent = parents.iter().try_fold(document, |value, step| match step {
            Step::Name(name) => value.get_mut(name),
            Step::Index(index) => value.get_mut(index),
            Step::Elsewhere => None,
        });
        let Some(Value::Object(fields)) = parent else { return Vec::new() };
        let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        let mut removed = Vec::new();
        fields.retain(|name, _| {
            let keep = known.contains(&name.as_str());
            if !keep {
                removed.push((format!("{prefix}{name}"), format!("unknown field `{name}`, expected {expected}")));
            }
            keep
        });
        removed
    }
}
