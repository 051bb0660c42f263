//! The configuration space of a PCI device.
//!
//! ```text
//!   0x00  vendor   0x06  status: bit 4, there are capabilities   0x34  where the first is
//!   a capability: 0  id   1  where the next is, or 0   2  content
//!   PCI Express, id 0x10: 8  device control: bit 11, Enable No Snoop
//! ```

/// What an unprivileged reader gets.
const HEADER: usize = 64;
/// Where a space without extensions ends.
const END: usize = 256;

const PCI_EXPRESS: u8 = 0x10;

/// Whether the device may send requests that do not snoop; the reason if that is not told.
pub(super) fn may_not_snoop(space: &[u8]) -> Result<bool, &'static str> {
    let space = &space[..space.len().min(END)];
    if space.len() < HEADER {
        return Err("is shorter than a header");
    }
    if space[..2] == [0xff; 2] {
        return Err("is empty: the device does not answer");
    }
    if space[6] >> 4 & 1 == 0 {
        return Err("has no capabilities: the device is not PCI Express");
    }
    let mut at = next(space[0x34]);
    // A list that is longer goes in a circle.
    for _ in 0..END / 4 {
        if at < HEADER {
            break;
        }
        let content = |n: usize| space.get(at + n).copied().ok_or(CUT_OFF);
        if content(0)? == PCI_EXPRESS {
            return Ok(content(9)? >> 3 & 1 == 1);
        }
        at = next(content(1)?);
    }
    Err("has no such capability: the device is not PCI Express")
}

const CUT_OFF: &str = "is cut off at its header; root sees more";

/// The two lowest bits are no part of it.
fn next(pointer: u8) -> usize {
    usize::from(pointer & !3)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A space with a power capability at 0x50, and PCI Express after it, which may send such
    /// requests, or not.
    pub(in super::super) fn express(may: bool) -> Vec<u8> {
        let mut space = vec![0; END];
        space[..2].copy_from_slice(&[0x86, 0x80]);
        space[6] = 0x10;
        space[0x34] = 0x50;
        space[0x50..0x52].copy_from_slice(&[0x01, 0x70]);
        space[0x70..0x72].copy_from_slice(&[PCI_EXPRESS, 0]);
        space[0x79] = if may { 0x28 } else { 0x20 };
        space
    }

    #[test]
    fn the_bit_is_found_at_the_end_of_the_list() {
        for may in [false, true] {
            assert_eq!(may_not_snoop(&express(may)), Ok(may));
            let mut extended = express(may);
            extended.resize(4096, 0xee);
            assert_eq!(may_not_snoop(&extended), Ok(may));
            let mut low_bits = express(may);
            (low_bits[0x34], low_bits[0x51]) = (0x53, 0x72);
            assert_eq!(may_not_snoop(&low_bits), Ok(may));
        }
    }

    #[test]
    fn what_is_cut_off_is_said_to_be() {
        let whole = express(true);
        for end in 0..END {
            let told = may_not_snoop(&whole[..end]);
            match end {
                ..HEADER => assert_eq!(told, Err("is shorter than a header")),
                HEADER..0x7a => assert_eq!(told, Err(CUT_OFF), "{end}"),
                _ => assert_eq!(told, Ok(true), "{end}"),
            }
        }
    }

    #[test]
    fn other_devices_have_no_such_bit() {
        let mut old = express(true);
        old[6] = 0;
        assert!(may_not_snoop(&old).unwrap_err().contains("not PCI Express"));
        let mut without = express(true);
        without[0x70] = 0x05;
        assert!(
            may_not_snoop(&without)
                .unwrap_err()
                .contains("not PCI Express")
        );
        assert!(
            may_not_snoop(&[0xff; END])
                .unwrap_err()
                .contains("does not answer")
        );
        // A circle ends.
        let mut circle = express(true);
        circle[0x51] = 0x50;
        assert!(
            may_not_snoop(&circle)
                .unwrap_err()
                .contains("not PCI Express")
        );
    }
}
