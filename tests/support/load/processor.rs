//! The CPU time of an Envoy's workers, from the kernel. A busy machine delays threads, but adds
//! little to their CPU time.

use std::path::PathBuf;
use std::time::Duration;

/// The worker threads of an Envoy, as folders in `/proc`; the first worker first.
pub struct Workers(Vec<PathBuf>);

impl Workers {
    pub fn of(process: u32) -> Workers {
        let tasks =
            std::fs::read_dir(format!("/proc/{process}/task")).expect("the threads of Envoy");
        let mut workers: Vec<(String, PathBuf)> = tasks
            .flatten()
            .map(|task| task.path())
            .filter_map(|task| Some((std::fs::read_to_string(task.join("comm")).ok()?, task)))
            .filter(|(name, _)| name.starts_with("wrk:worker_"))
            .collect();
        assert!(!workers.is_empty(), "no worker thread");
        workers.sort();
        Workers(workers.into_iter().map(|(_, task)| task).collect())
    }

    /// The file of the first worker whose first word is its CPU time in nanoseconds.
    pub fn first_schedstat(&self) -> PathBuf {
        self.0[0].join("schedstat")
    }

    /// The CPU time of all workers since they started.
    pub fn time(&self) -> Duration {
        let nanoseconds = |task: &PathBuf| -> u64 {
            let text = std::fs::read_to_string(task.join("schedstat")).expect("the worker's times");
            text.split(' ')
                .next()
                .and_then(|word| word.parse().ok())
                .expect("nanoseconds")
        };
        Duration::from_nanos(self.0.iter().map(nanoseconds).sum())
    }
}
