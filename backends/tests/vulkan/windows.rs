//! Windows over Vulkan objects, on the real address space: the address stays, no store is lost, and
//! no byte is stale, wherever the object goes. Where memory of the device can be mapped a window shows
//! it; where it cannot, a touch brings the object to system memory.

use std::sync::atomic::{AtomicBool, Ordering};

use ash::vk;
use backends::host::{FaultThreads, HostSpace};
use backends::vulkan::{BufferInfo, Copies, ImageInfo, VulkanDriver};
use placement::MemType;
use ttm::bo::Bo;
use ttm::map::{AddressSpace, MapInfo, Window, Windows};
use ttm::sync::Arc;

use super::gpu::Gpu;
use super::stage::{MIB, Setup, Stage, in_type};
use super::words::{assert_words, words};

struct View {
    windows: Windows<VulkanDriver>,
    _threads: FaultThreads,
}

impl View {
    /// Windows in which loads and stores wait; nothing where this process may have none.
    fn of(stage: &Stage) -> Option<Self> {
        let space = Arc::new(HostSpace::probe());
        if !space.abilities().loads_wait {
            println!("skipped: loads do not wait here");
            return None;
        }
        let windows = Windows::new(&stage.device, Arc::clone(&space) as _);
        let threads = FaultThreads::start(windows.handler(), space, 2).expect("threads");
        Some(Self {
            windows,
            _threads: threads,
        })
    }

    fn map(&self, bo: &Bo<VulkanDriver>) -> Window<VulkanDriver> {
        self.windows.map(bo, MapInfo::whole()).expect("a window")
    }
}

fn buffer(stage: &Stage, bytes: u64) -> Bo<VulkanDriver> {
    let usage = vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST;
    let info = BufferInfo::new(bytes).usage(usage);
    stage.make(stage.vulkan.buffer(&info).unwrap())
}

fn bytes_of(window: &Window<VulkanDriver>) -> Vec<u8> {
    let words = window.words().unwrap().iter();
    words.flat_map(|word| word.load().to_le_bytes()).collect()
}

#[test]
fn no_store_is_lost_while_the_object_comes_and_goes() {
    for (stable, copies, bytes) in [
        (true, Copies::Queue, 64 << 10),
        (true, Copies::Cpu, 3 * MIB),
        (false, Copies::Queue, 3 * MIB),
        (false, Copies::Cpu, 64 << 10),
        (false, Copies::Cpu, 3 * MIB),
    ] {
        let Some(stage) = Setup::with_vram(16 * MIB)
            .config(|c| c.stable(stable).copies(copies))
            .stage()
        else {
            return;
        };
        let Some(view) = View::of(&stage) else {
            return;
        };
        let bo = buffer(&stage, bytes);
        stage.write(&bo, &words(1, 0, bytes)).unwrap();
        let window = view.map(&bo);
        let base = window.addresses().base;
        let stop = AtomicBool::new(false);
        let pages = bytes as usize / 4096;
        let places = [0, pages / 2, pages - 1].map(|page| page * 512 + page % 512);
        std::thread::scope(|scope| {
            for at in places {
                let (window, stop) = (&window, &stop);
                scope.spawn(move || {
                    let words = window.words_mut().unwrap();
                    for n in 1.. {
                        words[at].store(n);
                        assert_eq!(words[at].load(), n, "word {at}: a store was lost");
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                });
            }
            let moved = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for _ in 0..8 {
                    for to in [MemType::VRAM, MemType::SYSTEM, MemType::VRAM, MemType::TT] {
                        stage.validate(&bo, &in_type(to)).unwrap();
                    }
                }
            }));
            stop.store(true, Ordering::Relaxed);
            moved.unwrap();
        });
        assert_eq!(window.addresses().base, base);
        // Everything else is as it was, by the window and by call.
        let mut expected = words(1, 0, bytes);
        let found = bytes_of(&window);
        for at in places {
            expected[at * 8..at * 8 + 8].copy_from_slice(&found[at * 8..at * 8 + 8]);
        }
        assert!(found == expected, "{stable} {copies:?} {bytes}");
        assert!(stage.read(&bo).unwrap() == expected);
        drop((window, view, bo));
        stage.assert_empty();
    }
}

/// What the device writes is seen by the window, wherever it shows the object.
#[test]
fn a_window_shows_device_memory_where_it_can_be_mapped() {
    for stable in [true, false] {
        let Some(stage) = Setup::with_vram(16 * MIB)
            .config(|c| c.stable(stable))
            .stage()
        else {
            return;
        };
        let Some(view) = View::of(&stage) else {
            return;
        };
        let trials = *stage.vulkan.trials();
        let shown = trials.file.is_some() && (!stage.vulkan.keeps_handles() || trials.sparse_file);
        let gpu = Gpu::new(&stage);
        let bo = buffer(&stage, 2 * MIB);
        let window = view.map(&bo);
        let base = window.addresses().base;
        for round in 1..5 {
            let word = 0x0101_0101 * round as u32;
            gpu.fill(&bo, Some(&in_type(MemType::VRAM)), word)
                .unwrap()
                .wait();
            assert_eq!(stage.place_of(&bo), Some(MemType::VRAM));
            let all = u64::from(word) << 32 | u64::from(word);
            let words = window.words_mut().unwrap();
            assert!(words.iter().all(|word| word.load() == all), "round {round}");
            let place = stage.place_of(&bo);
            assert_eq!(place == Some(MemType::VRAM), shown, "{place:?} {trials:?}");
            // What the CPU stores is there for the device.
            words[1000].store(round);
            stage.validate(&bo, &in_type(MemType::VRAM)).unwrap();
            let copy = buffer(&stage, 2 * MIB);
            let to = in_type(MemType::VRAM);
            gpu.copy(&bo, &copy, Some(&to), 2 * MIB).unwrap().wait();
            let mut found = [0; 8];
            let read = stage.device.exec(ttm::context::OpContext::new(), |t| {
                t.lock(&copy)?.read(8000, &mut found)
            });
            drop(read.unwrap());
            assert_eq!(u64::from_le_bytes(found), round);
            // It goes away under the window, which follows.
            stage.validate(&bo, &in_type(MemType::SYSTEM)).unwrap();
            assert_eq!((words[1000].load(), words[1001].load()), (round, all));
            assert_eq!(stage.place_of(&bo), Some(MemType::SYSTEM));
            assert_eq!(window.addresses().base, base);
        }
        drop((gpu, window, view, bo));
        stage.assert_empty();
    }
}

/// Chunks go and others come at their page numbers; a window shows the object's all the same.
#[test]
fn a_window_does_not_show_what_was_there_before() {
    let Some(stage) = Setup::with_vram(8 * MIB)
        .config(|c| c.stable(false))
        .stage()
    else {
        return;
    };
    let Some(view) = View::of(&stage) else {
        return;
    };
    let bos: Vec<_> = (0..6).map(|_| buffer(&stage, 2 * MIB)).collect();
    let windows: Vec<_> = bos.iter().map(|bo| view.map(bo)).collect();
    for round in 0..4 {
        for (n, bo) in (0..).zip(&bos) {
            stage.write(bo, &words(n, round, 2 * MIB)).unwrap();
            stage.validate(bo, &in_type(MemType::VRAM)).unwrap();
        }
        for (n, window) in (0..).zip(&windows) {
            assert_words(&bytes_of(window), n, round);
        }
        let evicted = stage
            .device
            .evict_all(MemType::VRAM, ttm::context::OpContext::new());
        evicted.unwrap();
        stage.vulkan.trim();
        for (n, window) in (0..).zip(&windows) {
            assert_words(&bytes_of(window), n, round);
        }
    }
    drop((windows, view, bos));
    stage.assert_empty();
}

#[test]
fn a_window_on_an_image_shows_rows_in_system_memory() {
    for stable in [true, false] {
        let Some(stage) = Setup::with_vram(16 * MIB)
            .config(|c| c.stable(stable))
            .stage()
        else {
            return;
        };
        let Some(view) = View::of(&stage) else {
            return;
        };
        let info = ImageInfo::new(vk::Format::R8G8B8A8_UNORM, 256, 128);
        let image = stage.make(stage.vulkan.image(&info).unwrap());
        let window = view.map(&image);
        let rows = 256 * 128 * 4;
        for round in 0..3 {
            for (n, word) in window.words_mut().unwrap()[..rows / 8].iter().enumerate() {
                word.store((round << 32 | n) as u64);
            }
            stage.validate(&image, &in_type(MemType::VRAM)).unwrap();
            assert_eq!(stage.place_of(&image), Some(MemType::VRAM));
            let found = window.words().unwrap()[..rows / 8].iter();
            let right =
                |(n, word): (usize, &ttm::map::Word)| word.load() == (round << 32 | n) as u64;
            assert!(found.enumerate().all(right), "round {round}");
            assert_ne!(
                stage.place_of(&image),
                Some(MemType::VRAM),
                "rows are not there"
            );
        }
        drop((window, view, image));
        stage.assert_empty();
    }
}
