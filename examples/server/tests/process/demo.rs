//! The demo does what it promises.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::server::{output, program};

#[tokio::test]
async fn the_demo_shows_failures_retries_and_a_table_within_ten_seconds() {
    let began = Instant::now();
    let demo = output(program().arg("demo")).await;
    let text = String::from_utf8(demo.stdout.clone()).unwrap();
    assert!(demo.status.success() && demo.stderr.is_empty(), "{demo:?}");
    assert!(began.elapsed() < Duration::from_secs(10));

    let arrived: Vec<_> = text.lines().filter(|line| line.contains("signature verified")).collect();
    assert_eq!(arrived.len(), 5, "{text}");
    for (attempt, answer) in [(1, 500), (2, 503), (3, 200)] {
        let wanted = |line: &&&str| {
            line.contains(&format!("attempt {attempt} of order.created"))
                && line.contains(&format!("answered {answer}"))
        };
        assert_eq!(arrived.iter().filter(wanted).count(), 1, "{text}");
    }
    assert!(!text.contains("WRONG"), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains(" delivered ")).count(), 3, "{text}");
    assert!(text.contains("tried again") && text.contains("curl"), "{text}");
}

#[tokio::test]
async fn the_demo_minds_no_settings_for_the_real_server() {
    let variables = [("DATABASE_URL", "postgres://nowhere/none"), ("API_KEYS", "key=acme"), ("PORT", "1")];
    let demo = output(program().envs(variables).arg("demo")).await;
    assert!(demo.status.success(), "{demo:?}");
}
