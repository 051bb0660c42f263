//! Cache lines that are in several mappings.

use super::{Class, Found, Record, Site};

/// Mappings of a line beside the first from which on somebody is taken to forget to unmap.
const MANY: usize = 7;

/// Looks for lines that the new record has in common with others.
pub(super) fn check<'r>(
    new: &Record,
    others: impl Iterator<Item = (&'r Record, Site)>,
    found: &mut Found,
) {
    if !new.claims_lines() {
        return;
    }
    // Where overlaps begin and end, by file, with the lines.
    let mut bounds: Vec<(u32, u64, i32)> = Vec::new();
    let mut first = None;
    for (other, site) in others.filter(|(other, _)| other.claims_lines()) {
        for mine in new.lines() {
            for its in other.lines().filter(|its| its.0 == mine.0) {
                let (start, end) = (mine.1.max(its.1), mine.2.min(its.2));
                if start < end {
                    first.get_or_insert((site, start));
                    bounds.push((mine.0, start, 1));
                    bounds.push((mine.0, end, -1));
                }
            }
        }
    }
    let Some((site, line)) = first else {
        return;
    };
    // Of two at the same place, the end comes first.
    bounds.sort_unstable_by_key(|(file, at, step)| (*file, *at, *step));
    let (mut depth, mut most) = (0, 0);
    for (.., step) in bounds {
        depth += step;
        most = most.max(depth);
    }
    let text =
        format!("line {line:#x} of {new} is in {most} other mappings, and a device may write it");
    found.push((Class::OverlappingLines, Some(site), text));
    if most as usize > MANY {
        let text = format!("line {line:#x} is in {most} other mappings");
        found.push((Class::TooManyOverlaps, Some(site), text));
    }
}
