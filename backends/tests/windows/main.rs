//! Windows on the real address space of this process: every strategy that can be had here, real
//! threads, real page tables.
//!
//! A strategy that this user may not have is named and left out. What ends in a signal is done by a
//! process of its own.

#[path = "../support/host.rs"]
mod host;
mod laws;
mod stage;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use backends::host::{
    FaultThreads, HostSpace, MemfdPages, Strategy, read_into_window, wall_clock, write_from_window,
};
use backends::sim::{RouteMode, SimDriver};
use placement::{MemType, PageCount};
use rustix::io::Errno;
use ttm::Error;
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::driver::Advice;
use ttm::map::{Access, AddressSpace, Fault, FaultHandler, Follow, MapInfo, WindowConfig, Windows};
use ttm::sync::Arc;
use ttm::trace::Event;

use host::{NothingLeft, in_child};
use stage::{PAGE, Stage, Way, load, place, store, ways};

/// A writer and a reader on one word of each of a few pages, while `moves` go on: no store is lost
/// (I-15), no reader sees an older value than before (I-22).
fn hammered(stage: &Stage, moves: impl FnOnce()) {
    let window = stage.map();
    let second = MapInfo::whole().access(Access::Read);
    let second = stage.windows.map(&stage.bo, second).unwrap();
    let (base, other) = (window.addresses().base, second.addresses().base);
    let stop = AtomicBool::new(false);
    let last = stage.bo.pages().get() as usize - 1;
    thread::scope(|scope| {
        for page in [0, last] {
            let stop = &stop;
            scope.spawn(move || {
                let at = base + page * 4096 + 8 * (page % 512);
                // Once at least, however short the moves are.
                for n in 1.. {
                    store(at, n);
                    assert_eq!(load(at), n, "page {page}: a store was lost");
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            scope.spawn(move || {
                let at = other + page * 4096 + 8 * (page % 512);
                let mut last = 0;
                while !stop.load(Ordering::Relaxed) {
                    let found = load(at);
                    assert!(found >= last, "page {page}: {found} after {last}");
                    last = found;
                }
            });
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(moves));
        stop.store(true, Ordering::Relaxed);
        result.unwrap();
    });
    for page in [0, last] {
        let offset = page * 4096 + 8 * (page % 512);
        let mut bytes = [0; 8];
        window.read_at(offset as u64, &mut bytes).unwrap();
        assert_eq!(u64::from_le_bytes(bytes), load(other + offset));
    }
    stage.device.check().unwrap_or_else(|v| panic!("{v}"));
}

#[test]
fn stores_survive_every_move_by_every_strategy() {
    let _nothing = NothingLeft::expected();
    for way in ways() {
        for (route, size) in [
            (RouteMode::Engine, 3),
            (RouteMode::Cpu, 3),
            (RouteMode::Cpu, 600),
        ] {
            println!("{way:?} {route:?} {size}");
            let stage = Stage::new(way, size, route);
            hammered(&stage, || {
                for _ in 0..6 {
                    for step in &stage.tour() {
                        match stage.step(step) {
                            // The CPU cannot copy to where it cannot reach.
                            Err(Error::Unsupported(_)) if route == RouteMode::Cpu => {}
                            moved => moved.unwrap_or_else(|e| panic!("{way:?} {step:?}: {e}")),
                        }
                        stage.device.reap();
                    }
                }
            });
        }
    }
}

/// I-19: the addresses are covered by mappings of the window's, without a hole, whatever happens,
/// while another thread maps what it can get.
#[test]
fn a_windows_addresses_never_have_a_hole() {
    let _nothing = NothingLeft::expected();
    for way in ways() {
        let stage = Stage::new(way, 8, RouteMode::Engine);
        let window = stage.map();
        let at = window.addresses();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let foreign = memmap2::MmapOptions::new().len(4096).map_anon().unwrap();
                    let taken = foreign.as_ptr().addr();
                    assert!(!at.contains(taken), "a foreign mapping in a window");
                }
            });
            for step in stage.tour().iter().chain(&stage.tour()) {
                stage.step(step).unwrap();
                assert_eq!(covered(at), at.bytes, "{way:?} {step:?}");
                store(at.base + 4096, 1);
                assert_eq!(covered(at), at.bytes, "{way:?} {step:?}");
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}

/// How many bytes of `at` the kernel says are mapped.
fn covered(at: ttm::map::Addresses) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let ranges = maps.lines().filter_map(|line| {
        let (start, rest) = line.split_once('-')?;
        let end = rest.split(' ').next()?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        Some((number(start)?, number(end)?))
    });
    ranges
        .map(|(start, end)| end.min(at.end()).saturating_sub(start.max(at.base)))
        .sum()
}

#[test]
fn system_calls_wait_where_the_strategy_says_so() {
    let _nothing = NothingLeft::expected();
    for way in ways() {
        let stage = Stage::new(way, 4, RouteMode::Engine);
        let window = stage.map();
        let waits = laws::CALLS.holds(&stage.windows.abilities());
        let scratch = memory_file();
        scratch.write_all_at(&[7; 8192], 0).unwrap();
        for step in &stage.tour() {
            stage.step(step).unwrap();
            stage.swap_out().unwrap();
            // Nothing of it is in memory: the call has to wait for it.
            match read_into_window(&scratch, 0, &window, 100, 8000) {
                Ok(done) => assert!(waits && done == 8000, "{way:?}: {done}"),
                Err(error) => {
                    assert!(!waits, "{way:?}: {error}");
                    assert_eq!(Errno::from_io_error(&error), Some(Errno::FAULT));
                }
            }
            window.populate().unwrap();
            assert_eq!(
                read_into_window(&scratch, 0, &window, 0, 8192).unwrap(),
                8192
            );
            assert_eq!(
                write_from_window(&scratch, 8192, &window, 4096, 4096).unwrap(),
                4096
            );
            let mut back = [0; 4096];
            scratch.read_exact_at(&mut back, 8192).unwrap();
            assert_eq!(back, [7; 4096]);
        }
    }
}

/// Row 77 of TTM: what the CPU touches outside the aperture comes to where it reaches it, and is
/// preferred there when it goes back to the card once.
#[test]
fn a_touch_outside_the_aperture_moves_the_object() {
    let _nothing = NothingLeft::expected();
    for way in ways() {
        let stage = Stage::new(way, 4, RouteMode::Engine);
        let window = stage.map();
        store(window.addresses().base, 5);
        let [_, _, beyond, ..] = stage.tour();
        stage.step(&beyond).unwrap();
        let first = |stage: &Stage| {
            let locked = stage
                .device
                .exec(OpContext::new(), |t| t.lock(&stage.bo).map(drop));
            let locked = locked.unwrap();
            locked.get(&stage.bo).unwrap().ranges()[0].start()
        };
        assert!(first(&stage) >= 8);
        assert_eq!(load(window.addresses().base), 5);
        assert_eq!(
            stage.mem_type(),
            Some(MemType::VRAM),
            "the aperture has room"
        );
        assert!(first(&stage) < 8);
        // Fill the aperture: now it goes to system memory.
        let filler = stage
            .device
            .create(ttm::bo::BoInfo::new(8 * PAGE), ())
            .unwrap();
        stage.step(&beyond).unwrap();
        let [near, ..] = stage.tour();
        let stage::Tour::To(near) = near else {
            unreachable!()
        };
        let filled = stage
            .device
            .exec(OpContext::new(), |t| t.lock(&filler)?.validate(&near));
        drop(filled.unwrap());
        assert_eq!(load(window.addresses().base), 5);
        assert_ne!(stage.mem_type(), Some(MemType::VRAM));
        let events = stage.device.events();
        assert!(
            events
                .iter()
                .any(|r| matches!(r.event, Event::Faulted { .. }))
        );
    }
}

/// Under the lock, wherever the object is: what a window wrote is there, and the other way round.
#[test]
fn a_vmap_is_for_who_has_the_object_reserved() {
    let _nothing = NothingLeft::expected();
    let Some(way) = ways().into_iter().next() else {
        return;
    };
    let stage = Stage::new(way, 4, RouteMode::Engine);
    let window = stage.map();
    for (n, step) in stage.tour().iter().enumerate() {
        stage.step(step).unwrap();
        let (by_window, by_map) = (n as u64 + 100, n as u64 + 200);
        store(window.addresses().base + 4096, by_window);
        stage.step(step).unwrap();
        let looked = stage.device.exec(OpContext::new(), |t| {
            let reserved = t.lock(&stage.bo)?;
            let map = reserved.vmap(1..3)?;
            assert_eq!(map.bytes(), 8192);
            let pieces: usize = map.pieces().map(|(_, piece)| piece.len()).sum();
            assert_eq!(pieces, 8192);
            let mut word = [0; 8];
            map.read(0, &mut word)?;
            assert_eq!(u64::from_le_bytes(word), by_window, "{step:?}");
            map.write(4092, &by_map.to_le_bytes())?;
            assert!(map.write(8190, &[0; 3]).is_err());
            let elsewhere = match reserved.mem_type() {
                Some(MemType::VRAM) => MemType::SYSTEM,
                _ => MemType::VRAM,
            };
            assert!(matches!(
                reserved.validate(&place(elsewhere)),
                Err(Error::Pinned)
            ));
            drop(map);
            assert_eq!(reserved.pins(), 0);
            assert!(matches!(reserved.vmap(3..5), Err(Error::Invalid(_))));
            Ok(())
        });
        drop(looked.unwrap());
        let mut word = [0; 8];
        window.read_at(4096 + 4092, &mut word).unwrap();
        assert_eq!(u64::from_le_bytes(word), by_map, "{step:?}");
        stage.device.check().unwrap_or_else(|v| panic!("{v}"));
    }
}

/// What cannot be had is an error by call, EFAULT or SIGBUS by address, and never somebody else's.
#[test]
fn purged_and_lost_content_is_an_error_by_call() {
    let _nothing = NothingLeft::expected();
    for way in ways() {
        let stage = Stage::new(way, 2, RouteMode::Engine);
        let window = stage.map();
        store(window.addresses().base, 5);
        let advised = stage.device.exec(OpContext::new(), |t| {
            let reserved = t.lock(&stage.bo)?;
            reserved.validate(&place(MemType::VRAM))?;
            reserved.advise(Advice::DontNeed);
            Ok(())
        });
        drop(advised.unwrap());
        stage
            .device
            .evict_all(MemType::VRAM, OpContext::new())
            .unwrap();
        let mut byte = [0];
        assert!(matches!(window.read_at(0, &mut byte), Err(Error::Purged)));
        if laws::CALLS.holds(&stage.windows.abilities()) {
            let refused = write_from_window(&memory_file(), 0, &window, 0, 64);
            assert_eq!(errno(refused), Some(Errno::FAULT));
            let poisoned = |r: &ttm::trace::Record| matches!(r.event, Event::Poisoned { .. });
            assert!(stage.device.events().iter().any(poisoned));
        }

        drop(window);
        drop(stage);
        // A lost card: what was only there is lost.
        let stage = Stage::new(way, 2, RouteMode::Engine);
        let window = stage.map();
        store(window.addresses().base, 5);
        stage.go(&place(MemType::VRAM)).unwrap();
        assert_eq!(load(window.addresses().base), 5);
        stage.gpu.lose();
        let _ = stage.device.set_lost();
        // Who served the load may still have the object locked.
        for _ in 0..1000 {
            stage.device.reap();
            thread::yield_now();
        }
        assert_eq!(window.shown_pages(), 0, "nobody sees a dead card's memory");
        assert!(window.read_at(0, &mut byte).is_err());
    }
}

fn memory_file() -> File {
    let file = rustix::fs::memfd_create("calls", rustix::fs::MemfdFlags::CLOEXEC);
    File::from(file.unwrap())
}

fn errno(result: std::io::Result<usize>) -> Option<Errno> {
    result.err().and_then(|error| Errno::from_io_error(&error))
}

#[test]
fn a_poisoned_access_is_sigbus() {
    const NAME: &str = "a_poisoned_access_is_sigbus";
    let _nothing = NothingLeft::expected();
    for (n, way) in ways().into_iter().enumerate() {
        let limits = format!("export TTM_WAY={n}; ulimit -c 0");
        if !in_poisoned_child(NAME, &limits) {
            continue;
        }
        let wanted = std::env::var("TTM_WAY").unwrap();
        if wanted != n.to_string() {
            continue;
        }
        let stage = Stage::new(way, 2, RouteMode::Engine);
        let window = stage.map();
        store(window.addresses().base, 5);
        let advised = stage.device.exec(OpContext::new(), |t| {
            t.lock(&stage.bo)?.advise(Advice::DontNeed);
            Ok(())
        });
        drop(advised.unwrap());
        stage.go(&place(MemType::VRAM)).unwrap();
        stage
            .device
            .evict_all(MemType::VRAM, OpContext::new())
            .unwrap();
        println!("touching");
        load(window.addresses().base);
        unreachable!("the access ended");
    }
}

/// Whether this is the child. In the parent, runs it and looks how it died.
fn in_poisoned_child(test: &str, script: &str) -> bool {
    const CHILD: &str = "TTM_POISONED_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let out = std::process::Command::new("sh")
        .args([
            "-c",
            &format!("{script}; exec \"$0\" --exact {test} --nocapture"),
        ])
        .arg(std::env::current_exe().unwrap())
        .env(CHILD, "1")
        .output()
        .unwrap();
    use std::os::unix::process::ExitStatusExt;
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        text.contains("touching"),
        "{text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    assert_eq!(out.status.signal(), Some(7), "{:?}: SIGBUS", out.status);
    false
}

/// F-37: a forked child has none of a window's mappings, also after a switch.
#[test]
fn a_forked_child_inherits_no_window() {
    let _nothing = NothingLeft::expected();
    if !in_child("a_forked_child_inherits_no_window", ":") {
        return;
    }
    for way in ways() {
        let stage = Stage::new(way, 600, RouteMode::Engine);
        let window = stage.map();
        window.populate().unwrap();
        for step in &stage.tour() {
            stage.step(step).unwrap();
            store(window.addresses().base, 1);
            let at = window.addresses();
            assert_eq!(covered(at), at.bytes);
            assert_eq!(
                in_fork(|| u8::from(covered(at) != 0)),
                0,
                "{way:?} {step:?}"
            );
        }
    }
}

/// What `f` answers in a forked child. The child of a process with threads may do little; reading a
/// file and counting is little enough here.
fn in_fork(f: impl FnOnce() -> u8) -> i32 {
    // SAFETY: the child calls `f` and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let status = f();
        // SAFETY: ends the child without anything of the parent's.
        unsafe { libc::_exit(status.into()) };
    }
    let mut status = 0;
    // SAFETY: the status is ours.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(waited, child);
    libc::WEXITSTATUS(status)
}

/// F-16, F-17: the n-th refusal of the host's, for every n. The object is wholly somewhere, its
/// content whole, and all works again when the cause is gone.
#[test]
fn refused_calls_lose_nothing() {
    let _nothing = NothingLeft::expected();
    const SITES: [&str; 8] = [
        "space.prepare",
        "space.switch",
        "space.torn-switch",
        "space.revoke",
        "space.track",
        "ttm.revoke",
        "ttm.show",
        "region.map",
    ];
    for way in ways() {
        for (size, route) in [(2, RouteMode::Engine), (520, RouteMode::Cpu)] {
            for site in SITES {
                for nth in 1..=4 {
                    let stage = Stage::new(way, size, route);
                    let window = stage.map();
                    let base = window.addresses().base;
                    store(base, 11);
                    window.populate().unwrap();
                    stage.inject.fail(site, nth, false);
                    for step in &stage.tour() {
                        // Refused or not.
                        let _ = stage.step(step);
                        let checked = stage.device.check();
                        checked.unwrap_or_else(|v| panic!("{way:?} {site}:{nth} {step:?}: {v}"));
                    }
                    stage.inject.clear();
                    window.mend().unwrap();
                    assert_eq!(load(base), 11, "{way:?} {site}:{nth}");
                    store(base, 12);
                    let [near, ..] = stage.tour();
                    stage.step(&near).unwrap();
                    assert_eq!(load(base), 12, "{way:?} {site}:{nth}");
                }
            }
        }
    }
}

/// Serves each access late.
struct Late(Arc<dyn FaultHandler>);

impl FaultHandler for Late {
    fn serve(&self, fault: &Fault) {
        thread::sleep(Duration::from_micros(300));
        self.0.serve(fault);
    }
}

/// F-19: many more accesses wait than there are threads that serve them, which are slow besides,
/// while the objects move. All go on, and none waits for ever.
#[test]
fn a_flood_of_accesses_is_served_by_few() {
    let _nothing = NothingLeft::expected();
    for way in ways() {
        let config = WindowConfig::default();
        let late = |handler| Arc::new(Late(handler)) as Arc<dyn FaultHandler>;
        let stage = Stage::served_by(way, 8, RouteMode::Engine, config, late);
        let other = stage
            .device
            .create(ttm::bo::BoInfo::new(8 * PAGE), ())
            .unwrap();
        let windows: Vec<_> = [&stage.bo, &other, &stage.bo]
            .map(|bo| stage.windows.map(bo, MapInfo::whole()).unwrap())
            .into();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for n in 0..48 {
                let at = windows[n % 3].addresses().base + n % 8 * 4096 + 8 * n;
                let stop = &stop;
                scope.spawn(move || {
                    let mut value = 0;
                    while !stop.load(Ordering::Relaxed) {
                        assert_eq!(load(at), value, "{way:?} thread {n}");
                        value += 1;
                        store(at, value);
                        thread::yield_now();
                    }
                });
            }
            for step in stage.tour().iter().cycle().take(30) {
                stage.step(step).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
        });
        stage.device.check().unwrap_or_else(|v| panic!("{v}"));
    }
}

/// I-25: windows cost no more mappings than they may; one that cannot have enough shows less.
#[test]
fn the_budget_of_mappings_is_kept() {
    let _nothing = NothingLeft::expected();
    let Some(way) = ways().into_iter().next() else {
        return;
    };
    let config = WindowConfig {
        mappings: 9,
        run: PageCount::new(16).unwrap(),
        follow: Follow::OnFault,
        ..WindowConfig::default()
    };
    let stage = Stage::with_config(way, 16 * 20, RouteMode::Engine, config);
    let window = stage.map();
    let _second = stage.map();
    // Every second run: each is a mapping, and the gaps are.
    for run in (0..20).step_by(2) {
        store(window.addresses().base + run * 16 * 4096, run as u64);
    }
    for run in (0..20).step_by(2) {
        assert_eq!(load(window.addresses().base + run * 16 * 4096), run as u64);
    }
    assert!(stage.windows.counts().mappings <= 9);
    let third = stage.windows.map(&stage.bo, MapInfo::whole());
    let third = third.map(drop);
    let fourth = stage.windows.map(&stage.bo, MapInfo::whole()).map(drop);
    assert!(
        third.is_ok() || matches!(third, Err(Error::NoMappings { .. })),
        "{third:?}"
    );
    drop(fourth);
    stage.device.check().unwrap_or_else(|v| panic!("{v}"));
    drop(window);
}

/// Who touches a window of an object that he has reserved would wait for himself: that is found out.
#[test]
fn touching_ones_own_reserved_object_ends() {
    let _nothing = NothingLeft::expected();
    for way in ways() {
        let stage = Stage::new(way, 1, RouteMode::Engine);
        if !stage.windows.abilities().calls_wait {
            continue;
        }
        let window = stage.map();
        let file = memory_file();
        let locked = stage
            .device
            .exec(OpContext::new(), |t| t.lock(&stage.bo).map(drop));
        let refused = write_from_window(&file, 0, &window, 0, 64);
        drop(locked);
        assert_eq!(errno(refused), Some(Errno::FAULT), "{way:?}");
        window.mend().unwrap();
        assert_eq!(load(window.addresses().base), 0);
    }
}

/// Without anything to wait by, calls work while the object moves, and an address keeps it still.
#[test]
fn without_waiting_an_address_pins_and_calls_do_not() {
    let _nothing = NothingLeft::expected();
    let way = Way {
        strategy: Strategy::None,
        watchable: true,
    };
    let stage = Stage::new(way, 4, RouteMode::Engine);
    let window = stage.map();
    for (n, step) in stage.tour().iter().enumerate() {
        stage.step(step).unwrap();
        window.write_at(4096, &[n as u8; 8]).unwrap();
        stage.step(step).unwrap();
        let mut back = [0; 8];
        window.read_at(4096, &mut back).unwrap();
        assert_eq!(back, [n as u8; 8]);
    }
    window.as_ptr().unwrap();
    store(window.addresses().base, 3);
    let moved = stage.go(&place(MemType::VRAM));
    assert!(matches!(moved, Err(Error::Pinned)), "{moved:?}");
    drop(window);
    stage.go(&place(MemType::VRAM)).unwrap();
}

/// Decision 14: the kernel's own long hold on pages does not follow, unless the window is pinned.
#[test]
fn a_kernel_pin_loses_writes_without_a_pinned_window() {
    let _nothing = NothingLeft::expected();
    let Some(way) = ways().into_iter().next() else {
        return;
    };
    for pinned in [false, true] {
        let stage = Stage::new(way, 1, RouteMode::Engine);
        let window = stage.map();
        store(window.addresses().base, 1);
        let pin = pinned.then(|| window.pin().unwrap());
        let Ok(mut ring) = io_uring::IoUring::new(2) else {
            println!("skipped: io_uring is not allowed");
            return;
        };
        let buffer = libc::iovec {
            iov_base: window.as_ptr().unwrap().cast(),
            iov_len: 4096,
        };
        // SAFETY: the addresses are the window's until it drops, after the ring.
        unsafe { ring.submitter().register_buffers(&[buffer]) }.unwrap();
        let moved = stage.go(&place(MemType::VRAM));
        assert_eq!(matches!(moved, Err(Error::Pinned)), pinned, "{moved:?}");
        // Swapped in between, so that the window is mapped anew.
        assert_eq!(load(window.addresses().base), 1);
        let file = memory_file();
        file.write_all_at(&[9; 4096], 0).unwrap();
        use std::os::fd::AsRawFd;
        let read = io_uring::opcode::ReadFixed::new(
            io_uring::types::Fd(file.as_raw_fd()),
            window.as_ptr().unwrap(),
            4096,
            0,
        );
        // SAFETY: the buffer was registered, and the file lives until the call is over.
        unsafe { ring.submission().push(&read.build()) }.unwrap();
        ring.submit_and_wait(1).unwrap();
        assert_eq!(ring.completion().next().unwrap().result(), 4096);
        let arrived = load(window.addresses().base) == u64::from_ne_bytes([9; 8]);
        assert_eq!(
            arrived, pinned,
            "the kernel wrote to the pages that it held"
        );
        drop(ring);
        drop(pin);
    }
}

#[test]
fn a_thousand_windows_come_and_go() {
    let _nothing = NothingLeft::expected();
    for way in ways() {
        let stage = Stage::new(way, 2, RouteMode::Engine);
        let many: Vec<_> = (0..1000).map(|_| stage.map()).collect();
        for (n, window) in many.iter().enumerate() {
            store(window.addresses().base + 8 * (n % 500), n as u64);
        }
        stage.go(&place(MemType::VRAM)).unwrap();
        for (n, window) in many.iter().enumerate().skip(500) {
            assert_eq!(load(window.addresses().base + 8 * (n % 500)), n as u64);
        }
        stage.device.check().unwrap_or_else(|v| panic!("{v}"));
        drop(many);
        assert_eq!(stage.windows.counts().windows, 0);
        assert_eq!(stage.windows.counts().mappings, 0);
    }
}

/// The laws by strategy, for people: what each can, as the space says it.
/// A window of 2 MiB and more begins where huge pages can be mapped as such, and is one mapping of
/// them where its memory is made of them.
#[test]
fn huge_pages_are_mapped_as_such_where_memory_has_them() {
    let _nothing = NothingLeft::expected();
    let Some(way) = ways().into_iter().next() else {
        return;
    };
    let pages = Arc::new(MemfdPages::new().unwrap());
    let device = Device::builder(SimDriver::new(), wall_clock())
        .pages(Arc::clone(&pages) as _)
        .build()
        .unwrap();
    let space = Arc::new(HostSpace::with(way.strategy).unwrap());
    let windows = Windows::new(&device, Arc::clone(&space) as _);
    let threads = FaultThreads::start(windows.handler(), space, 2).unwrap();
    let bo = device.create(ttm::bo::BoInfo::new(8 << 20), ()).unwrap();
    let window = windows.map(&bo, MapInfo::whole()).unwrap();
    let at = window.addresses();
    assert!(at.base.is_multiple_of(2 << 20));
    window.populate().unwrap();
    let part = MapInfo::whole().pages(256..2048);
    let part = windows.map(&bo, part).unwrap();
    assert_eq!(part.addresses().base % (2 << 20), 1 << 20);
    let got = pages.huge_counts().got;
    let mapped = huge_bytes(at);
    println!("{got} huge pages, {mapped} bytes mapped as such");
    assert_eq!(mapped > 0, got > 0, "{:?}", pages.huge_counts());
    drop((window, part));
    drop(threads);
}

/// Bytes of `at` that the kernel has mapped by huge pages.
fn huge_bytes(at: ttm::map::Addresses) -> usize {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    let mut bytes = 0;
    for line in smaps.lines() {
        if let Some((start, _)) = line.split_once('-')
            && let Ok(start) = usize::from_str_radix(start, 16)
        {
            inside = at.contains(start);
        } else if inside && let Some(size) = line.strip_prefix("ShmemPmdMapped:") {
            let kib = size.trim().trim_end_matches(" kB");
            bytes += kib.parse::<usize>().unwrap() << 10;
        }
    }
    bytes
}

#[test]
fn the_table_of_strategies() {
    let _nothing = NothingLeft::expected();
    let spaces = Strategy::ALL.map(|strategy| (strategy, HostSpace::with(strategy)));
    for (n, (strategy, space)) in (1..).zip(&spaces) {
        match space {
            Ok(space) => println!("{n}: {}", space.describe()),
            Err(error) => println!("{n}: {strategy}, not here: {error}"),
        }
    }
    println!("1 2 3 4 5  law");
    for law in laws::ALL {
        let marks = spaces.each_ref().map(|(_, space)| match space {
            Err(_) => "?",
            Ok(space) if law.holds(&space.abilities()) => "x",
            Ok(_) => "-",
        });
        println!("{}  {}", marks.join(" "), law.says);
    }
    for (strategy, space) in &spaces {
        let Ok(space) = space else { continue };
        let able = space.abilities();
        assert_eq!(laws::STORES.holds(&able), *strategy != Strategy::None);
        assert!(!laws::CALLS.holds(&able) || laws::STORES.holds(&able));
        assert!(!laws::PRECOPY.holds(&able) || *strategy != Strategy::Older);
    }
}
