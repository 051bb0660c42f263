//! The checksum of a page in the backup: its bytes, its owner, its place and its generation.

use crate::pages::Mapped;

use super::SlotTag;

const PAGE: usize = placement::PAGE_SIZE as usize;

/// The checksum of page `n` of `mapped`, which is the page that `tag` names.
pub(super) fn of_page(mapped: &Mapped, n: usize, tag: SlotTag) -> u32 {
    let mut page = [0; PAGE];
    mapped.read(n * PAGE, &mut page);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&tag.object.to_le_bytes());
    hasher.update(&tag.first_page.to_le_bytes());
    hasher.update(&tag.generation.to_le_bytes());
    hasher.update(&page);
    hasher.finalize()
}
