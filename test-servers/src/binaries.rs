//! Where the servers' binaries are.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The directory of PostgreSQL's own binaries. Debian's `psql` in the `PATH` is a wrapper of them.
pub(crate) fn postgres_dir() -> PathBuf {
    let initdb = find_or_install("initdb", "postgresql", || {
        in_path("initdb").or_else(|| newest(Path::new("/usr/lib/postgresql")).map(|dir| dir.join("bin/initdb")))
    });
    let initdb = fs::canonicalize(&initdb).unwrap_or(initdb);
    initdb.parent().expect("a binary is in a directory").to_owned()
}

pub(crate) fn redis_server() -> PathBuf {
    find_or_install("redis-server", "redis-server", || in_path("redis-server"))
}

pub(crate) fn pgbouncer() -> PathBuf {
    // Debian has it where a user's PATH does not look.
    let sbin = || Some(PathBuf::from("/usr/sbin/pgbouncer")).filter(|path| path.is_file());
    find_or_install("pgbouncer", "pgbouncer", || in_path("pgbouncer").or_else(sbin))
}

/// Chromium, by whatever name it goes, or Chrome; installed like a server where it is missing.
pub fn chromium() -> PathBuf {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    find_or_install("chromium", "chromium", || names.into_iter().find_map(in_path))
}

fn find_or_install(binary: &str, package: &str, find: impl Fn() -> Option<PathBuf>) -> PathBuf {
    if let Some(found) = find() {
        return found;
    }
    // Other test processes miss it at the same moment: one installs, the others wait and look again.
    let lock = File::create(env::temp_dir().join("webhook-test-servers.install.lock")).expect("temp is writable");
    lock.lock().expect("the lock of installations can be taken");
    if let Some(found) = find() {
        return found;
    }
    let advice = format!("{binary} is neither in PATH nor where Debian puts it: install the package {package}");
    assert!(install(package), "{advice} (as root: apt-get install {package})");
    find().unwrap_or_else(|| panic!("{advice}; apt-get did, and it is still not there"))
}

fn install(package: &str) -> bool {
    if in_path("apt-get").is_none() {
        return false;
    }
    let apt = |arguments: &[&str]| {
        let mut command = if rustix::process::getuid().is_root() {
            Command::new("env")
        } else {
            let mut sudo = Command::new("sudo");
            sudo.args(["-n", "env"]);
            sudo
        };
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]).args(arguments);
        command.status().is_ok_and(|status| status.success())
    };
    // A stale list may still name what is there.
    let _ = apt(&["update"]);
    apt(&["install", "-y", "--no-install-recommends", package])
}

fn in_path(binary: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(binary)).find(|path| path.is_file())
}

fn newest(versions: &Path) -> Option<PathBuf> {
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let installed = fs::read_dir(versions).ok()?.flatten().map(|entry| entry.path());
    installed.filter(|dir| dir.join("bin/initdb").is_file()).max_by_key(number)
}
