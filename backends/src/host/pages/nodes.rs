//! The NUMA nodes of the host, and taking memory on one of them.
//!
//! The rule that the `unsafe` blocks here rely on: both system calls read or write nothing but the
//! mode and the mask that they are given, which are as long as they are told.
#![expect(unsafe_code, reason = "libc has no wrapper for memory policies")]

use std::path::Path;

/// Bits of a mask of nodes: as many as any kernel is built for.
const BITS: usize = 1024;

/// The nodes that a source takes memory on.
pub(super) struct Nodes {
    /// Their numbers in the kernel, in order.
    ids: Vec<u32>,
}

impl Nodes {
    /// Those of the machine; node 0 where the kernel says nothing about any.
    pub(super) fn of_host() -> Self {
        let mut ids = ids_in(Path::new("/sys/devices/system/node"));
        if ids.is_empty() {
            ids.push(0);
        }
        ids.truncate(usize::from(u8::MAX));
        Self { ids }
    }

    /// `n` nodes, or one if `n` is zero, that need not exist.
    pub(super) fn pretended(n: u8) -> Self {
        Self {
            ids: (0..u32::from(n.max(1))).collect(),
        }
    }

    /// How many.
    pub(super) fn count(&self) -> u8 {
        u8::try_from(self.ids.len()).expect("truncated to it")
    }

    /// Does `work`, whose memory comes from `node` as long as that has some. Where there is one
    /// node only, or where the kernel lets nobody choose, `work` is just done.
    pub(super) fn prefer<R>(&self, node: u8, work: impl FnOnce() -> R) -> R {
        let id = self.ids[usize::from(node)];
        let _restored = (self.ids.len() > 1).then(|| Preference::set(id));
        work()
    }
}

/// Directories named `node` and a number.
fn ids_in(dir: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut ids: Vec<u32> = names
        .filter_map(|name| name.strip_prefix("node")?.parse().ok())
        .filter(|id| (*id as usize) < BITS)
        .collect();
    ids.sort_unstable();
    ids
}

/// The memory policy that this thread had, which is its policy again after the drop.
struct Preference {
    before: Option<Policy>,
}

impl Preference {
    fn set(node: u32) -> Self {
        // A policy that cannot be restored is not changed.
        let before = Policy::of_thread();
        if before.is_some() {
            Policy::preferring(node).apply();
        }
        Self { before }
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            before.apply();
        }
    }
}

/// A memory policy of a thread.
struct Policy {
    mode: libc::c_int,
    nodes: [u64; BITS / 64],
}

impl Policy {
    fn preferring(node: u32) -> Self {
        let mut nodes = [0; BITS / 64];
        // Below `BITS`, as `ids_in` sees to.
        nodes[node as usize / 64] |= 1 << (node % 64);
        Self {
            mode: libc::MPOL_PREFERRED,
            nodes,
        }
    }

    fn of_thread() -> Option<Self> {
        let mut policy = Self {
            mode: 0,
            nodes: [0; BITS / 64],
        };
        let none = core::ptr::null::<libc::c_void>();
        // SAFETY: the mode is an int, the mask has `BITS` bits, and neither is used meanwhile
        // (rule above).
        let answer = unsafe {
            libc::syscall(
                libc::SYS_get_mempolicy,
                &raw mut policy.mode,
                policy.nodes.as_mut_ptr(),
                BITS,
                none,
                0,
            )
        };
        (answer == 0).then_some(policy)
    }

    /// Makes it the thread's. The kernel refuses a node that it does not have: the thread keeps its
    /// policy then, and memory comes from wherever it came from before.
    fn apply(&self) {
        // SAFETY: the mask has `BITS` bits, and the kernel only reads it (rule above).
        let _ = unsafe {
            libc::syscall(
                libc::SYS_set_mempolicy,
                self.mode,
                self.nodes.as_ptr(),
                BITS,
            )
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_nodes() {
        let nodes = Nodes::of_host();
        assert!(nodes.count() >= 1);
        assert!(ids_in(Path::new("/nowhere")).is_empty());
    }

    #[test]
    fn the_policy_of_a_thread_is_the_same_afterwards() {
        let Some(before) = Policy::of_thread() else {
            println!("SKIPPED: the kernel tells no memory policy here");
            return;
        };
        let nodes = Nodes::pretended(2);
        for node in [0, 1] {
            let during = nodes.prefer(node, || Policy::of_thread().unwrap());
            if node == 0 {
                assert_eq!((during.mode, during.nodes[0]), (libc::MPOL_PREFERRED, 1));
            }
            let after = Policy::of_thread().unwrap();
            assert_eq!((after.mode, after.nodes), (before.mode, before.nodes));
        }
    }

    #[test]
    fn one_node_is_preferred_without_asking() {
        let nodes = Nodes::pretended(0);
        assert_eq!(nodes.count(), 1);
        let Some(before) = Policy::of_thread() else {
            return;
        };
        let during = nodes.prefer(0, || Policy::of_thread().unwrap());
        assert_eq!(during.mode, before.mode);
    }
}
