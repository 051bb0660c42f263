//! Images of optimal tiling: their texels survive every move, whatever their form is where they are.
//!
//! Texels come and go by raw commands of a user, in the layout of rest.
#![expect(unsafe_code, reason = "raw commands, as a user records them")]

use ash::vk;
use backends::vulkan::{BufferInfo, Copies, ImageInfo, VulkanDriver};
use placement::{MemType, Placement};
use ttm::bo::Bo;
use ttm::context::OpContext;
use ttm::error::Error;
use ttm::fence::Usage;

use super::gpu::{Gate, Gpu, barrier, buffer, generation, image};
use super::stage::{MIB, Setup, Stage, in_type};
use super::words::{assert_words, words};

/// What is tested, and how its texels lie in plain rows.
#[derive(Clone, Copy, Debug)]
struct Shape {
    format: vk::Format,
    extent: [u32; 3],
    levels: u32,
    layers: u32,
    /// Texels of a block, on a side, and its bytes.
    block: (u32, u64),
}

const SHAPES: [Shape; 5] = [
    Shape {
        format: vk::Format::R8G8B8A8_UNORM,
        extent: [200, 120, 1],
        levels: 5,
        layers: 3,
        block: (1, 4),
    },
    Shape {
        format: vk::Format::R8G8B8A8_UNORM,
        extent: [40, 24, 16],
        levels: 3,
        layers: 1,
        block: (1, 4),
    },
    Shape {
        format: vk::Format::R8_UNORM,
        extent: [37, 19, 1],
        levels: 6,
        layers: 2,
        block: (1, 1),
    },
    Shape {
        format: vk::Format::BC1_RGBA_UNORM_BLOCK,
        extent: [100, 52, 1],
        levels: 4,
        layers: 1,
        block: (4, 8),
    },
    // More than a run of system pages.
    Shape {
        format: vk::Format::R8G8B8A8_UNORM,
        extent: [1024, 1300, 1],
        levels: 1,
        layers: 1,
        block: (1, 4),
    },
];

impl Shape {
    fn info(&self) -> ImageInfo {
        let [width, height, depth] = self.extent;
        let info = ImageInfo::new(self.format, width, height)
            .levels(self.levels)
            .layers(self.layers);
        match depth {
            1 => info,
            depth => info.depth(depth),
        }
    }

    /// One level after the other, each at a multiple of 64 bytes.
    fn regions(&self) -> (Vec<vk::BufferImageCopy>, u64) {
        let mut at = 0;
        let mut regions = Vec::new();
        for level in 0..self.levels {
            let [width, height, depth] = self.extent.map(|n| (n >> level).max(1));
            let layers = vk::ImageSubresourceLayers {
                aspect_mask: vk::ImageAspectFlags::COLOR,
                mip_level: level,
                base_array_layer: 0,
                layer_count: self.layers,
            };
            let extent = vk::Extent3D {
                width,
                height,
                depth,
            };
            let region = vk::BufferImageCopy::default()
                .buffer_offset(at)
                .image_subresource(layers)
                .image_extent(extent);
            regions.push(region);
            at = (at + self.bytes_of(level)).next_multiple_of(64);
        }
        (regions, at)
    }

    fn bytes_of(&self, level: u32) -> u64 {
        let [width, height, depth] = self.extent.map(|n| (n >> level).max(1));
        let (side, bytes) = self.block;
        let blocks = width.div_ceil(side) * height.div_ceil(side) * depth * self.layers;
        u64::from(blocks) * bytes
    }

    /// The bytes of a buffer that are texels.
    fn texels(&self, buffer: &[u8]) -> Vec<u8> {
        let (regions, _) = self.regions();
        let part = |(level, region): (u32, &vk::BufferImageCopy)| {
            let at = region.buffer_offset as usize;
            buffer[at..at + self.bytes_of(level) as usize].to_vec()
        };
        (0..).zip(&regions).flat_map(part).collect()
    }

    fn is_there(&self, stage: &Stage) -> bool {
        match stage.vulkan.image(&self.info()) {
            Ok(_) => true,
            Err(error) => {
                println!("skipped: {self:?}: {error}");
                false
            }
        }
    }
}

fn vram() -> Placement {
    in_type(MemType::VRAM)
}

fn system() -> Placement {
    in_type(MemType::SYSTEM)
}

fn make(stage: &Stage, shape: &Shape) -> Bo<VulkanDriver> {
    stage.make(stage.vulkan.image(&shape.info()).unwrap())
}

fn plain(stage: &Stage, bytes: u64) -> Bo<VulkanDriver> {
    let usage = vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST;
    let info = BufferInfo::new(bytes).usage(usage);
    stage.make(stage.vulkan.buffer(&info).unwrap())
}

/// Puts the words of `owner` into the texels.
fn upload(stage: &Stage, gpu: &Gpu<'_>, shape: &Shape, bo: &Bo<VulkanDriver>, owner: u64) {
    let (regions, bytes) = shape.regions();
    let from = plain(stage, bytes.next_multiple_of(8));
    stage.write(&from, &words(owner, 0, from.bytes())).unwrap();
    let used = [(&from, Usage::Read), (bo, Usage::Write)];
    let done = gpu.work(&used, Some(&vram()), |device, commands, bound| {
        let (from, to) = (buffer(&bound[0]), image(&bound[1]));
        let layout = vk::ImageLayout::GENERAL;
        // SAFETY: recording; both are bound, the regions are inside, the image is in its layout.
        unsafe { device.cmd_copy_buffer_to_image(commands, from, to, layout, &regions) }
    });
    done.unwrap();
}

/// The texels, one level after the other.
fn download(stage: &Stage, gpu: &Gpu<'_>, shape: &Shape, bo: &Bo<VulkanDriver>) -> Vec<u8> {
    let (regions, bytes) = shape.regions();
    let to = plain(stage, bytes.next_multiple_of(8));
    let used = [(bo, Usage::Read), (&to, Usage::Write)];
    let done = gpu.work(&used, Some(&vram()), |device, commands, bound| {
        let (from, to) = (image(&bound[0]), buffer(&bound[1]));
        let layout = vk::ImageLayout::GENERAL;
        // SAFETY: as above.
        unsafe { device.cmd_copy_image_to_buffer(commands, from, layout, to, &regions) }
    });
    done.unwrap();
    shape.texels(&stage.read(&to).unwrap())
}

fn expected(shape: &Shape, owner: u64) -> Vec<u8> {
    let (_, bytes) = shape.regions();
    shape.texels(&words(owner, 0, bytes.next_multiple_of(8)))
}

fn assert_texels(stage: &Stage, gpu: &Gpu<'_>, shape: &Shape, bo: &Bo<VulkanDriver>, owner: u64) {
    let (found, expected) = (download(stage, gpu, shape, bo), expected(shape, owner));
    if let Some(at) = found.iter().zip(&expected).position(|(a, b)| a != b) {
        panic!(
            "{shape:?}, image {owner}: byte {at} of {}: {:#x} instead of {:#x}",
            found.len(),
            found[at],
            expected[at]
        );
    }
    assert_eq!(found.len(), expected.len());
}

fn looked(stage: &Stage, gpu: &Gpu<'_>, bo: &Bo<VulkanDriver>) -> u64 {
    let _ = stage;
    let done = gpu.work(
        &[(bo, Usage::Read)],
        Some(&vram()),
        |device, commands, _| {
            barrier(device, commands);
        },
    );
    generation(&done.unwrap().bound[0])
}

#[test]
fn texels_survive_going_and_coming_back_elsewhere() {
    for copies in [Copies::Queue, Copies::Measured] {
        let Some(stage) = Setup::with_vram(32 * MIB)
            .config(|c| c.copies(copies))
            .stage()
        else {
            return;
        };
        let gpu = Gpu::new(&stage);
        for (owner, shape) in (1..).zip(&SHAPES) {
            if !shape.is_there(&stage) {
                continue;
            }
            let bo = make(&stage, shape);
            upload(&stage, &gpu, shape, &bo, owner);
            let first = looked(&stage, &gpu, &bo);
            assert_eq!(looked(&stage, &gpu, &bo), first, "it did not move");
            // Out by somebody who wants all there is, and back to another place.
            let all = stage.make(stage.vulkan.memory(20 * MIB));
            stage.validate(&all, &vram()).unwrap();
            let second = stage.make(stage.vulkan.memory(12 * MIB));
            stage.validate(&second, &vram()).unwrap();
            assert_eq!(stage.place_of(&bo), Some(MemType::SYSTEM));
            drop((all, second));
            let small = stage.make(stage.vulkan.memory(MIB));
            stage.validate(&small, &vram()).unwrap();
            assert_texels(&stage, &gpu, shape, &bo, owner);
            let last = looked(&stage, &gpu, &bo);
            assert_ne!(last, first, "it moved");
            // Swapped out between.
            stage.validate(&bo, &system()).unwrap();
            let swapped = stage
                .device
                .exec(OpContext::new(), |t| t.lock(&bo)?.swap_out());
            drop(swapped.unwrap());
            assert_texels(&stage, &gpu, shape, &bo, owner);
            stage.check();
        }
        drop(gpu);
        stage.assert_empty();
    }
}

#[test]
fn fresh_images_are_zero_also_where_others_were() {
    let Some(stage) = Setup::with_vram(16 * MIB).stage() else {
        return;
    };
    let gpu = Gpu::new(&stage);
    for (owner, shape) in (1..).zip(&SHAPES) {
        if !shape.is_there(&stage) {
            continue;
        }
        for _ in 0..2 {
            let bo = make(&stage, shape);
            let found = download(&stage, &gpu, shape, &bo);
            assert!(found.iter().all(|byte| *byte == 0), "{shape:?}");
            upload(&stage, &gpu, shape, &bo, owner);
        }
    }
    drop(gpu);
    stage.assert_empty();
}

/// Rows in system memory are the texels one level after the other; device memory has no rows.
#[test]
fn the_cpu_reads_rows_in_system_memory_only() {
    let Some(stage) = Setup::with_vram(32 * MIB).stage() else {
        return;
    };
    let gpu = Gpu::new(&stage);
    let shape = SHAPES[4];
    let bo = make(&stage, &shape);
    upload(&stage, &gpu, &shape, &bo, 5);
    let refused = stage.read(&bo);
    let says = match &refused {
        Err(Error::Unsupported(says)) => *says,
        other => panic!("{other:?}"),
    };
    assert!(says.contains("SYSTEM") || says.contains("system"), "{says}");
    stage.validate(&bo, &system()).unwrap();
    let rows = stage.read(&bo).unwrap();
    let texels = expected(&shape, 5);
    assert!(rows[..texels.len()] == texels[..]);
    // What the CPU writes there are the image's texels.
    let other = expected(&shape, 6);
    stage.write(&bo, &other).unwrap();
    assert!(download(&stage, &gpu, &shape, &bo) == other);
    drop((gpu, bo));
    stage.assert_empty();
}

#[test]
fn images_and_buffers_in_one_memory_keep_what_they_have() {
    let Some(stage) = Setup::with_vram(16 * MIB).stage() else {
        return;
    };
    let gpu = Gpu::new(&stage);
    let shapes: Vec<_> = (SHAPES.iter().copied())
        .filter(|shape| shape.is_there(&stage))
        .collect();
    let images: Vec<_> = (0..12)
        .map(|n| {
            let shape = shapes[n % shapes.len()];
            let bo = make(&stage, &shape);
            upload(&stage, &gpu, &shape, &bo, n as u64);
            (shape, bo)
        })
        .collect();
    let buffers: Vec<_> = (100..112)
        .map(|owner| {
            let bo = plain(&stage, MIB + (owner - 100) * 4096);
            stage.write(&bo, &words(owner, 0, bo.bytes())).unwrap();
            stage.validate(&bo, &vram()).unwrap();
            (owner, bo)
        })
        .collect();
    for round in 0..3 {
        for n in 0..12 {
            let (shape, bo) = &images[(n * 5 + round) % 12];
            assert_texels(&stage, &gpu, shape, bo, ((n * 5 + round) % 12) as u64);
            let (owner, bo) = &buffers[(n * 7 + round) % 12];
            stage.validate(bo, &vram()).unwrap();
            assert_words(&stage.read(bo).unwrap(), *owner, 0);
        }
        stage.check();
    }
    drop((gpu, images, buffers));
    stage.assert_empty();
}

/// An image that left keeps nothing of the memory that it was in.
#[test]
fn memory_that_an_image_left_is_given_back() {
    let Some(stage) = Setup::with_vram(32 * MIB).stage() else {
        return;
    };
    let gpu = Gpu::new(&stage);
    let bo = make(&stage, &SHAPES[4]);
    let before = stage.vulkan.allocations();
    for round in 1..6 {
        upload(&stage, &gpu, &SHAPES[4], &bo, round);
        stage.validate(&bo, &system()).unwrap();
        stage.read(&bo).unwrap();
        stage.until("what the image left is given back", || {
            stage.vulkan.trim();
            stage.vulkan.allocations() == before
        });
    }
    drop((gpu, bo));
    stage.assert_empty();
}

/// The validation layer, where it is loaded, says so if the old image went too early.
#[test]
fn an_old_image_stays_while_work_uses_it() {
    let Some(stage) = Setup::with_vram(32 * MIB)
        .config(|c| c.copies(Copies::Queue))
        .stage()
    else {
        return;
    };
    let gpu = Gpu::new(&stage);
    let shape = SHAPES[0];
    let bo = make(&stage, &shape);
    upload(&stage, &gpu, &shape, &bo, 1);
    let (_, bytes) = shape.regions();
    let to = plain(&stage, bytes.next_multiple_of(8));
    let gate = Gate::new(&stage);
    let (regions, _) = shape.regions();
    let used = [(&bo, Usage::Read), (&to, Usage::Write)];
    let record = |device: &ash::Device, commands, bound: &[_]| {
        let (from, to) = (image(&bound[0]), buffer(&bound[1]));
        let layout = vk::ImageLayout::GENERAL;
        // SAFETY: as above.
        unsafe { device.cmd_copy_image_to_buffer(commands, from, layout, to, &regions) }
    };
    let work = gpu
        .gated(&used, Some(&vram()), Some(&gate), record)
        .unwrap();
    // The content is thrown away while it is being read.
    stage.validate(&bo, &Placement::new()).unwrap();
    let now = looked(&stage, &gpu, &bo);
    assert_ne!(now, generation(&work.bound[0]));
    assert!(!work.fence.is_signalled());
    gate.open();
    work.wait();
    assert!(shape.texels(&stage.read(&to).unwrap()) == expected(&shape, 1));
    assert!(
        download(&stage, &gpu, &shape, &bo)
            .iter()
            .all(|byte| *byte == 0)
    );
    drop((gate, gpu, bo, to));
    stage.assert_empty();
}

#[test]
fn what_does_not_move_is_refused() {
    let Some(stage) = Setup::with_vram(16 * MIB).stage() else {
        return;
    };
    let rgba = vk::Format::R8G8B8A8_UNORM;
    for (wish, word) in [
        (ImageInfo::new(vk::Format::D32_SFLOAT, 16, 16), "format"),
        (ImageInfo::new(vk::Format::UNDEFINED, 16, 16), "FORMAT"),
        (ImageInfo::new(rgba, 0, 16), ""),
        (ImageInfo::new(rgba, 16, 16).levels(0), ""),
        (ImageInfo::new(rgba, 16, 16).levels(20), ""),
        (ImageInfo::new(rgba, 1 << 20, 16), ""),
        (ImageInfo::new(rgba, 16, 16).depth(4).layers(2), ""),
        (ImageInfo::new(rgba, 16, 16).shared_by(&[77]), "family"),
        (
            ImageInfo::new(rgba, 16, 16).flags(vk::ImageCreateFlags::SPARSE_BINDING),
            "sparse",
        ),
    ] {
        let error = stage.vulkan.image(&wish).map(drop).expect_err("refused");
        assert!(error.to_string().contains(word), "{wish:?}: {error}");
    }
    // In system memory it is no image.
    let gpu = Gpu::new(&stage);
    let bo = make(&stage, &SHAPES[0]);
    let used = [(&bo, Usage::Read)];
    let refused = gpu.work(&used, Some(&system()), |_, _, _| {}).map(drop);
    assert!(matches!(refused, Err(Error::Unsupported(_))), "{refused:?}");
    drop((gpu, bo));
    stage.assert_empty();
}

/// Without imports an image has no way out of device memory: it stays, and others find no room
/// rather than an error in the middle of a move.
#[test]
fn an_image_stays_where_nothing_is_imported() {
    let Some(stage) = Setup::with_vram(16 * MIB)
        .config(|c| c.import(false))
        .stage()
    else {
        return;
    };
    let gpu = Gpu::new(&stage);
    let shape = SHAPES[4];
    let bo = make(&stage, &shape);
    upload(&stage, &gpu, &shape, &bo, 3);
    let large = stage.make(stage.vulkan.memory(15 * MIB));
    let refused = stage.validate(&large, &vram());
    assert!(matches!(refused, Err(Error::NoSpace(_))), "{refused:?}");
    assert_texels(&stage, &gpu, &shape, &bo, 3);
    drop((gpu, bo, large));
    stage.assert_empty();
}
