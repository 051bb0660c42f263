//! What this platform says of its devices' ways to memory.
//!
//! [`Probe`] reads what Linux tells of a PCI device in `/sys` and `/proc`, as far as the caller may,
//! and makes a [`Verdict`](ttm::dma::Verdict) of it: each fact with its source, each source that
//! could not be read with the reason, contradictions kept. It writes nothing and drives no device, unless
//! [`Probe::allow_functional`] lets it try what cannot be read.
//!
//! What these sources are worth is not what their names say:
//!
//! - a device without an IOMMU group has no IOMMU in front of it, whatever the kernel's boot messages
//!   say of default domains;
//! - the type of a group is that of its default domain, also while a process owns the device;
//! - a mask of 32 bits is what every device has that no driver has set another for;
//! - that a device may send requests that do not snoop is so of most, and few do;
//! - of an IOMMU that the firmware describes nothing follows: it need not be in use;
//! - the command line says what was wanted. Of two options the last counts.

mod acpi;
mod config_space;
mod ioctl;
mod line;
mod memory;
mod options;
mod pci;
mod root;
mod tree;
mod trial;
mod udmabuf;
mod vfio;

pub(crate) use line::longest_line;
pub use pci::Probe;
pub use root::ProbeRoot;
pub use vfio::VfioReport;
