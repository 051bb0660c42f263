//! The BO cache: what comes back and as what, what is refused, what goes and when.

use core::time::Duration;

use ttm::bo::{Bo, BoInfo, SharedReservation};
use ttm::bo_cache::{BoCache, BoCacheUsage};
use ttm::clock::{Blocking, Progress, Time};
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::driver::{BoFacts, BoKind, Driver, Eviction, MoveFacts, Route};
use ttm::fence::{Timeline, Usage};
use ttm::fixture::{Nothing, still, system, vram};
use ttm::placement::{MemType, PAGE_SIZE, PageCount, Placement, Range};
use ttm::share::ExportInfo;
use ttm::sync::Arc;
use ttm::sync::atomic::{AtomicU64, Ordering};

/// A driver whose objects say whether they are reusable.
#[derive(Debug)]
struct Asked;

impl Driver for Asked {
    type Object = bool;

    fn evict_to(&self, _: &BoFacts, _: &bool) -> Eviction {
        Eviction::To(system())
    }

    fn route(&self, _: &BoFacts, _: &bool, _: &MoveFacts) -> Route {
        Route::Null
    }

    fn reusable(&self, object: &bool) -> bool {
        *object
    }
}

const PAGES: u64 = 16;
const IDLE: Duration = Duration::from_nanos(100);

struct Stage {
    device: Device<Asked>,
    cache: BoCache<Asked, u64>,
    now: Arc<AtomicU64>,
}

impl Stage {
    /// A device of 16 pages of VRAM, and a cache of at most so many pages.
    fn new(limit: u64) -> Self {
        let now = Arc::new(AtomicU64::new(0));
        let read = Arc::clone(&now);
        let clock = Blocking::new(move || Time::from_nanos(read.load(Ordering::Relaxed)));
        let size = PageCount::new(PAGES).unwrap();
        let device = Device::builder(Asked, Arc::new(clock))
            .pages(Nothing::new(PageCount::new(1 << 20).unwrap()))
            .memory(
                MemType::VRAM,
                Box::new(Range::new(size)),
                Nothing::new(size),
            )
            .build()
            .unwrap();
        let cache = BoCache::new(&device, limit * PAGE_SIZE, IDLE);
        Self { device, cache, now }
    }

    fn info(pages: u64) -> BoInfo {
        BoInfo::new(pages * PAGE_SIZE).kind(BoKind::Kernel)
    }

    fn make(&self, pages: u64) -> Bo<Asked> {
        self.made(Self::info(pages), true, &vram())
    }

    fn made(&self, info: BoInfo, reusable: bool, placement: &Placement) -> Bo<Asked> {
        let context = OpContext::new();
        self.device
            .create_in(context, info, reusable, placement)
            .unwrap()
    }

    fn used(&self) -> u64 {
        self.device.reap();
        let usage = self.device.manager(MemType::VRAM).unwrap().usage();
        usage.used.get()
    }

    fn usage(&self) -> BoCacheUsage {
        self.cache.check().unwrap();
        self.device.check().unwrap();
        self.cache.usage()
    }
}

fn in_vram(stage: &Stage, bo: &Bo<Asked>) -> bool {
    let context = OpContext::new();
    let locked = stage
        .device
        .exec(context, |t| Ok(t.lock(bo)?.mem_type()))
        .unwrap();
    *locked.value() == Some(MemType::VRAM)
}

#[test]
fn the_last_that_was_put_in_comes_out_first_where_it_was() {
    let stage = Stage::new(PAGES);
    let (a, b, other) = (stage.make(2), stage.make(2), stage.make(3));
    let ids = [a.id(), b.id()];
    assert!(stage.cache.put(2, a) && stage.cache.put(2, b) && stage.cache.put(3, other));
    assert_eq!(stage.device.unneeded(MemType::VRAM).len(), 3);
    assert_eq!(stage.usage().bytes, 7 * PAGE_SIZE);
    for id in [ids[1], ids[0]] {
        let out = stage.cache.take(&2).expect("two were put in");
        assert_eq!(out.id(), id);
        assert!(in_vram(&stage, &out));
        stage.device.reap();
        assert_eq!(stage.device.eviction_order(MemType::VRAM, 0), [id]);
    }
    assert!(stage.cache.take(&2).is_none() && stage.cache.take(&4).is_none());
    let usage = stage.usage();
    assert_eq!((usage.hits, usage.misses, usage.objects), (2, 2, 1));
}

#[test]
fn work_that_goes_on_is_in_the_reservation_of_what_comes_out() {
    let stage = Stage::new(PAGES);
    let timeline = Timeline::new(1, still());
    let bo = stage.make(1);
    let locked = stage
        .device
        .exec(OpContext::new(), |t| t.lock(&bo)?.reserve_fences(1))
        .unwrap();
    let fence = timeline.issue();
    locked.fence_all(&fence, Usage::Write);
    drop(locked);
    assert!(stage.cache.put(1, bo));
    let bo = stage.cache.take(&1).unwrap();
    let locked = stage
        .device
        .exec(OpContext::new(), |t| Ok(t.lock(&bo)?.fences(Usage::Write)))
        .unwrap();
    assert_eq!(locked.value().len(), 1, "its next user waits for the last");
    timeline.signal(fence.seqno());
}

#[test]
fn who_needs_the_room_has_it_and_what_lost_its_place_does_not_come_out() {
    let stage = Stage::new(PAGES);
    let needed = stage.make(4);
    for _ in 0..3 {
        let bo = stage.make(4);
        assert!(stage.cache.put(4, bo));
        // Other work keeps the one that is needed the oldest.
        let _ = stage.make(1);
    }
    let big = stage.make(8);
    assert!(
        in_vram(&stage, &needed),
        "what lies in the cache went first"
    );
    assert!(in_vram(&stage, &big));
    let system = stage.device.manager(MemType::SYSTEM).unwrap().counters();
    assert_eq!(system.arrivals, 0, "and was copied nowhere");
    let left = (0..3).filter(|_| stage.cache.take(&4).is_some()).count();
    let usage = stage.usage();
    assert_eq!((usage.hits, usage.gone), (left as u64, 3 - left as u64));
    assert!(usage.gone > 0);
    assert_eq!(usage.objects, 0);
}

#[test]
fn what_others_reach_or_hold_is_dropped_instead() {
    let stage = Stage::new(PAGES);
    let refused = |bo: Bo<Asked>, why: &str| {
        let before = stage.usage().refused;
        assert!(!stage.cache.put(1, bo), "{why}");
        assert_eq!(stage.usage().refused, before + 1, "{why}");
    };

    let shared = stage.make(1);
    refused(shared.clone(), "another handle");
    drop(shared);
    let pinned = stage.make(1);
    let pin = stage.device.exec(OpContext::new(), |t| {
        t.lock(&pinned)?.pin();
        Ok(())
    });
    drop(pin.unwrap());
    refused(pinned, "pinned");
    let of_vm = Stage::info(1).reservation(&SharedReservation::new());
    refused(stage.made(of_vm, true, &vram()), "a shared reservation");
    let others = Stage::info(1).kind(BoKind::Imported);
    refused(stage.made(others, true, &vram()), "somebody else's pages");
    refused(
        stage.device.create(Stage::info(1), true).unwrap(),
        "nowhere",
    );
    refused(
        stage.made(Stage::info(1), false, &vram()),
        "its driver says so",
    );
    let exported = stage.make(1);
    let export = stage.device.export(&exported, ExportInfo::new()).unwrap();
    refused(exported, "exported");
    drop(export);
    refused(
        stage.made(Stage::info(PAGES + 1), true, &system()),
        "larger than all",
    );
    let other = Stage::new(PAGES);
    refused(other.make(1), "of another device");
    assert_eq!(stage.usage().objects, 0);
    assert_eq!(stage.used(), 0, "all were taken down");
}

#[test]
fn beyond_the_limit_the_oldest_goes_of_whatever_kind() {
    let stage = Stage::new(4);
    for n in [1u64, 2, 1] {
        assert!(stage.cache.put(n, stage.make(n)));
    }
    assert_eq!(stage.usage().bytes, 4 * PAGE_SIZE);
    assert!(stage.cache.put(3, stage.make(3)));
    let usage = stage.usage();
    assert_eq!((usage.bytes, usage.trimmed), (4 * PAGE_SIZE, 2));
    assert!(
        stage.cache.take(&2).is_none(),
        "it was older than the second of one page"
    );
    assert!(stage.cache.take(&1).is_some());
    stage.cache.set_limit(2 * PAGE_SIZE);
    assert_eq!(stage.usage().objects, 0);
    assert_eq!(stage.used(), 0);
}

#[test]
fn the_service_drops_what_nobody_came_for() {
    let stage = Stage::new(PAGES);
    let service = stage.cache.service();
    let at = |ns: u64| stage.now.store(ns, Ordering::Relaxed);
    at(1000);
    assert!(stage.cache.put(1, stage.make(1)));
    assert_eq!(
        service.step(),
        Progress::Idle,
        "it sees it for the first time"
    );
    at(1050);
    assert!(stage.cache.put(2, stage.make(2)));
    assert_eq!(service.step(), Progress::Idle);
    at(1100);
    assert_eq!(service.step(), Progress::Did);
    let usage = stage.usage();
    assert_eq!((usage.objects, usage.trimmed), (1, 1));
    let back = stage.cache.take(&2).unwrap();
    assert!(stage.cache.put(2, back), "it is young again");
    at(1150);
    assert_eq!(service.step(), Progress::Idle);
    at(1250);
    assert_eq!(service.step(), Progress::Did);
    assert_eq!(stage.used(), 0);
    drop(stage.cache);
    assert_eq!(service.step(), Progress::Idle, "there is nothing to serve");
}

#[test]
fn a_device_closes_once_its_cache_is_clear() {
    let Stage { device, cache, .. } = Stage::new(PAGES);
    let bo = device
        .create_in(OpContext::new(), Stage::info(1), true, &vram())
        .unwrap();
    assert!(cache.put(1, bo));
    let holders = device
        .close(Some(Time::ZERO))
        .expect_err("an object lies in the cache");
    assert_eq!(holders.objects, 1);
    cache.clear();
    assert_eq!(cache.usage().trimmed, 1);
    device.close(Some(Time::ZERO)).unwrap();
}
