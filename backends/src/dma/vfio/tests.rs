//! A group that is attached is detached, whatever fails; what is asked is asked in the right order.

use ttm::sync::{Arc, Mutex};

use super::*;

/// A machine with one group.
#[derive(Clone, Debug, Default)]
pub(in crate::dma) struct Fake {
    forces_snoop: bool,
    /// Another driver has a device of the group.
    shared: bool,
    fails: Option<(Step, i32)>,
    log: Arc<Mutex<Vec<Step>>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Container,
    Open,
    Viable,
    Attach,
    SetIommu,
    Ask(u32),
    Info,
    Detach,
    Close,
}

impl Fake {
    /// One whose IOMMU forces requests to snoop, or not.
    pub(in crate::dma) fn forcing(forces_snoop: bool) -> Self {
        Self {
            forces_snoop,
            ..Self::default()
        }
    }

    fn step(&self, step: Step) -> io::Result<()> {
        self.log.lock().push(step);
        match self.fails {
            Some((at, errno)) if at == step => Err(io::Error::from_raw_os_error(errno)),
            _ => Ok(()),
        }
    }

    fn steps(&self) -> Vec<Step> {
        self.log.lock().clone()
    }

    pub(in crate::dma) fn is_untouched(&self) -> bool {
        self.steps().is_empty()
    }

    /// No group is in a container, and none is open.
    #[track_caller]
    pub(in crate::dma) fn assert_left_alone(&self) {
        let steps = self.steps();
        let at = |step| steps.iter().position(|s| *s == step);
        // Nothing was attached, or it was detached before all was closed.
        let attached =
            at(Step::Attach).is_some() && self.fails.is_none_or(|(s, _)| s != Step::Attach);
        assert_eq!(at(Step::Detach).is_some(), attached, "{steps:?}");
        let opened =
            at(Step::Container).is_some() && self.fails.is_none_or(|(s, _)| s != Step::Container);
        assert_eq!(steps.last() == Some(&Step::Close), opened, "{steps:?}");
    }
}

struct Opened {
    machine: Fake,
    attached: bool,
    typed: bool,
}

impl Vfio for Fake {
    fn container(&self) -> io::Result<Box<dyn Container>> {
        self.step(Step::Container)?;
        Ok(Box::new(Opened {
            machine: self.clone(),
            attached: false,
            typed: false,
        }))
    }
}

impl Container for Opened {
    fn open(&mut self, group: &str) -> io::Result<()> {
        assert_eq!(group, "3");
        self.machine.step(Step::Open)
    }

    fn is_viable(&mut self) -> io::Result<bool> {
        self.machine.step(Step::Viable)?;
        Ok(!self.machine.shared)
    }

    fn attach(&mut self) -> io::Result<()> {
        self.machine.step(Step::Attach)?;
        self.attached = true;
        Ok(())
    }

    fn detach(&mut self) -> io::Result<()> {
        assert!(self.attached);
        self.machine.step(Step::Detach)
    }

    fn set_iommu(&mut self, kind: u32) -> io::Result<()> {
        assert_eq!(kind, TYPE1V2);
        assert!(self.attached, "a container without groups has no IOMMU");
        self.machine.step(Step::SetIommu)?;
        self.typed = true;
        Ok(())
    }

    fn has(&mut self, extension: u32) -> io::Result<bool> {
        self.machine.step(Step::Ask(extension))?;
        Ok(match extension {
            DMA_CC => self.typed && self.machine.forces_snoop,
            _ => true,
        })
    }

    fn info(&mut self) -> io::Result<Vec<u8>> {
        self.machine.step(Step::Info)?;
        assert!(self.typed);
        Ok(info::tests::vt_d())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let _ = self.machine.step(Step::Close);
    }
}

#[test]
fn a_group_is_asked_while_it_is_attached_and_given_back() {
    for forces_snoop in [false, true] {
        let machine = Fake::forcing(forces_snoop);
        let report = ask(&machine, "3").unwrap();
        assert_eq!(report.forces_snoop, Tri::from(forces_snoop));
        assert_eq!(report.page_sizes, 0x4020_1000);
        assert_eq!(report.iova_ranges.len(), 2);
        assert_eq!(report.mappings_left, Some(65535));
        assert_eq!(report.missing, []);
        let said: Vec<_> = report.facts.iter().map(ToString::to_string).collect();
        assert_eq!(
            said[1..],
            [
                "I/O addresses: pages of 0x1000, 0x200000, 0x40000000 [/dev/vfio/3, measured]",
                "I/O addresses: addresses 0x0 to 0xfedfffff, 0xfef00000 to 0xffffffffffff \
                 [/dev/vfio/3, measured]",
                "I/O addresses: 65535 mappings at a time [/dev/vfio/3, measured]",
            ]
        );
        machine.assert_left_alone();
        use Step::{Ask, Attach, Close, Container, Detach, Info, Open, SetIommu, Viable};
        let steps = [
            Container,
            Ask(TYPE1V2),
            Open,
            Viable,
            Attach,
            SetIommu,
            Ask(DMA_CC),
            Info,
            Detach,
            Close,
        ];
        assert_eq!(machine.steps(), steps);
    }
}

#[test]
fn whatever_fails_the_group_is_given_back_and_the_reason_told() {
    for (step, errno, source, says) in [
        (Step::Container, libc::ENOENT, "/dev/vfio/vfio", "not there"),
        (
            Step::Container,
            libc::EACCES,
            "/dev/vfio/vfio",
            "permission denied",
        ),
        (
            Step::Ask(TYPE1V2),
            libc::EINVAL,
            "/dev/vfio/3",
            "the container",
        ),
        (Step::Open, libc::ENOENT, "/dev/vfio/3", "not there"),
        (Step::Open, libc::EACCES, "/dev/vfio/3", "permission denied"),
        (Step::Open, libc::EBUSY, "/dev/vfio/3", "in use"),
        (Step::Viable, libc::EIO, "/dev/vfio/3", "its status"),
        (
            Step::Attach,
            libc::EINVAL,
            "/dev/vfio/3",
            "cannot be attached",
        ),
        (
            Step::SetIommu,
            libc::EPERM,
            "/dev/vfio/3",
            "IOMMU cannot be set",
        ),
    ] {
        let machine = Fake {
            fails: Some((step, errno)),
            ..Fake::default()
        };
        let missing = ask(&machine, "3").unwrap_err();
        assert_eq!(missing.source, source, "{step:?}");
        assert!(missing.why.contains(says), "{step:?}: {missing}");
        machine.assert_left_alone();
    }
    let shared = Fake {
        shared: true,
        ..Fake::default()
    };
    let missing = ask(&shared, "3").unwrap_err();
    assert!(missing.why.contains("vfio-pci"), "{missing}");
    shared.assert_left_alone();
}

#[test]
fn of_two_answers_one_may_be_missing() {
    for step in [Step::Ask(DMA_CC), Step::Info] {
        let machine = Fake {
            forces_snoop: true,
            fails: Some((step, libc::EINVAL)),
            ..Fake::default()
        };
        let report = ask(&machine, "3").unwrap();
        assert_eq!(report.missing.len(), 1);
        assert_eq!(report.forces_snoop.is_yes(), step == Step::Info);
        assert_eq!(report.page_sizes == 0, step == Step::Info);
        machine.assert_left_alone();
    }
}

/// A group that no machine has: whatever nodes there are, the reason names one of them.
#[test]
fn this_machine_has_no_such_group() {
    let missing = ask(&Nodes, "no-such-group").unwrap_err();
    eprintln!("skipped: {missing}");
    assert!(missing.source.starts_with("/dev/vfio/"), "{missing}");
}
