//! A server's directory, its process, and who removes both when the test process is gone.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Waits for the end of its input, which comes when the test process ends, however it ends. The directory is renamed
/// before the process in it is looked for: one that is only being started can then start no more.
const WATCHDOG: &str = r#"
cat >/dev/null
mv "$1" "$1.gone"
if read -r pid <"$1.gone/pid"; then
    kill -CONT "$pid"
    kill -s "$2" "$pid"
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        kill -0 "$pid" || break
        sleep 0.1
    done
    kill -KILL "$pid"
fi
rm -rf "$1.gone"
"#;

/// Leaves its number where the watchdog finds it, and becomes the server.
const LAUNCHER: &str = r#"echo $$ >"$0/pid" && exec "$@""#;

const POLL: Duration = Duration::from_millis(10);

/// A directory with at most one server process in it, a direct child of this process. Both are gone when this is
/// dropped, or when the process ends.
#[derive(Debug)]
pub(crate) struct Home {
    dir: PathBuf,
    child: Mutex<Option<Child>>,
    watchdog: Mutex<Child>,
}

impl Home {
    /// A new directory. `farewell` is the signal by which its server ends without leaving anything behind.
    pub(crate) fn new(name: &str, farewell: &str) -> Self {
        let dir = tempfile::Builder::new().prefix(&format!("webhook-test-{name}-")).tempdir();
        let dir = dir.expect("temp is writable").keep();
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(&dir)
            .arg(farewell)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // An interrupt from the terminal is for the tests; the watchdog cleans up after them.
            .process_group(0)
            .spawn();
        Self { dir, child: Mutex::default(), watchdog: Mutex::new(watchdog.expect("sh runs")) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    /// Starts the server.
    pub(crate) fn spawn<S: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = S>) {
        let mut child = self.child();
        assert!(child.is_none(), "the server runs already");
        let log = |file: File| Stdio::from(file);
        let file = OpenOptions::new().create(true).append(true).open(self.log_path()).expect("the log opens");
        let spawned = Command::new("sh")
            .args(["-c", LAUNCHER])
            .arg(&self.dir)
            .args(command)
            .stdin(Stdio::null())
            .stdout(log(file.try_clone().expect("the log opens")))
            .stderr(log(file))
            .process_group(0)
            .spawn();
        *child = Some(spawned.expect("sh runs"));
    }

    /// The server's process, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// Sends a signal to the server's process.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.pid().expect("the server runs");
        send(pid, signal);
    }

    /// Sends a signal that ends the server, and waits until it has. A killed process that nobody waited for still looks
    /// alive to the next one in its directory.
    pub(crate) fn end(&self, signal: Signal) {
        let Some(mut child) = self.child().take() else { return };
        send(child.id(), signal);
        if !wait_for(Duration::from_secs(20), || matches!(child.try_wait(), Ok(Some(_)))) {
            send(child.id(), Signal::KILL);
        }
        child.wait().expect("a child can be waited for");
        let _ = fs::remove_file(self.dir.join("pid"));
    }

    /// Whether the server's process has ended by itself; it is forgotten then.
    pub(crate) fn ended(&self) -> bool {
        let mut child = self.child();
        let ended = child.as_mut().is_none_or(|child| matches!(child.try_wait(), Ok(Some(_))));
        if ended && child.take().is_some() {
            let _ = fs::remove_file(self.dir.join("pid"));
        }
        ended
    }

    /// What the server wrote to its log so far.
    pub(crate) fn log(&self) -> String {
        fs::read(self.log_path()).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.end(Signal::KILL);
        let mut watchdog = self.watchdog.lock().unwrap_or_else(PoisonError::into_inner);
        drop(watchdog.stdin.take());
        let _ = watchdog.wait();
    }
}

/// Looks again and again until something holds; false when it did not in time.
pub(crate) fn wait_for(at_most: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let looks = at_most.as_millis() / POLL.as_millis();
    for _ in 0..looks {
        if holds() {
            return true;
        }
        thread::sleep(POLL);
    }
    holds()
}

pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process has a number");
    // It may have ended meanwhile.
    let _ = kill_process(pid, signal);
}
