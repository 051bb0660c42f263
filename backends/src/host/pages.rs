//! Frames in memory files of the host.
//!
//! What happens when a run is taken:
//!
//! 1. Its pages are counted against what the host has.
//! 2. The page file of its node gives it indices, at a multiple of 2 MiB if it is that long. Where
//!    there are several nodes, the thread prefers that node until the run is taken.
//! 3. A multiple of 2 MiB is tried with huge pages, see [`HugePages`].
//! 4. The rest is reserved with small pages. From here on an access never meets a missing page.
//!
//! A frame reads as zero to its new owner because its page is fresh (I-14). When the run, or a part
//! of it, comes back, its pages become holes and their memory is the system's again.

mod adopted;
mod huge;
mod nodes;
mod page_file;

pub use huge::{HugeCounts, HugePages};
pub(crate) use page_file::{discard, memfd, out_of_memory, punch, reserve, write_zeroes};

use core::fmt;
use std::fs::File;

use memmap2::MmapMut;
use placement::{CacheMode, PAGE_SIZE, PageCount, PageRange};
use ttm::cache::Maintenance;
use ttm::dma::{CacheOps, maintain};
use ttm::error::{Error, Result};
use ttm::pages::{Dirty, FileRange, FrameRun, FrameSpan, Mapped, Offers, PageSource, Want, Zones};
use ttm::sync::Arc;
use ttm::sync::atomic::{AtomicU64, Ordering};

use super::file_map::FileMap;

use adopted::Adopted;
use huge::{Collapser, Tally};
use nodes::Nodes;
use page_file::{PageFile, huge_memfd};

/// Pages of a huge page.
const PIECE: u64 = 512;

/// A page source over memory files of the host: one for each NUMA node.
///
/// Memory is reserved before it is handed out, so running out is [`Error::NoMemory`] and an access
/// never meets a missing page. More than the host has in memory and swap is refused; a host that
/// is filled by others at the same time may still kill somebody, so give the manager a limit.
/// Frames are mapped nowhere until [`map`](PageSource::map), and then only those that were
/// asked for; a forked child inherits no mapping.
///
/// ```
/// use backends::host::MemfdPages;
/// use placement::{CacheMode, PageCount};
/// use ttm::pages::{PageSource, Want};
///
/// # fn main() -> ttm::error::Result<()> {
/// let pages = MemfdPages::new()?;
/// let run = pages.take(&Want::new(PageCount::new(3).expect("few")))?;
/// let mapped = pages.map(run.span(), CacheMode::Cached)?;
/// mapped.write(4096, b"frames");
/// assert_eq!(pages.live_mappings(), 1);
/// drop(mapped);
/// pages.give(run.dirtied());
/// assert_eq!(pages.taken(), PageCount::ZERO);
/// assert_eq!(pages.resident()?, 0);
/// # Ok(())
/// # }
/// ```
pub struct MemfdPages {
    nodes: Nodes,
    /// The page file of each node, and after them those of huge pages, if there are any.
    files: Vec<PageFile>,
    /// What users brought.
    adopted: Adopted,
    /// How caches are maintained for devices that do not see them, if there are such.
    cache: Option<Arc<dyn CacheOps>>,
    collapser: Option<Collapser>,
    tally: Tally,
    /// Pages of memory and swap that the host has.
    capacity: u64,
    taken: AtomicU64,
    live: Arc<AtomicU64>,
}

impl MemfdPages {
    /// Page files for the nodes of this machine, huge pages made of ordinary memory.
    ///
    /// # Errors
    /// [`Error::Backend`] if the host gives no memfd, or no addresses.
    pub fn new() -> Result<Self> {
        Self::on(Nodes::of_host())
    }

    /// The same for `nodes` nodes, whether the machine has them or not; at least one.
    ///
    /// A run for a node that does not exist comes from wherever the kernel likes: this is for
    /// finding out what a program does with several nodes, not how fast it does it.
    ///
    /// # Errors
    /// Those of [`MemfdPages::new`].
    pub fn with_nodes(nodes: u8) -> Result<Self> {
        Self::on(Nodes::pretended(nodes))
    }

    fn on(nodes: Nodes) -> Result<Self> {
        let file = |node: u8| {
            let file = memfd("ttm frames").map_err(|e| Error::Backend(e.into()))?;
            Ok(PageFile::new(file, u32::from(node), node))
        };
        let files = (0..nodes.count()).map(file).collect::<Result<_>>()?;
        Ok(Self {
            nodes,
            files,
            adopted: Adopted::default(),
            cache: None,
            collapser: Some(Collapser::new().map_err(|e| Error::Backend(e.into()))?),
            tally: Tally::default(),
            capacity: host_pages(),
            taken: AtomicU64::new(0),
            live: Arc::new(AtomicU64::new(0)),
        })
    }

    /// Comes by huge pages in another way.
    ///
    /// ```
    /// use backends::host::{HugePages, MemfdPages};
    ///
    /// # fn main() -> ttm::error::Result<()> {
    /// let pages = MemfdPages::new()?.huge_pages(HugePages::Never)?;
    /// assert_eq!(pages.huge_counts().got, 0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`MemfdPages::new`]. A kernel that has no files of huge pages is none: then
    /// [`HugePages::Hugetlb`] is [`HugePages::Collapse`].
    ///
    /// # Panics
    /// If frames are out.
    pub fn huge_pages(mut self, how: HugePages) -> Result<Self> {
        assert_eq!(self.taken(), PageCount::ZERO, "frames are out");
        let nodes = self.nodes.count();
        self.files.truncate(usize::from(nodes));
        let refused = |error: std::io::Error| Error::Backend(error.into());
        self.collapser = match how {
            HugePages::Never => None,
            HugePages::Collapse | HugePages::Hugetlb => Some(Collapser::new().map_err(refused)?),
        };
        if how == HugePages::Hugetlb {
            for node in 0..nodes {
                let number = u32::from(nodes) + u32::from(node);
                if let Some(file) = huge_memfd("ttm huge frames").map_err(refused)? {
                    self.files.push(PageFile::new(file, number, node));
                }
            }
        }
        Ok(self)
    }

    /// The same for devices that do not see what is in the CPU's caches: they are maintained by
    /// `cache`, over mappings of the frames that last as long as that takes.
    ///
    /// ```
    /// use backends::host::{HostCache, MemfdPages};
    /// use ttm::pages::PageSource;
    /// use ttm::sync::Arc;
    ///
    /// # fn main() -> ttm::error::Result<()> {
    /// let mut pages = MemfdPages::new()?;
    /// if let Ok(cache) = HostCache::probe() {
    ///     pages = pages.not_snooped(Arc::new(cache));
    ///     assert!(!pages.offers().snooped);
    /// }
    /// # let _ = pages;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn not_snooped(mut self, cache: Arc<dyn CacheOps>) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Pages of a memory file that its user brings, as frames for
    /// [`Device::bring`](ttm::device::Device::bring): `bytes` bytes from `offset` on, both multiples
    /// of a page. They are not counted as taken; the file is let go when they come back. Where the
    /// file has holes, memory is reserved behind them. What its user writes to it later by a mapping
    /// of their own is theirs to clean out of the caches, where devices do not see those.
    ///
    /// ```
    /// use backends::host::{MemfdPages, memory_file};
    /// use placement::CacheMode;
    /// use ttm::pages::PageSource;
    ///
    /// # fn main() -> ttm::error::Result<()> {
    /// let pages = MemfdPages::new()?;
    /// let mine = memory_file("texture", 8192)?;
    /// let run = pages.adopt_file(mine.try_clone().expect("a descriptor"), 4096, 4096)?;
    /// pages.map(run.span(), CacheMode::Cached)?.write(0, b"seen in both");
    ///
    /// use std::os::unix::fs::FileExt;
    /// let mut seen = [0; 12];
    /// mine.read_exact_at(&mut seen, 4096).expect("it is there");
    /// assert_eq!(&seen, b"seen in both");
    /// pages.give(run);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Invalid`] for parts of pages, a file that is shorter, that may shrink, or that is
    /// sealed against writing; [`Error::Unsupported`] for what is no memory file;
    /// [`Error::NoMemory`].
    pub fn adopt_file(&self, file: File, offset: u64, bytes: u64) -> Result<FrameRun<Dirty>> {
        let run = self.adopted.file(file, offset, bytes)?;
        self.maintain(run.span(), Maintenance::Flush);
        Ok(run)
    }

    /// A mapping that its user gives away, as frames for
    /// [`Device::bring`](ttm::device::Device::bring). It is unmapped when they come back. There are
    /// no windows of it, because nobody knows its file, if it has one; that such a file does not
    /// shrink, whoever mapped it has promised.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it has no whole pages.
    pub fn adopt_range(&self, memory: MmapMut) -> Result<FrameRun<Dirty>> {
        let run = self.adopted.range(memory, &self.live)?;
        self.maintain(run.span(), Maintenance::Flush);
        Ok(run)
    }

    /// The page file of the first node. Its frames belong to whoever took them.
    #[must_use]
    pub fn file(&self) -> &File {
        self.files[0].file()
    }

    /// All page files, as [`FrameSpan::file`] numbers them.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &File> {
        self.files.iter().map(|file| &**file.file())
    }

    /// How many mappings of frames are alive.
    #[must_use]
    pub fn live_mappings(&self) -> u64 {
        self.live.load(Ordering::Relaxed)
    }

    /// What became of wishes for huge pages.
    #[must_use]
    pub fn huge_counts(&self) -> HugeCounts {
        self.tally.counts()
    }

    /// Bytes of memory or swap that the kernel holds for all page files.
    ///
    /// More than is [`taken`](PageSource::taken) while somebody has half of a huge page whose other
    /// half came back.
    ///
    /// # Errors
    /// [`Error::Backend`] if the host does not say.
    pub fn resident(&self) -> Result<u64> {
        let each = self.files.iter().map(PageFile::resident);
        each.sum::<std::io::Result<u64>>()
            .map_err(|error| Error::Backend(error.into()))
    }

    /// The file of huge pages that were set aside, for a node.
    fn huge_file(&self, node: u8) -> Option<&PageFile> {
        self.files
            .get(usize::from(self.nodes.count()) + usize::from(node))
    }

    fn is_huge_file(&self, number: u32) -> bool {
        number >= u32::from(self.nodes.count())
    }

    /// The file that all frames of `span` are out of, as part of one run.
    fn file_of(&self, span: FrameSpan) -> Option<&PageFile> {
        let file = self.files.get(usize::try_from(span.file).ok()?)?;
        file.has(span).then_some(file)
    }

    /// Counts `pages` as taken, if the host can have so many.
    fn charge(&self, pages: PageCount) -> Result<()> {
        // Relaxed: the count guards nothing but itself.
        let more = |taken: u64| {
            // The host would rather kill somebody than refuse what it can never have.
            let taken = taken.checked_add(pages.get())?;
            (taken <= self.capacity).then_some(taken)
        };
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .map(drop)
            .map_err(|_| Error::no_memory(pages))
    }

    fn uncharge(&self, pages: PageCount) {
        self.taken.fetch_sub(pages.get(), Ordering::Relaxed);
    }

    fn take_on(&self, node: u8, pages: PageCount) -> Result<FrameRun> {
        let wants_huge = pages.get().is_multiple_of(PIECE);
        let pieces = pages.get() / PIECE;
        if wants_huge && let Some(file) = self.huge_file(node) {
            // Whatever the reason, there is another way.
            if let Ok(run) = file.take(pages, |_, _| true) {
                self.tally.add(pieces, pieces, 0);
                return Ok(run);
            }
        }
        self.files[usize::from(node)].take(pages, |file, range| match &self.collapser {
            _ if !wants_huge => false,
            Some(collapser) => collapser.fill(file, range, &self.tally),
            None => {
                self.tally.add(pieces, 0, 0);
                false
            }
        })
    }

    fn map_part(&self, file: &PageFile, span: FrameSpan) -> Result<Mapped> {
        // Only whole pages of a file can be mapped.
        let (lead, pages) = if self.is_huge_file(span.file) {
            let lead = span.first % PIECE;
            (lead, (lead + span.pages.get()).next_multiple_of(PIECE))
        } else {
            (0, span.pages.get())
        };
        let bytes = |pages: u64| {
            usize::try_from(pages * PAGE_SIZE)
                .map_err(|_| Error::Invalid("the run is longer than the address space"))
        };
        let offset = (span.first - lead) * PAGE_SIZE;
        let map = FileMap::populated(file.file(), offset, bytes(pages)?, &self.live)
            .map_err(|error| Error::Backend(error.into()))?;
        if pages == span.pages.get() {
            return Ok(map.into_mapped());
        }
        Ok(Arc::new(map).part(bytes(lead)?, bytes(span.pages.get())?))
    }
}

impl PageSource for MemfdPages {
    fn offers(&self) -> Offers {
        Offers {
            nodes: self.nodes.count(),
            snooped: self.cache.is_none(),
            ..Offers::ordinary(PageCount::new(self.capacity).unwrap_or(PageCount::MAX))
        }
    }

    fn take(&self, want: &Want) -> Result<FrameRun> {
        let (pages, kind) = (want.pages, want.kind);
        if pages.is_zero() {
            return Err(Error::Invalid("a run of frames has at least one page"));
        }
        if !Zones::NORMAL.has(kind.zone) {
            return Err(Error::Unsupported(
                "a process does not know the real addresses of its memory, so there is no zone but \
                 the normal one; a kernel driver could tell them",
            ));
        }
        if kind.node >= self.nodes.count() {
            return Err(Error::Unsupported(
                "the host has no such NUMA node; the offers say how many it has",
            ));
        }
        self.charge(pages)?;
        let run = self
            .nodes
            .prefer(kind.node, || self.take_on(kind.node, pages));
        let run = run.inspect_err(|_| self.uncharge(pages))?;
        // Zeroes that the kernel wrote.
        self.maintain(run.span(), Maintenance::Flush);
        Ok(run)
    }

    /// # Panics
    /// If the frames are not ones that this source gave out, or came back already.
    fn give(&self, run: FrameRun<Dirty>) {
        let span = run.span();
        if Adopted::has_number(span) {
            let given = self.adopted.give(span);
            assert!(given, "{span:?} was not brought here, or is back already");
            return;
        }
        let file = self.files.get(span.file as usize);
        let given = file.is_some_and(|file| file.give(span));
        assert!(given, "{span:?} was not taken here, or is back already");
        self.uncharge(span.pages);
    }

    fn zero(&self, span: FrameSpan, mode: CacheMode) -> Result<()> {
        if Adopted::has_number(span) {
            let mapped = self.map(span, mode)?;
            mapped.zero(0, mapped.len());
            return Ok(());
        }
        let file = self.files.get(span.file as usize);
        let file = file.ok_or(Error::Invalid("no page file has that number"))?;
        if self.is_huge_file(span.file) {
            // Files of huge pages cannot be written to.
            let mapped = self.map(span, mode)?;
            mapped.zero(0, mapped.len());
            return Ok(());
        }
        let range = PageRange::at(span.first, span.pages);
        let range = range.ok_or(Error::Invalid("no page file is as long as that"))?;
        write_zeroes(file.file(), range).map_err(|error| Error::Backend(error.into()))
    }

    /// # Errors
    /// [`Error::Invalid`] for frames that nobody has taken, or that two have;
    /// [`Error::Backend`] if the host refuses the mapping.
    fn map(&self, span: FrameSpan, _: CacheMode) -> Result<Mapped> {
        if Adopted::has_number(span) {
            return self.adopted.map(span, &self.live);
        }
        match self.file_of(span) {
            Some(file) => self.map_part(file, span),
            None => Err(Error::Invalid(
                "only frames of one run that is taken are mapped",
            )),
        }
    }

    /// # Errors
    /// [`Error::Invalid`] for frames that nobody has taken, or that two have.
    fn file(&self, span: FrameSpan, _: CacheMode) -> Result<FileRange> {
        if Adopted::has_number(span) {
            return self.adopted.file_of(span);
        }
        let file = self.file_of(span).ok_or(Error::Invalid(
            "only frames of one run that is taken are mapped",
        ))?;
        let range = FileRange::new(Arc::clone(file.file()), span.first * PAGE_SIZE);
        Ok(match self.is_huge_file(span.file) {
            true => FileRange {
                granule: PIECE * PAGE_SIZE,
                ..range
            },
            false => range,
        })
    }

    fn switch(&self, _: &[FrameSpan], _: CacheMode, _: CacheMode) -> Result<()> {
        Err(Error::Unsupported(
            "ordinary memory of a process is cached, and only a kernel driver can change that",
        ))
    }

    /// # Panics
    /// If the host refuses to map frames whose caches have to be maintained: a device would see
    /// something else than the CPU.
    fn maintain(&self, span: FrameSpan, what: Maintenance) {
        let Some(cache) = &self.cache else {
            return;
        };
        let mapped = self.map(span, CacheMode::Cached);
        let mapped = mapped.expect("frames that are taken, and addresses to map them at");
        let all = 0..mapped.len();
        maintain(&**cache, [(&mapped, all)], what);
    }

    fn taken(&self) -> PageCount {
        let taken = self.taken.load(Ordering::Relaxed);
        PageCount::new(taken).expect("within the capacity")
    }
}

impl fmt::Debug for MemfdPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemfdPages({} taken)", self.taken())
    }
}

/// A memory file of `bytes` bytes that can be brought: it never shrinks, and no executed program
/// inherits it.
///
/// # Errors
/// [`Error::Backend`] if the host gives none.
pub fn memory_file(name: &str, bytes: u64) -> Result<File> {
    let made = memfd(name).and_then(|file| {
        rustix::fs::ftruncate(&file, bytes)?;
        Ok(file)
    });
    made.map_err(|error| Error::Backend(error.into()))
}

/// Memory and swap of the host, in pages.
pub(crate) fn host_pages() -> u64 {
    let info = rustix::system::sysinfo();
    let units = info.totalram.saturating_add(info.totalswap);
    units.saturating_mul(u64::from(info.mem_unit)) / PAGE_SIZE
}
