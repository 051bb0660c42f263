//! Windows over the object that an operation is about.

use backends::host::{FaultThreads, HostSpace};
use backends::sim::{FailingSpace, Inject, SimDriver};
use placement::PAGE_SIZE;
use ttm::bo::Bo;
use ttm::device::Device;
use ttm::error::{Error, Result};
use ttm::map::{Access, Fault, MapInfo, Window, Windows};
use ttm::sync::Arc;

/// A window over all of an object and one for reading over a part of it, both with something to
/// see, in the best address space that this process may have.
pub(crate) struct Sight {
    pub(crate) whole: Window<SimDriver>,
    pub(crate) part: Window<SimDriver>,
    windows: Windows<SimDriver>,
    /// They hear of what is moved; only by call is anything served.
    _threads: FaultThreads,
}

impl Sight {
    pub(crate) fn new(
        device: &Device<SimDriver>,
        inject: &Arc<Inject>,
        bo: &Bo<SimDriver>,
    ) -> Self {
        let space = Arc::new(HostSpace::probe());
        let failing = FailingSpace::new(Arc::clone(&space) as _, Arc::clone(inject));
        let windows = Windows::new(device, Arc::new(failing));
        let threads = FaultThreads::start(windows.handler(), space, 2).unwrap();
        let part = MapInfo::whole().pages(3..5).access(Access::Read);
        let sight = Self {
            whole: windows.map(bo, MapInfo::whole()).unwrap(),
            part: windows.map(bo, part).unwrap(),
            windows,
            _threads: threads,
        };
        sight.populate().unwrap();
        sight
    }

    pub(crate) fn populate(&self) -> Result<()> {
        self.whole.populate()?;
        self.part.populate()
    }

    /// Serves an access to page 3 of the whole window as if somebody waited there.
    pub(crate) fn touch(&self) -> Result<()> {
        self.whole.mend()?;
        self.windows.handler().serve(&Fault {
            address: self.whole.addresses().base + 3 * PAGE_SIZE as usize,
            write: false,
            thread: 0,
        });
        match self.whole.shown_pages() {
            0 => Err(Error::Backend("the access ended in a signal".into())),
            _ => Ok(()),
        }
    }

    /// Opens a window and closes it again.
    pub(crate) fn another(&self, bo: &Bo<SimDriver>) -> Result<()> {
        self.windows.map(bo, MapInfo::whole())?.populate()
    }

    /// What the windows show, the part first; brought in where it is not.
    pub(crate) fn look(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        self.whole.mend()?;
        self.part.mend()?;
        self.populate()?;
        let by_address = self.windows.abilities().loads_wait;
        let bytes = |window: &Window<SimDriver>| -> Result<Vec<u8>> {
            if !by_address {
                // An address would pin the object.
                let mut bytes = vec![0; window.len()];
                return window.read_at(0, &mut bytes).map(|()| bytes);
            }
            let words = window.words()?;
            let bytes = words.iter().flat_map(|word| word.load().to_le_bytes());
            Ok(bytes.collect())
        };
        Ok((bytes(&self.part)?, bytes(&self.whole)?))
    }
}
