//! Chromium, without a window.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::until;

/// What the browser made of an address.
#[derive(Debug)]
pub(crate) enum Opened {
    /// It showed a page; this is what became of it after its scripts had two seconds of its time.
    Page(String),
    /// It saved a file.
    Download,
}

pub(crate) async fn open(url: &str) -> Opened {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(webhook_test_servers::chromium());
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--virtual-time-budget=2000", "--timeout=10000"])
        .arg(format!("--user-data-dir={}", home.path().join("profile").display()))
        .args(["--dump-dom", url])
        .env("HOME", home.path())
        .current_dir(home.path())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let downloads = home.path().join("Downloads");
    // After a download it waits for a page for ever.
    let downloaded = until(url, async || saved(&downloads));
    tokio::select! {
        output = command.output() => Opened::Page(String::from_utf8_lossy(&output.unwrap().stdout).into_owned()),
        () = downloaded => Opened::Download,
    }
}

/// There is a file in that folder. The browser takes its name before it has the bytes; nothing here is empty.
fn saved(folder: &Path) -> Option<()> {
    let mut files = std::fs::read_dir(folder).ok()?.filter_map(Result::ok);
    files.any(|file| file.metadata().is_ok_and(|file| file.len() > 0)).then_some(())
}
