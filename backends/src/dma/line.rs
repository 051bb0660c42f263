//! How long the CPU's cache lines are.

use super::ProbeRoot;

/// The longest line of all caches of all processors, which need not be alike, and who says so.
pub(crate) fn longest_line(root: &ProbeRoot) -> Option<(u32, String)> {
    let processors = "/sys/devices/system/cpu";
    let caches = root.names(processors).into_iter().flat_map(|processor| {
        let folder = format!("{processors}/{processor}/cache");
        let caches = root.names(&folder).into_iter();
        caches.map(move |cache| format!("{folder}/{cache}/coherency_line_size"))
    });
    let lines = caches.filter_map(|source| {
        let line = root.text(&source).ok()?.parse::<u32>().ok()?;
        line.is_power_of_two().then_some((line, source))
    });
    // Of several the first.
    lines.reduce(|longest, line| if line.0 > longest.0 { line } else { longest })
}
