//! Merge patches.

use serde_json::{Map, Value};

/// RFC 7396 section 2.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(present) = target {
        for (name, value) in fields {
            if value.is_null() {
                present.remove(name);
            } else {
                merge(present.entry(name.as_str()).or_insert(Value::Null), value);
            }
        }
    }
}
