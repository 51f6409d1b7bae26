//! Deliveries and their attempts as a table.

use std::fmt::Write;

use serde_json::Value;

/// Of deliveries with their attempt logs, as the API gives them.
pub(super) fn deliveries(deliveries: &[Value]) -> String {
    let mut table = String::new();
    line(&mut table, ["delivery", "event type", "state", "attempt", "answer", "took", "then"]);
    for delivery in deliveries {
        let mut lead = [short(text(delivery, "id")), text(delivery, "event_type"), text(delivery, "state")];
        for attempt in delivery["attempt_log"].as_array().into_iter().flatten() {
            let number = attempt["number"].to_string();
            let answer = match &attempt["status_code"] {
                Value::Null => text(&attempt["error"], "kind").to_owned(),
                status => status.to_string(),
            };
            let took = format!("{} ms", attempt["duration_ms"]);
            let then = match (attempt["outcome"].as_str(), attempt["will_retry"].as_bool()) {
                (Some("success"), _) => "done",
                (_, Some(true)) => "tried again",
                _ => "given up",
            };
            let [id, event_type, state] = lead;
            line(&mut table, [id, event_type, state, &number, &answer, &took, then]);
            lead = [""; 3];
        }
    }
    table
}

fn line(table: &mut String, [id, event_type, state, attempt, answer, took, then]: [&str; 7]) {
    // Writing to a string cannot fail.
    let _ = writeln!(table, "  {id:<9}  {event_type:<14}  {state:<9}  {attempt:>7}  {answer:<7}  {took:>6}  {then}");
}

/// The random end of an id: the beginnings of ids made at the same time are alike.
fn short(id: &str) -> &str {
    id.rsplit('-').next().and_then(|end| end.get(4..)).unwrap_or(id)
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object[field].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_attempt_has_a_line() {
        let table = deliveries(&[json!({
            "id": "0198c0de-0000-7000-8000-00000000abcd", "event_type": "order.created", "state": "exhausted",
            "attempt_log": [
                {"number": 1, "duration_ms": 3, "outcome": "failure", "status_code": 503, "will_retry": true},
                {"number": 2, "duration_ms": 9, "outcome": "failure", "error": {"kind": "timeout"}, "will_retry": false},
            ],
        })]);
        let lines: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["0000abcd", "order.created", "exhausted", "1", "503", "3", "ms", "tried", "again"]);
        assert_eq!(lines[2], ["2", "timeout", "9", "ms", "given", "up"]);
    }
}
