//! Whether mappings are copied on their way, tried out.
//!
//! ```text
//!   old bytes in a page ── begin: mapped, and copied if it is ──▶ copy has the old bytes
//!   new bytes in the page ── begin: brought back from the copy ──▶ the old bytes again
//! ```
//!
//! The page is mapped for a device of no hardware, which has no IOMMU and reaches everything: what is
//! copied for it is copied for every device on a direct path. Of devices behind a translation it says
//! nothing.

use std::io;

use ttm::dma::Missing;

/// What a page is filled with first, and then.
const OLD: u8 = 0xa1;
const NEW: u8 = 0xb2;

/// Makes buffers for devices out of pages.
pub(super) trait Exporter {
    /// Where, for people.
    fn source(&self) -> &str;

    /// Whether lines of the CPU's caches may be dropped when access begins, written back or not. Then
    /// old bytes do not prove that there is a copy.
    fn may_drop_lines(&self) -> bool;

    /// A page of such bytes, in a file and in a buffer for devices. Dropping it drops both.
    fn export(&self, filled: u8) -> io::Result<Box<dyn ExportedPage>>;
}

/// A page that is in a file and in a buffer for devices.
pub(super) trait ExportedPage {
    /// Announces that the CPU reads and writes the buffer from now on.
    fn begin(&mut self) -> io::Result<()>;

    /// Fills the page, by the file.
    fn fill(&mut self, byte: u8) -> io::Result<()>;

    /// The byte that the page is filled with, by the file; `None` if it is not one.
    fn filled(&mut self) -> io::Result<Option<u8>>;
}

/// Whether a page is copied when it is mapped.
pub(super) fn is_copied(exporter: &dyn Exporter) -> Result<bool, Missing> {
    let missing = |why| Missing {
        source: exporter.source().into(),
        why,
    };
    let filled = run(exporter).map_err(|error| missing(reason(&error)))?;
    match filled {
        Some(NEW) => Ok(false),
        Some(OLD) if !exporter.may_drop_lines() => Ok(true),
        Some(OLD) => Err(missing(
            "old bytes came back, by a copy or by a line of the cache that was dropped: this \
             processor does both"
                .into(),
        )),
        _ => Err(missing("what came back is neither old nor new".into())),
    }
}

fn run(exporter: &dyn Exporter) -> io::Result<Option<u8>> {
    let mut page = exporter.export(OLD)?;
    page.begin()?;
    page.fill(NEW)?;
    page.begin()?;
    page.filled()
}

fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EIO) => {
            "the page could not be mapped: the bounce pool may be full; try again".into()
        }
        _ => match error.kind() {
            io::ErrorKind::NotFound => "not there: this kernel exports no pages".into(),
            io::ErrorKind::PermissionDenied => "permission denied".into(),
            _ => error.to_string(),
        },
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A platform: whether it copies, drops lines, and which call fails with what.
    #[derive(Clone, Copy, Default)]
    pub(in crate::dma) struct Fake {
        pub(in crate::dma) copies: bool,
        pub(in crate::dma) drops_lines: bool,
        pub(in crate::dma) fails: Option<(Call, i32)>,
        pub(in crate::dma) garbles: bool,
    }

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(in crate::dma) enum Call {
        Export,
        FirstBegin,
        Fill,
        SecondBegin,
        Filled,
    }

    struct FakePage {
        platform: Fake,
        page: u8,
        copy: Option<u8>,
    }

    impl Fake {
        fn call(self, call: Call) -> io::Result<()> {
            match self.fails {
                Some((at, errno)) if at == call => Err(io::Error::from_raw_os_error(errno)),
                _ => Ok(()),
            }
        }
    }

    impl Exporter for Fake {
        fn source(&self) -> &str {
            "/dev/fake"
        }

        fn may_drop_lines(&self) -> bool {
            self.drops_lines
        }

        fn export(&self, filled: u8) -> io::Result<Box<dyn ExportedPage>> {
            self.call(Call::Export)?;
            Ok(Box::new(FakePage {
                platform: *self,
                page: filled,
                copy: None,
            }))
        }
    }

    impl ExportedPage for FakePage {
        fn begin(&mut self) -> io::Result<()> {
            match self.copy {
                None => {
                    self.platform.call(Call::FirstBegin)?;
                    self.copy = Some(self.page);
                }
                Some(copied) => {
                    self.platform.call(Call::SecondBegin)?;
                    if self.platform.copies || self.platform.drops_lines {
                        self.page = copied;
                    }
                }
            }
            Ok(())
        }

        fn fill(&mut self, byte: u8) -> io::Result<()> {
            self.platform.call(Call::Fill)?;
            self.page = byte;
            Ok(())
        }

        fn filled(&mut self) -> io::Result<Option<u8>> {
            self.platform.call(Call::Filled)?;
            Ok((!self.platform.garbles).then_some(self.page))
        }
    }

    #[test]
    fn old_bytes_mean_a_copy_and_new_ones_none() {
        for copies in [false, true] {
            let platform = Fake {
                copies,
                ..Fake::default()
            };
            assert_eq!(is_copied(&platform), Ok(copies));
        }
    }

    #[test]
    fn old_bytes_prove_nothing_where_lines_are_dropped() {
        let platform = Fake {
            drops_lines: true,
            ..Fake::default()
        };
        let missing = is_copied(&platform).unwrap_err();
        assert!(missing.why.contains("dropped"), "{missing}");
    }

    #[test]
    fn what_fails_is_missing_with_the_reason() {
        for call in [
            Call::Export,
            Call::FirstBegin,
            Call::Fill,
            Call::SecondBegin,
            Call::Filled,
        ] {
            for (errno, says) in [
                (libc::EIO, "bounce pool may be full"),
                (libc::EACCES, "permission denied"),
                (libc::EPERM, "permission denied"),
                (libc::ENOENT, "not there"),
                (libc::EINVAL, "os error 22"),
            ] {
                let platform = Fake {
                    fails: Some((call, errno)),
                    ..Fake::default()
                };
                let missing = is_copied(&platform).unwrap_err();
                assert_eq!(missing.source, "/dev/fake");
                assert!(missing.why.contains(says), "{call:?}: {missing}");
            }
        }
        let garbled = Fake {
            garbles: true,
            ..Fake::default()
        };
        assert!(is_copied(&garbled).unwrap_err().why.contains("neither"));
    }
}
