//! An Envoy's memory, from its own stats and from the kernel.

use crate::envoy::Envoy;
use std::fmt;

/// In bytes.
#[derive(Clone, Debug)]
pub struct Memory {
    /// The process's resident memory.
    pub resident: u64,
    /// The memory handed out by its allocator: everything but V8's own and the modules' memory.
    pub heap: u64,
    /// Each VM's linear memory, which never shrinks; the largest first.
    pub linear: Vec<u64>,
}

impl Memory {
    pub async fn of(envoy: &Envoy) -> Memory {
        let heap = envoy.heap().await;
        let process = envoy.process_id();
        let status = std::fs::read_to_string(format!("/proc/{process}/status"))
            .expect("the status of Envoy");
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("its resident memory");
        let resident: u64 = resident
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("a number");
        let maps = std::fs::read_to_string(format!("/proc/{process}/maps"))
            .expect("the memory map of Envoy");
        Memory {
            resident: resident * 1024,
            heap,
            linear: linear_memories(&maps),
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "resident {:.1} MiB, heap {:.1} MiB, linear",
            mebibytes(self.resident),
            mebibytes(self.heap)
        )?;
        self.linear
            .iter()
            .try_for_each(|bytes| write!(f, " {:.1}", mebibytes(*bytes)))?;
        write!(f, " MiB")
    }
}

/// V8 reserves more than 4 GiB for each linear memory, and makes only the module's part accessible.
fn linear_memories(maps: &str) -> Vec<u64> {
    let mut found = Vec::new();
    let mut before = (0, 0, false);
    for line in maps.lines() {
        let Some((range, rest)) = line.split_once(' ') else {
            continue;
        };
        let Some((start, end)) = range.split_once('-') else {
            continue;
        };
        let address = |text| u64::from_str_radix(text, 16).expect("an address");
        let (start, end) = (address(start), address(end));
        let (before_start, before_end, accessible) = before;
        if rest.starts_with("---p") && end - start > 4 << 30 && accessible && before_end == start {
            found.push(before_end - before_start);
        }
        before = (start, end, rest.starts_with("rw-p"));
    }
    found.sort_by(|a, b| b.cmp(a));
    found
}
