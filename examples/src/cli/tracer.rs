//! Whether somebody traces this process.

/// Whether a debugger or `strace` does. Such a tracer reads what the arguments of system calls
/// point to: at a window whose content is still to come it would wait for a thread that waits for
/// the tracer. So a traced program hands no windows to system calls.
#[must_use]
pub fn is_traced() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let tracer = status
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() != "0")
}
