//! Making objects.

use core::marker::PhantomData;

use placement::{MemType, PageCount};

use crate::device::Device;
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::fault::Site;
use crate::resource::{Bulk, PRIORITIES};
use crate::sync::Arc;
use crate::trace::Event;

use super::{Bo, BoCore, BoInfo, BulkGroup, NewBo};

impl<D: Driver> Device<D> {
    /// Makes an object that is nowhere yet. Takes no reservation; takes a few released objects
    /// down on the way.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a size of zero, an alignment that is no power of two or a priority
    /// beyond 3; [`Error::TooBig`] for a size beyond all memory; [`Error::NoMemory`].
    #[inline]
    pub fn create(&self, info: BoInfo, object: D::Object) -> Result<Bo<D>> {
        self.core.release_batch();
        let pages = PageCount::from_bytes_ceil(info.bytes).ok_or(Error::TooBig {
            mem_type: MemType::SYSTEM,
            wanted: PageCount::MAX,
        })?;
        if pages.is_zero() {
            return Err(Error::Invalid("an object has at least one byte"));
        }
        if !info.align.get().is_power_of_two() {
            return Err(Error::Invalid("an alignment is a power of two, in pages"));
        }
        if usize::from(info.priority) >= PRIORITIES {
            return Err(Error::Invalid("a priority is 0 to 3"));
        }
        self.core.probe(Site::Create, || Error::no_memory(pages))?;
        let core = BoCore::new(
            &self.core,
            NewBo {
                kind: info.kind,
                pages,
                bytes: info.bytes,
                align: info.align,
                opaque: info.opaque,
                contiguous: info.contiguous,
                foreign: info.foreign,
                shared: info.shared.map(|s| s.0),
                group: info.group,
                priority: info.priority,
                object: Box::new(object),
            },
        );
        self.core.emit_to_sink(|| Event::Created {
            object: core.id,
            bytes: info.bytes,
        });
        Ok(Bo {
            core,
            driver: PhantomData,
        })
    }

    /// A new group of objects that age together.
    #[must_use]
    pub fn bulk_group(&self) -> BulkGroup {
        BulkGroup(Arc::new(Bulk::new(self.core.next_bulk())))
    }
}
