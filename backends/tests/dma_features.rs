//! What the kernel's DMA API can do, row by row: which tests show it here, or why it is not here.
//!
//! The rows are the capabilities of the kernel's mapping API, its allocator of I/O addresses, its
//! scatter lists, its bounce buffers and its buffer sharing, numbered from 1 to 101. The table is
//! printed; a row without a test or a reason fails, and so does a test that is not there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What becomes of a row here.
enum Here {
    /// These tests show it.
    Shown(&'static [&'static str]),
    /// It cannot be written, or is not ours to do.
    Not(&'static str),
}

use Here::{Not, Shown};

// A line a row, however long it is.
#[rustfmt::skip]
const ROWS: [(u32, &str, Here); 101] = [
    // Directions, ownership, syncs.
    (1, "direction set", Shown(&["every_legal_sequence_gives_both_sides_the_right_bytes"])),
    (2, "map a single range", Shown(&["every_legal_sequence_gives_both_sides_the_right_bytes", "what_cannot_be_shown_leaves_nothing_behind"])),
    (3, "unmap", Shown(&["tables_show_what_is_live_and_nothing_else", "a_mapping_is_ended_by_its_own_device"])),
    (4, "attributes that must match at unmap", Shown(&["codes_are_stable_and_each_class_says_what_the_types_do"])),
    (5, "sync for the CPU, for the device", Shown(&["ranges_that_are_empty_outside_or_backwards_are_refused", "a_sync_beyond_the_mapping_is_refused_and_not_clamped"])),
    (6, "direction of a sync", Shown(&["a_table_of_buffers_says_who_owns_and_which_way"])),
    (7, "both ways", Shown(&["every_legal_sequence_gives_both_sides_the_right_bytes", "without_syncs_on_a_platform_that_needs_them_bytes_are_old"])),
    (8, "whether syncs are needed", Shown(&["a_device_that_copied_needs_syncs_whatever_becomes_of_its_masks"])),
    (9, "whether an unmap is needed", Shown(&["a_device_that_copied_needs_syncs_whatever_becomes_of_its_masks"])),
    (10, "no bytes", Shown(&["frames_without_an_address_and_no_bytes_are_refused", "ranges_that_are_empty_outside_or_backwards_are_refused"])),
    (11, "ranges past the last address", Shown(&["bytes_that_are_not_there_are_refused", "what_never_fits_is_no_matter_of_retrying"])),
    (12, "memory that may not be mapped", Shown(&["memory_that_has_fewer_frames_than_bytes_is_no_backing", "what_could_end_the_program_is_not_taken_in"])),
    (13, "no mask", Not("a device has a mask from its making, 32 bits without a word; a list is never mapped by nothing, which every test of lists looks at")),
    // Allocation.
    (14, "allocate coherent memory", Shown(&["it_is_whole_pages_zero_and_within_the_coherent_mask", "both_see_the_same_after_publish_and_observe_whatever_caches_do"])),
    (15, "where it comes from", Shown(&["a_pool_that_is_empty_and_a_system_that_is_are_told_apart"])),
    (16, "for a device that does not snoop", Shown(&["the_mode_is_what_the_device_needs_and_is_said"])),
    (17, "write-combined", Shown(&["the_mode_is_what_the_device_needs_and_is_said"])),
    (18, "without a CPU mapping", Shown(&["it_is_freed_behind_the_device_alone"])),
    (19, "non-coherent pages", Shown(&["it_is_zero_at_first_and_given_back_at_the_end", "every_legal_sequence_gives_both_sides_the_right_bytes"])),
    (20, "one segment for the device, several for the CPU", Shown(&["a_list_behind_translation_is_one_block_within_the_mask"])),
    (21, "contiguous by force", Shown(&["runs_are_as_the_attributes_say"])),
    (22, "pools for those who may not sleep", Not("a process may always sleep; frames at hand are the pool's matter")),
    (23, "a region of a device's own", Not("device memory is a memory type with a region, not system memory")),
    (24, "mapping it for users", Shown(&["words_and_bytes_outside_or_out_of_step_are_refused"])),
    (25, "a list of pages of coherent memory", Not("not offered: it may have none; who shares exports an object")),
    // Masks.
    (26, "two masks", Shown(&["what_is_live_commits_its_own_mask_only", "mail_001_masks_change_while_buffers_are_there"])),
    (27, "which masks are accepted", Shown(&["what_is_live_commits_its_own_mask_only"])),
    (28, "the mask that reaches all", Shown(&["the_highest_zone_with_memory_counts"])),
    (29, "addressing that is limited", Shown(&["a_bus_limits_what_a_device_reaches", "a_narrow_device_gets_pages_within_its_reach_or_none_at_all"])),
    (30, "whether memory is within reach", Shown(&["nothing_is_mapped_above_the_mask_and_no_mask_is_narrowed_below_what_is"])),
    (31, "masks that change while something is mapped", Shown(&["nothing_is_mapped_above_the_mask_and_no_mask_is_narrowed_below_what_is", "mail_001_masks_change_while_buffers_are_there"])),
    // Paths.
    (32, "the path of a call", Shown(&["the_path_is_kept_in_the_mapping_and_does_not_change_while_one_lives"])),
    (33, "default domains", Shown(&["every_platform_is_explained_as_expected"])),
    (34, "changing the domain at run time", Not("the probe reports the type of a group and never writes it")),
    (35, "a window that is direct", Shown(&["the_path_is_kept_in_the_mapping_and_does_not_change_while_one_lives"])),
    (36, "devices that are not trusted", Shown(&["what_is_below_a_port_that_leads_outside_is_untrusted", "what_goes_to_the_card_and_back_is_the_same_byte_by_byte"])),
    (37, "identity with a narrow mask", Shown(&["every_case_has_a_row_and_every_row_a_case_and_none_is_unsafe"])),
    (38, "permissions", Shown(&["what_is_not_mapped_or_may_not_be_written_stays_as_it_is_and_the_job_ends_well"])),
    // I/O addresses.
    (39, "granules", Shown(&["a_granule_is_a_power_of_two_up_to_a_page"])),
    (40, "from the limit down, aligned", Shown(&["it_is_filled_from_the_limit_down_and_never_at_0"])),
    (41, "the limit", Shown(&["an_allocation_without_room_invalidates_and_tries_again", "who_finds_no_addresses_has_others_leave"])),
    (42, "32 bits first", Shown(&["low_addresses_come_first_until_they_do_not_suffice"])),
    (43, "reserved addresses", Shown(&["fixed_addresses_are_granted_refused_and_given_back", "addresses_are_shown_once_and_interrupts_keep_theirs"])),
    (44, "a cache of ranges", Shown(&["what_is_kept_is_used_only_where_it_fits", "threads_are_never_given_the_same_addresses"])),
    (45, "the optimal size", Shown(&["a_device_tells_what_it_needs_and_what_costs_least"])),
    (46, "strict and lazy", Shown(&["a_strict_range_is_invalidated_before_it_is_free", "a_lazy_range_waits_for_its_batch_its_time_or_a_flush"])),
    (47, "boundaries", Shown(&["a_segment_that_would_cross_a_boundary_is_moved_up_to_it", "a_boundary_is_not_crossed_though_the_highest_place_crosses_it"])),
    (48, "more alignment than a granule", Shown(&["a_translation_shows_no_neighbours_and_keeps_no_more_than_a_granule"])),
    (49, "link, sync, unlink", Shown(&["only_the_first_link_starts_and_only_the_last_ends_within_a_granule"])),
    (50, "addresses that the caller chooses", Shown(&["fixed_addresses_are_granted_refused_and_given_back"])),
    (51, "unmapping parts", Shown(&["links_are_unlinked_whole_and_once"])),
    // Lists.
    (52, "lists of pages", Shown(&["only_what_adjoins_in_one_file_is_merged", "parameters_that_build_nothing_are_refused"])),
    (53, "mapping them", Shown(&["frames_without_an_address_are_not_mapped_as_they_are", "a_list_behind_translation_is_one_block_within_the_mask"])),
    (54, "joining segments", Shown(&["a_translation_joins_what_ends_and_begins_on_granules"])),
    (55, "segments that are too long", Shown(&["any_list_can_be_held_to_the_parameters"])),
    (56, "two counts", Shown(&["mail_002_a_lists_two_sides_are_walked_apart"])),
    (57, "segments of other devices", Shown(&["memory_of_another_device_is_cut_but_never_joined"])),
    (58, "errors by what to do next", Shown(&["what_cannot_be_shown_leaves_nothing_behind", "who_finds_no_addresses_has_others_leave"])),
    (59, "what can be joined", Shown(&["a_device_tells_what_it_needs_and_what_costs_least", "a_translation_joins_what_ends_and_begins_on_granules"])),
    // Bouncing.
    (60, "slots and sets", Shown(&["what_never_fits_is_refused_with_what_would", "what_is_longer_than_a_set_of_slots_is_copied_in_pieces"])),
    (61, "areas", Shown(&["areas_are_a_power_of_two_and_have_a_set_each"])),
    (62, "where a mapping begins", Shown(&["low_bits_are_kept_and_pages_begin_at_pages", "neither_a_set_nor_a_boundary_is_crossed"])),
    (63, "when it is copied", Shown(&["mapping_copies_in_whatever_the_direction", "a_skipped_sync_suppresses_the_copy_of_the_unmap_alone"])),
    (64, "more than was mapped", Shown(&["a_sync_beyond_the_mapping_is_refused_and_not_clamped"])),
    (65, "a pool that is full", Shown(&["a_pool_that_is_full_maps_nothing"])),
    (66, "a pool that grows", Not("a pool has the size that it was made with; who has more memory makes another")),
    (67, "boot switches", Shown(&["of_two_the_last_counts_and_numbers_may_come_first"])),
    (68, "a pool that a device is restricted to", Shown(&["every_platform_is_explained_as_expected"])),
    (69, "how full it is", Shown(&["drawn_places_keep_the_laws"])),
    // Attributes.
    (70, "weak ordering", Not("a hint to bridges that no seam here carries out")),
    (71, "write-combined, as an attribute", Shown(&["the_mode_is_what_the_device_needs_and_is_said"])),
    (72, "no kernel mapping", Shown(&["it_is_freed_behind_the_device_alone"])),
    (73, "skip the sync", Shown(&["a_sync_that_is_skipped_at_a_copy_loses_what_the_device_wrote", "mail_004_a_shared_buffer_is_never_copied"])),
    (74, "require coherency", Shown(&["a_copy_is_opt_in_and_demanded_coherency_fails_with_the_cause", "mail_000_one_question_was_answered_by_another"])),
    (75, "registers", Shown(&["memory_of_another_device_is_cut_but_never_joined", "each_class_is_found_and_no_other"])),
    (76, "memory that is not encrypted", Shown(&["encrypted_guests_need_memory_that_is_not"])),
    (77, "privileged", Not("a bit of the IOMMU's entries that only its driver can set")),
    (78, "hints to the allocator", Shown(&["runs_are_as_the_attributes_say"])),
    (79, "lines that may overlap", Shown(&["what_may_overlap_is_no_violation"])),
    // Caches.
    (80, "arm64", Shown(&["dirty_lines_are_gone_before_a_device_writes_and_clean_ones_before_the_cpu_reads", "lines_and_granules_are_told_in_words"])),
    (81, "riscv", Not("its instructions are not for user mode; there is no cache maintenance there, and it is said")),
    (82, "x86", Shown(&["memory_keeps_its_content_whatever_is_maintained", "caches_are_maintained_for_devices_that_do_not_see_them"])),
    (83, "several ranges, one barrier", Shown(&["a_list_is_maintained_between_two_barriers"])),
    (84, "parts of a line", Shown(&["a_line_that_both_write_loses_one_of_the_writes"])),
    (85, "lines that are not whole", Shown(&["part_of_a_line_that_the_device_writes_is_copied_or_refused", "a_line_is_whole_if_each_of_its_bytes_is_ones_own"])),
    // Sharing.
    (86, "export", Shown(&["an_object_is_exported_once", "its_size_is_whole_pages_for_life"])),
    (87, "attach", Shown(&["a_veto_is_told", "who_may_attach_is_whom_the_solver_lets", "a_late_strict_one_is_refused_or_has_it_moved"])),
    (88, "map an attachment", Shown(&["each_attachment_has_a_list_of_its_own", "who_is_static_keeps_the_object", "fences_go_both_ways"])),
    (89, "pin", Shown(&["pins_are_for_who_is_dynamic_and_counted"])),
    (90, "move notice", Shown(&["who_is_dynamic_is_told_before_the_object_moves", "who_is_revocable_never_holds_anything_up", "two_cards_read_and_write_one_object_wherever_it_goes"])),
    (91, "CPU access in brackets", Shown(&["brackets_wait_for_those_who_are_in_the_way", "brackets_make_caches_and_cards_agree"])),
    (92, "mapping for users", Not("an export is mapped by the exporter's windows, which follow it")),
    (93, "one address for all", Not("Reserved::vmap, which every holder of the object has")),
    (94, "classes of fences", Shown(&["fences_go_both_ways"])),
    (95, "fences as files", Not("a fence is a value here; a file of it is a backend's")),
    (96, "one's own export", Shown(&["a_device_gets_its_own_object_back", "counts_return_to_where_they_began"])),
    (97, "udmabuf", Shown(&["old_bytes_mean_a_copy_and_new_ones_none", "this_machine_copies_or_does_not_or_cannot_be_asked"])),
    (98, "heaps of dma-bufs", Not("a source of memory by the name of a property; frames come from page sources, memory files of theirs are brought by users")),
    (99, "size", Shown(&["its_size_is_whole_pages_for_life"])),
    (100, "from peer to peer", Shown(&["cards_at_a_switch_are_four_hops_apart", "redirected_requests_go_through_the_host_or_nowhere", "device_memory_is_mapped_for_who_reaches_it"])),
    (101, "registers as dma-bufs", Not("takes a device that a process owns by VFIO, for which there is no backend yet")),
];

/// Every test function of the workspace.
fn tests() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for member in ["ttm", "backends", "examples"] {
        for part in ["src", "tests"] {
            collect(&root.join(member).join(part), &mut files);
        }
    }
    let mut found = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a source is text");
        for after in text.split("#[test]").skip(1) {
            let name = after.split("fn ").nth(1).and_then(|s| s.split('(').next());
            found.extend(name.map(str::to_owned));
        }
    }
    found
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("a folder is read to its end").path();
        match path.extension() {
            _ if path.is_dir() => collect(&path, files),
            Some(ext) if ext == "rs" => files.push(path),
            _ => {}
        }
    }
}

#[test]
fn every_row_is_shown_or_says_why_not() {
    let tests = tests();
    let mut missing = Vec::new();
    for (expected, (number, what, here)) in (1..).zip(&ROWS) {
        assert_eq!(*number, expected, "rows are in order");
        match here {
            Shown(names) => {
                assert!(!names.is_empty(), "row {number} is shown by nothing");
                println!("{number:3}  {what}: {}", names.join(", "));
                let gone = names.iter().filter(|name| !tests.contains(**name));
                missing.extend(gone.map(|name| format!("row {number}: {name}")));
            }
            Not(why) => println!("{number:3}  {what}: not here: {why}"),
        }
    }
    assert!(missing.is_empty(), "there is no test {missing:#?}");
}
