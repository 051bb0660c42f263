//! What follows from the sources, on small trees. Whole platforms are in `examples/platforms`.

mod bounce;
mod firmware;
mod hardware;
mod no_snoop;
mod tree;
mod vfio;

use tree::Tree;
