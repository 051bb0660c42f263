//! Windows: CPU mappings of objects that keep their address and follow the content.

mod space;

pub use space::{
    Abilities, Access, AddressSpace, Addresses, Aside, Fault, FaultHandler, FaultSource, Piece,
    Revoke, WriteTracking,
};
