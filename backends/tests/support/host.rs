//! What the tests of the host backends share: a census of what is left behind, words that name
//! their owner, folders, small disks, limits of a process.
#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::Command;

use placement::PageCount;
use ttm::pages::Mapped;
use ttm::sync::{Mutex, MutexGuard};

static TURN: Mutex<()> = Mutex::new(());

pub(crate) fn pages(n: u64) -> PageCount {
    PageCount::new(n).unwrap()
}

/// Descriptors and mappings of page files that are there at the end as at the beginning. They are
/// the whole process's, so whoever makes such a file holds one of these: one test at a time.
pub(crate) struct NothingLeft {
    fds: usize,
    maps: usize,
    _turn: MutexGuard<'static, ()>,
}

impl NothingLeft {
    pub(crate) fn expected() -> Self {
        let turn = TURN.lock();
        Self {
            fds: fds(),
            maps: maps(),
            _turn: turn,
        }
    }
}

impl Drop for NothingLeft {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(
                (fds(), maps()),
                (self.fds, self.maps),
                "descriptors, mappings"
            );
        }
    }
}

/// Memory files, and files without a name.
pub(crate) fn fds() -> usize {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    targets
        .filter(|t| t.to_string_lossy().ends_with(" (deleted)"))
        .count()
}

pub(crate) fn maps() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|l| l.contains("memfd:")).count()
}

/// Words that say which page of which owner they are.
pub(crate) fn stamp(mapped: &Mapped, owner: u64) {
    for page in 0..mapped.len() / 4096 {
        let word = owner << 32 | page as u64;
        for n in 0..512 {
            mapped.write(page * 4096 + n * 8, &(word + n as u64).to_le_bytes());
        }
    }
}

pub(crate) fn assert_stamped(mapped: &Mapped, owner: u64) {
    for page in 0..mapped.len() / 4096 {
        let word = owner << 32 | page as u64;
        for n in 0..512 {
            let mut bytes = [0; 8];
            mapped.read(page * 4096 + n * 8, &mut bytes);
            assert_eq!(u64::from_le_bytes(bytes), word + n as u64, "page {page}");
        }
    }
}

pub(crate) fn is_zero(mapped: &Mapped) -> bool {
    let mut bytes = vec![1; mapped.len()];
    mapped.read(0, &mut bytes);
    bytes.iter().all(|b| *b == 0)
}

pub(crate) fn temp_dir(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("ttm-host-test-{}-{name}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    dir
}

pub(crate) struct Tmpfs(pub(crate) PathBuf);

impl Tmpfs {
    pub(crate) fn of_64_kib() -> Option<Self> {
        let dir = temp_dir("tmpfs");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
            .arg(&dir)
            .output();
        if mounted.is_ok_and(|out| out.status.success()) {
            return Some(Self(dir));
        }
        std::fs::remove_dir(&dir).unwrap();
        None
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let umount = |dir: &Path| Command::new("umount").arg("-l").arg(dir).status();
        if umount(&self.0).is_ok_and(|status| status.success()) {
            let _ = std::fs::remove_dir(&self.0);
        }
    }
}

/// Runs a test of this file again in a process of its own, under limits that a shell sets.
/// Answers whether this is that process.
pub(crate) fn in_child(test: &str, limits: &str) -> bool {
    const NAME: &str = "TTM_HOST_TEST_CHILD";
    if std::env::var_os(NAME).is_some_and(|name| name == test) {
        return true;
    }
    let script = format!("{limits}; exec \"$0\" --exact {test} --nocapture");
    let out = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(NAME, test)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && text.contains("1 passed"),
        "{limits}: {text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    false
}

/// Memory that is no frame.
pub(crate) struct Mapping(pub(crate) Mapped);

impl Mapping {
    pub(crate) fn of(len: usize) -> Self {
        Self::skewed(len, 0)
    }

    /// Memory that begins so many bytes after a page does.
    #[expect(unsafe_code, reason = "an anonymous mapping becomes a Mapped")]
    pub(crate) fn skewed(len: usize, by: usize) -> Self {
        let map = memmap2::MmapOptions::new()
            .len(len + by)
            .map_anon()
            .unwrap();
        let map = memmap2::MmapRaw::from(map);
        let at = core::ptr::NonNull::new(map.as_mut_ptr().wrapping_add(by)).unwrap();
        // SAFETY: `by + len` bytes are mapped until the owner drops, so `len` at `at` are, and
        // nobody refers to them.
        Self(unsafe { Mapped::new(at, len, map) })
    }
}
