//! Runs the example and reads what it prints.

use std::process::Command;

#[test]
fn a_rolled_back_order_has_no_event_and_a_committed_ones_arrives() {
    let output = Command::new(env!("CARGO_BIN_EXE_webhook-example-outbox")).output().expect("it starts");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<_> = printed.lines().collect();
    assert!(lines[0].contains("rolled back: 0 orders") && lines[0].ends_with("is unknown"), "{printed}");
    assert!(lines[1].contains("committed:   1 orders") && !lines[1].ends_with("is unknown"), "{printed}");
    assert!(lines[2].contains(r#""order":2"#), "{printed}");
    assert!(lines[3].ends_with("is delivered"), "{printed}");
}
