//! Who lends an object to other devices.

use core::any::Any;

use super::BoState;

/// Lends an object to other devices. Known here by its checks alone.
pub(crate) trait Sharing: Any + Send + Sync {
    /// I-54 and I-55: what is lent is the object where it is, and who needs it to stay has pinned it.
    ///
    /// Under the object's reservation.
    fn check(&self, state: &BoState) -> Result<(), String>;
}
