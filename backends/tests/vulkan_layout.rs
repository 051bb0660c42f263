//! Heaps and types of Vulkan devices become memories: of every captured device, and of devices
//! changed so that something is missing. No device and no loader is needed.

use ash::vk::{MemoryPropertyFlags as Flags, PhysicalDeviceType};
use backends::vulkan::fixtures::{fixture, fixture_names};
use backends::vulkan::{BAR, Facts, GART, Layout, MadeOf, Memory};
use placement::MemType;

/// A memory in few words: name, then type and heap, and what the CPU can do there.
fn short(memory: &Memory) -> String {
    let name = memory.name();
    match memory.made_of {
        MadeOf::Frames { imported: true } => format!("{name} imported"),
        MadeOf::Frames { imported: false } => format!("{name} frames"),
        MadeOf::Chunks(chunked) => {
            let cpu = match (chunked.visible, chunked.cached) {
                (false, _) => "unseen",
                (true, false) => "seen",
                (true, true) => "cached",
            };
            format!("{name} {}/{} {cpu}", chunked.type_index, chunked.heap)
        }
    }
}

fn shorts(facts: &Facts) -> Vec<String> {
    let layout = Layout::of(facts).unwrap();
    layout.memories.iter().map(short).collect()
}

fn known(name: &str) -> Facts {
    fixture(name).unwrap()
}

fn layout(facts: &Facts) -> Layout {
    Layout::of(facts).unwrap()
}

#[track_caller]
fn assert_notes(facts: &Facts, about: &str) {
    let notes = layout(facts).notes;
    assert!(notes.iter().any(|note| note.contains(about)), "{notes:?}");
}

#[test]
fn every_fixture_becomes_the_memories_expected() {
    #[rustfmt::skip]
    let table: &[(&str, bool, &[&str])] = &[
        ("lavapipe-25", true, &["vram 0/0 cached", "tt imported", "system imported"]),
        ("lavapipe-22", true, &["vram 0/0 cached", "tt imported", "system imported"]),
        ("radv-navi21", false, &["vram 0/0 unseen", "bar 3/2 seen", "tt imported", "gart 5/1 cached", "system imported"]),
        ("radv-renoir", true, &["vram 3/1 seen", "tt imported", "gart 5/0 cached", "system imported"]),
        ("nvk-tu102", false, &["vram 1/0 seen", "tt 2/1 cached", "system frames"]),
        ("turnip-660", true, &["vram 0/0 seen", "tt 1/0 cached", "system frames"]),
        ("hk-m1", true, &["vram 0/0 cached", "tt 0/0 cached", "system frames"]),
        ("nvidia-proprietary", false, &["vram 1/0 unseen", "bar 4/2 seen", "tt imported", "gart 3/1 cached", "system imported"]),
        ("nvidia-proprietary-rebar", false, &["vram 4/0 seen", "tt imported", "gart 3/1 cached", "system imported"]),
    ];
    let names: Vec<_> = table.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names, fixture_names().collect::<Vec<_>>());
    for (name, unified, memories) in table {
        let facts = known(name);
        assert_eq!(shorts(&facts), *memories, "{name}");
        assert_eq!(layout(&facts).unified, *unified, "{name}");
    }
}

#[test]
fn every_memory_is_of_the_type_that_it_says() {
    for name in fixture_names() {
        let facts = known(name);
        for memory in &layout(&facts).memories {
            assert!(!memory.why.is_empty(), "{name}: {memory:?}");
            let Some(chunked) = memory.chunked() else {
                continue;
            };
            let kind = facts.types[chunked.type_index as usize];
            assert_eq!(chunked.heap, kind.heap, "{name}: {memory:?}");
            assert_eq!(chunked.bytes, facts.heaps[kind.heap as usize].bytes);
            assert_eq!(chunked.coherent, kind.flags.contains(Flags::HOST_COHERENT));
            assert!(chunked.coherent || !chunked.visible, "{name}: {memory:?}");
            assert!(chunked.visible || !chunked.cached, "{name}: {memory:?}");
        }
    }
}

#[test]
fn there_is_one_memory_of_a_name_and_it_is_found() {
    let layout = layout(&known("radv-navi21"));
    for mem_type in [MemType::VRAM, BAR, MemType::TT, GART, MemType::SYSTEM] {
        assert_eq!(layout.memory(mem_type).unwrap().mem_type, mem_type);
    }
    assert_eq!(layout.memories.len(), 5);
}

#[test]
fn a_device_without_memory_of_its_own_is_refused() {
    let mut facts = known("radv-navi21");
    for kind in &mut facts.types {
        kind.flags &= !Flags::DEVICE_LOCAL;
    }
    let lacks = Layout::of(&facts).unwrap_err();
    assert!(lacks.contains("memory of its own"), "{lacks}");
}

#[test]
fn memory_that_buffers_cannot_have_is_no_memory() {
    for never in [Flags::LAZILY_ALLOCATED, Flags::PROTECTED] {
        let mut facts = known("lavapipe-25");
        facts.types[0].flags |= never;
        let lacks = Layout::of(&facts).unwrap_err();
        assert!(lacks.contains("memory of its own"), "{never:?}: {lacks}");
    }
}

#[test]
fn a_type_of_a_heap_that_is_not_there_is_no_memory() {
    let mut facts = known("lavapipe-25");
    facts.types[0].heap = 3;
    assert!(Layout::of(&facts).is_err());
}

#[test]
fn a_device_without_timeline_semaphores_is_refused() {
    let mut facts = known("radv-navi21");
    facts.can.timeline = false;
    let lacks = Layout::of(&facts).unwrap_err();
    assert!(lacks.contains("timeline semaphores"), "{lacks}");
}

#[test]
fn types_that_need_flushes_are_not_seen() {
    let mut facts = known("nvk-tu102");
    facts.types[1].flags &= !Flags::HOST_COHERENT;
    assert_eq!(
        shorts(&facts),
        ["vram 0/0 unseen", "tt 2/1 cached", "system frames"]
    );
    assert_notes(&facts, "type 1 would need flushes");
}

#[test]
fn vram_whose_only_type_needs_flushes_is_not_seen() {
    let mut facts = known("nvk-tu102");
    facts.types.remove(0);
    facts.types[0].flags &= !Flags::HOST_COHERENT;
    assert_eq!(
        shorts(&facts),
        ["vram 0/0 unseen", "tt 1/1 cached", "system frames"]
    );
}

#[test]
fn a_device_whose_memory_content_cannot_reach_is_refused() {
    let mut facts = known("nvk-tu102");
    for kind in &mut facts.types {
        kind.flags &= !Flags::HOST_COHERENT;
    }
    let lacks = Layout::of(&facts).unwrap_err();
    assert!(lacks.contains("no content can get there"), "{lacks}");
    // Imported frames are a way.
    facts.can.host_import = true;
    facts.limits.import_align = 4096;
    assert_eq!(
        shorts(&facts),
        ["vram 0/0 unseen", "tt imported", "system imported"]
    );
}

#[test]
fn frames_smaller_than_what_imports_come_in_are_not_imported() {
    let mut facts = known("radv-navi21");
    facts.limits.import_align = 64 << 10;
    assert_eq!(
        shorts(&facts),
        [
            "vram 0/0 unseen",
            "bar 3/2 seen",
            "tt 5/1 cached",
            "system frames"
        ]
    );
    assert_notes(&facts, "multiples of 65536 bytes");
    facts.limits.import_align = 0;
    assert_eq!(shorts(&facts)[2], "tt 5/1 cached");
    facts.limits.import_align = 64;
    assert_eq!(shorts(&facts)[2], "tt imported");
}

#[test]
fn types_behind_a_feature_are_taken_only_where_there_is_nothing_else() {
    let mut facts = known("radv-navi21");
    facts.types.retain(|kind| {
        kind.flags.contains(Flags::DEVICE_COHERENT_AMD) || kind.flags.contains(Flags::HOST_CACHED)
    });
    let vram = layout(&facts).memories[0].chunked().unwrap();
    let flags = facts.types[vram.type_index as usize].flags;
    assert!(flags.contains(Flags::DEVICE_COHERENT_AMD), "{flags:?}");
    let gart = layout(&facts).memory(GART).unwrap().chunked().unwrap();
    let flags = facts.types[gart.type_index as usize].flags;
    assert!(!flags.contains(Flags::DEVICE_COHERENT_AMD), "{flags:?}");
}

#[test]
fn where_only_device_memory_is_seen_content_goes_through_it() {
    let mut facts = known("nvk-tu102");
    facts.types.truncate(2);
    assert_eq!(
        shorts(&facts),
        ["vram 1/0 seen", "tt 1/0 seen", "system frames"]
    );
}

#[test]
fn memories_of_one_heap_are_noted() {
    assert_notes(&known("turnip-660"), "vram and tt are of one heap");
    let notes = layout(&known("radv-navi21")).notes;
    assert!(notes.is_empty(), "{notes:?}");
}

#[test]
fn a_device_of_the_host_is_unified_whatever_its_heaps_are() {
    let mut facts = known("radv-navi21");
    assert!(!facts.is_unified());
    facts.device_type = PhysicalDeviceType::INTEGRATED_GPU;
    assert!(facts.is_unified());
    assert_notes(&facts, "no move makes anything faster");
}
