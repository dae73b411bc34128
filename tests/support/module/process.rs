//! The state that the workers of one proxy share: clocks, metrics, shared data. Time passes only
//! when a test sets it.

use super::abi::{BAD_ARGUMENT, CAS_MISMATCH, GAUGE, OK, Status};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// The shared state of all workers of one proxy.
#[derive(Clone, Default)]
pub struct Process {
    /// The wall clock, since the Unix epoch. Can be set to any time.
    pub wall: Duration,
    /// The steady clock, since its own start. Only moves forward.
    pub steady: Duration,
    /// Each value and its version.
    shared_data: BTreeMap<Vec<u8>, (Vec<u8>, u32)>,
    /// The duration of a signature verification by the host.
    pub verification: Duration,
    /// How many times another worker writes a shared value just before a worker does.
    pub lost_races: u32,
    last_version: u32,
    metrics: Vec<Metric>,
}

#[derive(Clone)]
struct Metric {
    name: String,
    kind: u32,
    value: i64,
}

impl Process {
    /// A proxy at this time.
    pub fn at(wall: Duration, steady: Duration) -> Rc<RefCell<Process>> {
        Rc::new(RefCell::new(Process {
            wall,
            steady,
            ..Process::default()
        }))
    }

    /// The value of a counter or gauge; `None` if no module has defined it.
    pub fn metric(&self, name: &str) -> Option<i64> {
        self.metrics
            .iter()
            .find(|metric| metric.name == name)
            .map(|metric| metric.value)
    }

    /// Every metric that is not zero.
    pub fn metrics(&self) -> BTreeMap<&str, i64> {
        let moved = self.metrics.iter().filter(|metric| metric.value != 0);
        moved
            .map(|metric| (metric.name.as_str(), metric.value))
            .collect()
    }

    pub(super) fn define(&mut self, name: String, kind: u32) -> usize {
        let known = self.metrics.iter().position(|metric| metric.name == name);
        known.unwrap_or_else(|| {
            self.metrics.push(Metric {
                name,
                kind,
                value: 0,
            });
            self.metrics.len() - 1
        })
    }

    /// Changes a metric; a counter only grows.
    pub(super) fn increment(&mut self, id: usize, by: i64) -> Status {
        match self.metrics.get_mut(id) {
            Some(metric) if by > 0 || metric.kind == GAUGE => {
                metric.value += by;
                OK
            }
            _ => BAD_ARGUMENT,
        }
    }

    /// A shared value and its version.
    pub(super) fn shared(&self, key: &[u8]) -> Option<(Vec<u8>, u32)> {
        self.shared_data.get(key).cloned()
    }

    /// Writes a shared value if it still has this version; zero matches any.
    pub(super) fn share(&mut self, key: Vec<u8>, value: Vec<u8>, version: u32) -> Status {
        self.last_version += 1;
        if self.lost_races > 0 {
            self.lost_races -= 1;
            let entry = self.shared_data.entry(key.clone()).or_default();
            entry.1 = self.last_version;
            self.last_version += 1;
        }
        let entry = self.shared_data.entry(key).or_default();
        if version != 0 && version != entry.1 {
            return CAS_MISMATCH;
        }
        *entry = (value, self.last_version);
        OK
    }
}
