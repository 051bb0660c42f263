//! Fences: points in time that a device reaches.
//!
//! A [`Timeline`] belongs to whoever does the work (an engine, a queue). It issues [`Fence`]s,
//! each a point on it, and signals them in order, the error of a point before the point itself.
//! Fences are waited for with the caller's deadline, polled as futures, or called back; a
//! callback runs once, outside every lock. A [`FenceSet`] keeps the fences of one reservation by
//! [`Usage`]. A [`RetireQueue`] keeps what may be reused only after its fences.

mod retire;
mod set;
mod source;
mod timeline;

pub use retire::RetireQueue;
pub(crate) use set::FenceVec;
pub use set::{FenceSet, Usage};
pub use source::{FenceSource, Pump};
pub use timeline::{Fence, FenceError, Status, Timeline};
