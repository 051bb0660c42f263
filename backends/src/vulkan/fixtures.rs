//! What devices that are not here said of themselves: for tests, and to look at layouts of.
//!
//! | fixture | where it is from |
//! |---|---|
//! | `lavapipe-25`, `lavapipe-22` | Mesa's CPU driver, asked: heaps are the machine's memory, and 2 GiB |
//! | `radv-navi21`, `radv-renoir` | Mesa 25.0.7's driver for AMD, asked over a kernel that only pretends (`mesa-drm-shim`): a card with 16 GiB whose BAR is small, an APU |
//! | `nvk-tu102`, `turnip-660`, `hk-m1` | the same with Mesa 26.2.6: NVIDIA chip 0x162, an Adreno, an Apple M1 |
//! | `nvidia-proprietary`, `nvidia-proprietary-rebar` | put together from what is publicly known of cards with 24 GiB, with the BAR small and large; not captured |
//!
//! Where the kernel pretends, sizes and the device's name are its inventions, and so is whether
//! memory can go out; types, their order, limits and features are the real driver's. Heaps of the
//! host's memory and their budgets are those of the machine that was asked, with 24 GiB.

use ash::vk::MemoryPropertyFlags as Flags;
use ash::vk::{self, PhysicalDeviceType as Kind};

use super::facts::{Can, Facts, Heap, Limits, Type};

/// The names, in the order of the table above.
pub fn fixture_names() -> impl Iterator<Item = &'static str> {
    FIXTURES.iter().map(|(name, _)| *name)
}

/// What the device of that name said; `None` if there is none.
#[must_use]
pub fn fixture(name: &str) -> Option<Facts> {
    let (_, facts) = FIXTURES.iter().find(|(known, _)| *known == name)?;
    Some(facts())
}

/// A name and how it is put together.
type Fixture = (&'static str, fn() -> Facts);

const FIXTURES: &[Fixture] = &[
    ("lavapipe-25", lavapipe_25),
    ("lavapipe-22", lavapipe_22),
    ("radv-navi21", radv_navi21),
    ("radv-renoir", radv_renoir),
    ("nvk-tu102", nvk_tu102),
    ("turnip-660", turnip_660),
    ("hk-m1", hk_m1),
    ("nvidia-proprietary", nvidia_proprietary),
    ("nvidia-proprietary-rebar", nvidia_proprietary_rebar),
];

// The properties of types, as long as tables want them.
const NONE: Flags = Flags::empty();
const OWN: Flags = Flags::DEVICE_LOCAL;
const SEEN: Flags = join(Flags::HOST_VISIBLE, Flags::HOST_COHERENT);
const CACHED: Flags = join(SEEN, Flags::HOST_CACHED);
const OWN_SEEN: Flags = join(OWN, SEEN);
const OWN_CACHED: Flags = join(OWN, CACHED);
const UNCACHED_AMD: Flags = join(Flags::DEVICE_COHERENT_AMD, Flags::DEVICE_UNCACHED_AMD);

const MIB: u64 = 1 << 20;

/// What every device here can do.
const COMMON: Can = Can {
    timeline: true,
    opaque_fd: true,
    buffer_address: true,
    sparse_buffers: false,
    host_import: false,
    sparse_host_import: false,
    dma_buf: false,
    semaphore_fd: false,
    budget: false,
    priority: false,
    pageable: false,
    placed_map: false,
};

/// What the drivers of real hardware can do, all but one with a budget.
const HARDWARE: Can = Can {
    sparse_buffers: true,
    dma_buf: true,
    semaphore_fd: true,
    budget: true,
    placed_map: true,
    ..COMMON
};

const RADV: Can = Can {
    host_import: true,
    sparse_host_import: true,
    priority: true,
    ..HARDWARE
};

const UNLIMITED: u32 = u32::MAX;

const LAVAPIPE_LIMITS: Limits = Limits {
    allocation_bytes: 2048 * MIB,
    allocations: UNLIMITED,
    buffer_image_granularity: 64,
    non_coherent_atom: 64,
    import_align: 4096,
};

const RADV_LIMITS: Limits = Limits {
    allocation_bytes: 0xffff_fffc,
    allocations: UNLIMITED,
    buffer_image_granularity: 1,
    non_coherent_atom: 64,
    import_align: 4096,
};

fn lavapipe_25() -> Facts {
    let bytes = 25_276_502_016;
    Facts {
        name: "llvmpipe (LLVM 15.0.6, 256 bits)".into(),
        driver: "llvmpipe Mesa 25.0.7-2~bpo12+1 (LLVM 15.0.6)".into(),
        device_type: Kind::CPU,
        api_version: vk::make_api_version(0, 1, 4, 305),
        heaps: vec![own(bytes, Some(bytes))],
        types: types(&[(0, OWN_CACHED)]),
        limits: LAVAPIPE_LIMITS,
        can: Can {
            sparse_buffers: true,
            host_import: true,
            sparse_host_import: true,
            budget: true,
            priority: true,
            pageable: true,
            ..COMMON
        },
    }
}

fn lavapipe_22() -> Facts {
    Facts {
        driver: "llvmpipe Mesa 22.3.6 (LLVM 15.0.6)".into(),
        api_version: vk::make_api_version(0, 1, 3, 230),
        heaps: vec![own(2048 * MIB, None)],
        can: Can {
            host_import: true,
            ..COMMON
        },
        ..lavapipe_25()
    }
}

/// RADV's types where the device's own memory is heap `own`, the host's `host`, and what the CPU
/// reaches of the device's own `bar`.
fn radv_types(own: u32, host: u32, bar: u32) -> Vec<Type> {
    types(&[
        (own, OWN),
        // The doubles are for memory at low addresses.
        (own, OWN),
        (host, SEEN),
        (bar, OWN_SEEN),
        (bar, OWN_SEEN),
        (host, CACHED),
        (host, CACHED),
        (own, OWN | UNCACHED_AMD),
        (host, SEEN | UNCACHED_AMD),
        (bar, OWN_SEEN | UNCACHED_AMD),
        (host, CACHED | UNCACHED_AMD),
    ])
}

fn radv_navi21() -> Facts {
    let (vram, gtt, bar) = (16_128 * MIB, 16_746_784_768, 256 * MIB);
    Facts {
        name: "AMD Radeon RX 6800 (RADV NAVI21)".into(),
        driver: "radv Mesa 25.0.7-2~bpo12+1".into(),
        device_type: Kind::DISCRETE_GPU,
        api_version: vk::make_api_version(0, 1, 4, 305),
        heaps: vec![
            own(vram, Some(vram)),
            host(gtt, Some(gtt)),
            own(bar, Some(bar)),
        ],
        types: radv_types(0, 1, 2),
        limits: RADV_LIMITS,
        can: RADV,
    }
}

/// The driver splits the memory that it may have, two thirds of which it calls the device's own.
fn radv_renoir() -> Facts {
    let (gtt, vram) = (1_454_022_656, 2_908_053_504);
    Facts {
        name: "AMD Radeon Graphics (RADV RENOIR)".into(),
        device_type: Kind::INTEGRATED_GPU,
        heaps: vec![host(gtt, Some(gtt)), own(vram, Some(vram - 4096))],
        types: radv_types(1, 0, 1),
        ..radv_navi21()
    }
}

/// The shim gives the chip no name and 3 GiB, all of which the CPU reaches.
fn nvk_tu102() -> Facts {
    Facts {
        name: "NVK ".into(),
        driver: "NVK Mesa 26.2.6-1".into(),
        device_type: Kind::DISCRETE_GPU,
        api_version: vk::make_api_version(0, 1, 4, 354),
        heaps: vec![
            own(3072 * MIB, Some(2764 * MIB)),
            host(18_079 * MIB, Some(16_006 * MIB)),
        ],
        types: types(&[(0, OWN), (0, OWN_SEEN), (1, CACHED)]),
        limits: Limits {
            allocation_bytes: 2048 * MIB,
            allocations: 4096,
            buffer_image_granularity: 1024,
            non_coherent_atom: 64,
            import_align: 0,
        },
        can: HARDWARE,
    }
}

fn turnip_660() -> Facts {
    let bytes = 18_079 * MIB;
    Facts {
        name: "Turnip Adreno (TM) 660".into(),
        driver: "turnip Mesa driver Mesa 26.2.6-1".into(),
        device_type: Kind::INTEGRATED_GPU,
        api_version: vk::make_api_version(0, 1, 3, 354),
        heaps: vec![own(bytes, Some(bytes))],
        types: types(&[
            (0, OWN_SEEN),
            (0, OWN_CACHED),
            (0, OWN | Flags::HOST_VISIBLE | Flags::HOST_CACHED),
            (0, OWN | Flags::LAZILY_ALLOCATED),
        ]),
        limits: Limits {
            allocation_bytes: u64::from(u32::MAX),
            allocations: UNLIMITED,
            buffer_image_granularity: 64,
            non_coherent_atom: 64,
            import_align: 0,
        },
        can: HARDWARE,
    }
}

fn hk_m1() -> Facts {
    Facts {
        name: "Apple M1 (G13G A0)".into(),
        driver: "Honeykrisp Mesa 26.2.6-1".into(),
        device_type: Kind::INTEGRATED_GPU,
        api_version: vk::make_api_version(0, 1, 4, 354),
        heaps: vec![own(12_052 * MIB, None)],
        types: types(&[(0, OWN_CACHED), (0, OWN_SEEN)]),
        limits: Limits {
            allocation_bytes: 128 * 1024 * MIB,
            allocations: 4096,
            buffer_image_granularity: 1024,
            non_coherent_atom: 64,
            import_align: 0,
        },
        can: Can {
            budget: false,
            ..HARDWARE
        },
    }
}

fn nvidia_proprietary() -> Facts {
    let (vram, ram, bar) = (24_576 * MIB, 24_105 * MIB, 246 * MIB);
    Facts {
        name: "NVIDIA, 24 GiB (not captured)".into(),
        driver: "NVIDIA".into(),
        device_type: Kind::DISCRETE_GPU,
        api_version: vk::make_api_version(0, 1, 3, 277),
        heaps: vec![
            own(vram, Some(vram - 600 * MIB)),
            host(ram, Some(ram)),
            own(bar, Some(bar - 10 * MIB)),
        ],
        types: types(&[(1, NONE), (0, OWN), (1, SEEN), (1, CACHED), (2, OWN_SEEN)]),
        limits: Limits {
            allocation_bytes: 0xffe0_0000,
            allocations: UNLIMITED,
            buffer_image_granularity: 1024,
            non_coherent_atom: 64,
            import_align: 4096,
        },
        can: Can {
            host_import: true,
            priority: true,
            pageable: true,
            ..HARDWARE
        },
    }
}

/// With a resizable BAR there is no third heap: the CPU reaches the first.
fn nvidia_proprietary_rebar() -> Facts {
    let mut facts = nvidia_proprietary();
    facts.name = "NVIDIA, 24 GiB, resizable BAR (not captured)".into();
    facts.heaps.truncate(2);
    facts.types[4].heap = 0;
    facts
}

const fn join(one: Flags, other: Flags) -> Flags {
    Flags::from_raw(one.as_raw() | other.as_raw())
}

/// A heap of the device's own.
fn own(bytes: u64, budget: Option<u64>) -> Heap {
    Heap {
        bytes,
        budget,
        device_local: true,
    }
}

/// A heap of the host's memory.
fn host(bytes: u64, budget: Option<u64>) -> Heap {
    Heap {
        bytes,
        budget,
        device_local: false,
    }
}

fn types(types: &[(u32, Flags)]) -> Vec<Type> {
    let kind = |&(heap, flags): &(u32, Flags)| Type { heap, flags };
    types.iter().map(kind).collect()
}
