//! Sharing: objects that other devices use where they are, and that still move.
//!
//! ```text
//!   Device::export ──▶ Shared ──attach──▶ Attachment ──map──▶ its own list, for its own device
//!                        │                  │      ▲              │
//!                        │ import           │ drop │ map again    │ the object moves:
//!                        ▼                  ▼      └── Revoked ◀──┘ told, list taken away
//!        its own device: the object     detached
//!        another:        the same Shared
//! ```
//!
//! An object is exported as one [`Shared`], however often. Whoever wants to use it attaches, with a
//! [`Mapper`](crate::dma::Mapper) of its own and with [`Constraints`](crate::dma::Constraints). While
//! nobody has it mapped this only narrows where the object goes when somebody maps it, and populates
//! nothing; while somebody has, a new one is held to where the object is, and may have it
//! [moved](AttachInfo::migrating) if nobody stands against that.
//!
//! A mapping is made under the object's reservation, and each attachment has one of its own, which
//! nobody else is given. Where the object is in device memory, it is a list of bus addresses for who
//! [reaches](AttachInfo::through) them; for others the object comes to system memory first.
//!
//! # Moves
//!
//! - Who is neither dynamic nor revocable keeps the object where it is while it is mapped (I-55).
//! - Others are [told](MoveNotice) before the old place can be reused, and have to map the object
//!   again. Jobs whose fences were added before may still use the old list; it is unmapped once they
//!   have signalled, whatever the borrower does.
//! - Frames that stay what they are, between TT and SYSTEM, disturb nobody.
//!
//! A dynamic borrower waits for the fences of class [`Kernel`](crate::fence::Usage::Kernel) itself;
//! for others mapping waits.
//!
//! # What is not here
//!
//! This crate makes no system call: an export is a value of the process. A file descriptor for each
//! export, and mappings by other processes, are for a backend.
//!
//! # Locks
//!
//! Reservation, then an attachment's lock, then that of the exported object, which is a leaf. Mappers
//! and notices are called under the reservation only; vetoes under nothing.
//!
//! ```
//! use ttm::bo::BoInfo;
//! use ttm::context::OpContext;
//! use ttm::dma::{Direction, DmaDevice, DmaError, Path, SegmentParms, Tri, Verdict};
//! use ttm::fixture;
//! use ttm::pages::FrameSpan;
//! use ttm::share::{AttachInfo, ExportInfo, Import};
//! use ttm::sync::Arc;
//!
//! # fn main() -> ttm::Result<()> {
//! let (card, _) = fixture::device();
//! let bo = card.create_in(OpContext::new(), BoInfo::new(8192), (), &fixture::system())?;
//! let shared = card.export(&bo, ExportInfo::new())?;
//!
//! // A camera behind a translating IOMMU would do just as well.
//! let verdict = Verdict { path: Path::Direct, snoop: Tri::Yes, ..Verdict::unknown("camera") };
//! let address = |span: FrameSpan| Some(span.first * 4096);
//! let camera = Arc::new(DmaDevice::direct(verdict, SegmentParms::DEFAULT, address)?);
//! let attached = shared.attach(OpContext::new(), camera, AttachInfo::new("camera").dynamic())?;
//! let locked = shared.exec(OpContext::new(), |bo| attached.map(bo, Direction::Both))?;
//! assert_eq!(locked.value().bytes(), 8192);
//! drop(locked);
//!
//! // The card has it in its own memory now: the camera has to map it again.
//! card.exec(OpContext::new(), |t| t.lock(&bo)?.validate(&fixture::vram()))?;
//! assert_eq!(attached.list().unwrap_err(), DmaError::Revoked { generation: 1 });
//!
//! // Its own device gets the object itself.
//! assert!(matches!(card.import(&shared), Import::SelfImport(own) if own == bo));
//! # Ok(())
//! # }
//! ```

mod attach;
mod borrower;
mod bracket;
mod fit;
mod info;
mod lender;
mod shared;

pub use attach::Attachment;
pub use borrower::MoveNotice;
pub use bracket::CpuAccess;
pub use info::AttachInfo;
pub use lender::{Exporter, ShareCounts};
pub use shared::{ExportInfo, Import, Imported, Shared, SharedName};
