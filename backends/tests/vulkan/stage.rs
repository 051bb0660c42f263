//! A Vulkan device, a manager on it, and the threads that serve both.

use std::sync::OnceLock;

use backends::host::{FileBackup, MemfdPages, Threads};
use backends::vulkan::{Described, VulkanConfig, VulkanDevice, VulkanDriver};
use placement::{MemType, PageCount, Place, Placement};
use ttm::bo::Bo;
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::error::Result;
use ttm::pages::PageSource;
use ttm::sync::{Arc, Mutex, MutexGuard};
use ttm::trace::{Event, Record, Sink};

pub(crate) const MIB: u64 = 1 << 20;

/// Whether tests have to have a device.
fn is_required() -> bool {
    std::env::var_os("TTM_REQUIRE_VULKAN").is_some()
}

/// Says why there is no device; a failure where there has to be one.
pub(crate) fn skip(why: &dyn std::fmt::Display) {
    assert!(!is_required(), "a Vulkan device is required here: {why}");
    eprintln!("skipped: {why}");
}

/// Says what the device that is here lacks for a test. That is no failure: others have it.
pub(crate) fn lacks(what: &dyn std::fmt::Display) {
    eprintln!("skipped: {what}");
}

/// One test at a time has the device: figures of memory are the process's.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: OnceLock<Mutex<()>> = OnceLock::new();
    TURN.get_or_init(Mutex::default).lock()
}

/// Every event, in order.
#[derive(Default)]
pub(crate) struct Log(Mutex<Vec<Record>>);

impl Log {
    pub(crate) fn take(&self) -> Vec<Event> {
        let records = std::mem::take(&mut *self.0.lock());
        records.into_iter().map(|record| record.event).collect()
    }
}

impl Sink for Log {
    fn record(&self, record: &Record) {
        self.0.lock().push(*record);
    }
}

/// The whole.
pub(crate) struct Stage {
    // First: nothing steps any more.
    threads: Mutex<Option<Threads>>,
    pub(crate) device: Device<VulkanDriver>,
    pub(crate) vulkan: VulkanDevice,
    pub(crate) log: Arc<Log>,
    source: Arc<dyn PageSource>,
    turn: MutexGuard<'static, ()>,
}

/// What stages differ in.
pub(crate) struct Setup {
    pub(crate) config: VulkanConfig,
    pub(crate) system_limit: Option<u64>,
    /// Bytes of the backup.
    pub(crate) swap: u64,
}

impl Setup {
    /// So many bytes of VRAM, in chunks of an eighth and more.
    pub(crate) fn with_vram(bytes: u64) -> Self {
        let config = VulkanConfig::new("ttm tests").limit(MemType::VRAM, bytes);
        Self {
            config,
            system_limit: None,
            swap: 256 << 20,
        }
    }

    pub(crate) fn config(mut self, change: impl FnOnce(VulkanConfig) -> VulkanConfig) -> Self {
        self.config = change(self.config);
        self
    }

    pub(crate) fn stage(self) -> Option<Stage> {
        let turn = turn();
        match VulkanDevice::open(&self.config) {
            Ok(vulkan) => Some(self.on(vulkan, turn)),
            Err(error) => {
                skip(&error);
                None
            }
        }
    }

    pub(crate) fn on(&self, vulkan: VulkanDevice, turn: MutexGuard<'static, ()>) -> Stage {
        let source: Arc<dyn PageSource> = Arc::new(MemfdPages::new().expect("memory files"));
        let log = Arc::new(Log::default());
        let backup = FileBackup::new(std::env::temp_dir(), self.swap).expect("a folder");
        let mut builder = vulkan
            .builder(Arc::clone(&source))
            .sink(Arc::clone(&log) as Arc<dyn Sink>)
            .backup(Arc::new(backup));
        if let Some(bytes) = self.system_limit {
            builder = builder.system_limit(PageCount::new(bytes / 4096).expect("few"));
        }
        let device = builder.build().expect("a device");
        vulkan.tell_of_loss(&device);
        let threads = serve(&device, &vulkan);
        Stage {
            threads: Mutex::new(Some(threads)),
            device,
            vulkan,
            log,
            source,
            turn,
        }
    }
}

fn serve(device: &Device<VulkanDriver>, vulkan: &VulkanDevice) -> Threads {
    let services = device.services().into_iter().chain(vulkan.services());
    Threads::start(device.clock(), services).expect("threads")
}

impl Stage {
    /// Where the device's system pages are from.
    pub(crate) fn source(&self) -> Arc<dyn PageSource> {
        Arc::clone(&self.source)
    }

    pub(crate) fn make(&self, described: Described) -> Bo<VulkanDriver> {
        let Described { info, object } = described;
        self.device.create(info, object).expect("an object")
    }

    pub(crate) fn validate(&self, bo: &Bo<VulkanDriver>, placement: &Placement) -> Result<()> {
        self.device
            .exec(OpContext::new(), |t| t.lock(bo)?.validate(placement))
            .map(drop)
    }

    pub(crate) fn write(&self, bo: &Bo<VulkanDriver>, bytes: &[u8]) -> Result<()> {
        self.device
            .exec(OpContext::new(), |t| t.lock(bo)?.write(0, bytes))
            .map(drop)
    }

    pub(crate) fn read(&self, bo: &Bo<VulkanDriver>) -> Result<Vec<u8>> {
        let mut bytes = vec![0; bo.bytes() as usize];
        self.device
            .exec(OpContext::new(), |t| t.lock(bo)?.read(0, &mut bytes))?;
        Ok(bytes)
    }

    pub(crate) fn place_of(&self, bo: &Bo<VulkanDriver>) -> Option<MemType> {
        let locked = self
            .device
            .exec(OpContext::new(), |t| Ok(t.lock(bo)?.mem_type()));
        *locked.expect("locks").value()
    }

    /// Checks while nobody works in the background: what a service has in hand counts nowhere.
    pub(crate) fn check(&self) {
        let mut threads = self.threads.lock();
        threads.take();
        self.device.check().expect("invariants hold");
        *threads = Some(serve(&self.device, &self.vulkan));
    }

    /// Waits for something that happens when work ends.
    pub(crate) fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        for _ in 0..4000 {
            self.device.reap();
            if is_so() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_micros(500));
        }
        panic!("it never came to this: {what}");
    }

    /// What was let go of, and what moved away, is gone from where it was.
    pub(crate) fn settle(&self) {
        for round in 0..4000 {
            self.device.reap();
            let mut managers = MemType::all().filter_map(|t| self.device.manager(t));
            let retired = managers.any(|manager| !manager.usage().retired.is_zero());
            if !retired && round > 4 {
                return;
            }
            std::thread::sleep(std::time::Duration::from_micros(500));
        }
        panic!("somebody still uses it");
    }

    /// Everything was given back: objects, frames, imports, chunks.
    pub(crate) fn assert_empty(self) {
        drop(self.emptied());
    }

    /// The same. Answers the turn, for whoever has more to look at before others have theirs.
    pub(crate) fn emptied(self) -> MutexGuard<'static, ()> {
        self.check();
        let deadline = self.device.clock().now().after_nanos(10_000_000_000);
        self.threads.lock().take();
        self.device
            .close(Some(deadline))
            .expect("nobody has anything");
        assert_eq!(self.vulkan.imports(), 0, "imports");
        self.vulkan.trim();
        for mem_type in MemType::all() {
            if let Some(usage) = self.vulkan.usage(mem_type) {
                assert_eq!((usage.chunks, usage.taken), (0, 0), "{mem_type}");
            }
        }
        let Self { turn, .. } = self;
        turn
    }
}

pub(crate) fn in_type(mem_type: MemType) -> Placement {
    Placement::of(Place::new(mem_type))
}
