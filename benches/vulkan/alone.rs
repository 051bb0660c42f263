//! No other allocators: the bench was built without the feature `peers`.

use std::rc::Rc;

use crate::bare::Bare;
use crate::sides::Side;

/// Others that make a buffer of so many bytes and drop another.
pub(crate) fn buffers(_: &Rc<Bare>, _: u64, _: usize) -> anyhow::Result<Vec<Side<'static>>> {
    Ok(Vec::new())
}

/// Others that take so many bytes of memory and give others back.
pub(crate) fn memories(_: &Rc<Bare>, _: u64, _: usize) -> anyhow::Result<Vec<Side<'static>>> {
    Ok(Vec::new())
}
