//! Other programs: a run to the end, and a running one. Where `make` leaves Helm.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// The longest that a program takes to start, on a busy machine.
pub const START_UP: std::time::Duration = std::time::Duration::from_secs(90);

/// Runs a program to its end. Returns its standard output, or on failure everything it printed.
pub async fn run(command: &mut Command, input: &str) -> Result<String, String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("its input");
    let input = input.to_owned();
    // A program that ends early does not read its input.
    tokio::spawn(async move { drop(stdin.write_all(input.as_bytes()).await) });
    let output = child.wait_with_output().await.expect("its end");
    let (out, error) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    if output.status.success() {
        Ok(out)
    } else {
        Err(out + &error)
    }
}

/// A program that runs until it is dropped. Its output is in `FOLDER/NAME.log`.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    pub fn start(name: &str, folder: &Path, command: &mut Command) -> Running {
        let log = folder.join(format!("{name}.log"));
        let file = std::fs::File::create(&log).expect("a log file");
        let child = command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("the log file"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {name}: {error}"));
        Running { child, log }
    }

    /// The last lines of its output.
    pub fn log(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(40)..];
        format!("--- {}\n{}\n", self.log.display(), last.join("\n"))
    }
}

impl Drop for Running {
    /// Waits until it has ended: the next test listens on the same ports.
    fn drop(&mut self) {
        drop(self.child.start_kill());
        while let Ok(None) = self.child.try_wait() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// Helm, which `make` installs.
pub fn helm() -> PathBuf {
    PathBuf::from(std::env::var_os("ALB_OIDC_HELM").expect("ALB_OIDC_HELM, which `make` sets"))
}
