//! The strategies: how accesses are made to wait, and on what kind of card.

use backends::host::{HostSpace, Strategy};
use clap::ValueEnum;

/// A strategy under torture.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Row {
    /// userfaultfd with all rights.
    Userfaultfd,
    /// userfaultfd without the right to catch the kernel's own faults.
    UserfaultfdUser,
    /// userfaultfd as Linux 6.1 has it.
    #[value(name = "userfaultfd-6.1")]
    UserfaultfdOlder,
    /// userfaultfd, and device memory that cannot be watched.
    DeviceFile,
    /// A signal handler.
    Signal,
    /// Nothing waits.
    Pinned,
}

impl Row {
    /// All of them, in the order of the tables.
    pub(crate) const ALL: [Self; 6] = [
        Self::Userfaultfd,
        Self::UserfaultfdUser,
        Self::UserfaultfdOlder,
        Self::DeviceFile,
        Self::Signal,
        Self::Pinned,
    ];

    /// Its name, as the command line has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Userfaultfd => "userfaultfd",
            Self::UserfaultfdUser => "userfaultfd-user",
            Self::UserfaultfdOlder => "userfaultfd-6.1",
            Self::DeviceFile => "device-file",
            Self::Signal => "signal",
            Self::Pinned => "pinned",
        }
    }

    /// Whether the card's memory can be watched.
    pub(crate) fn is_watchable(self) -> bool {
        self != Self::DeviceFile
    }

    fn strategy(self) -> Strategy {
        match self {
            Self::Userfaultfd | Self::DeviceFile => Strategy::Privileged,
            Self::UserfaultfdUser => Strategy::UserMode,
            Self::UserfaultfdOlder => Strategy::Older,
            Self::Signal => Strategy::Signal,
            Self::Pinned => Strategy::None,
        }
    }

    /// An address space of that strategy.
    ///
    /// # Errors
    /// Why it cannot be had here.
    pub(crate) fn space(self) -> Result<HostSpace, String> {
        HostSpace::with(self.strategy()).map_err(|error| error.to_string())
    }
}
