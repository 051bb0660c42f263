//! Sharing, on a device without content.
//!
//! The rows of the table of `dma-buf`'s capabilities, each by its number:
//!
//! - 86, 99: `an_object_is_exported_once`, `its_size_is_whole_pages_for_life`
//! - 87: `a_veto_is_told`, `nothing_is_populated_before_the_first_map`,
//!   `a_late_strict_one_is_refused_or_has_it_moved`
//! - 88: `each_attachment_has_a_list_of_its_own`, `who_is_static_keeps_the_object`; a map without
//!   the reservation cannot be written
//! - 89: `pins_are_for_who_is_dynamic_and_counted`
//! - 90: `who_is_dynamic_is_told_before_the_object_moves`,
//!   `queued_jobs_keep_the_old_mapping_for_a_while`, `a_notice_cannot_call_the_device`,
//!   `who_is_revocable_never_holds_anything_up`
//! - 91: `brackets_wait_for_those_who_are_in_the_way`, `brackets_nest_and_keep_the_object`; an end
//!   without a beginning cannot be written
//! - 92, 93: mappings for the CPU are the exporter's windows and `VMap`s; the tests of windows have them
//! - 94, 95: `fences_go_both_ways`
//! - 96: `a_device_gets_its_own_object_back`
//! - 97, 98, 101 are Linux's own: nothing here makes a system call
//! - 100: `device_memory_is_mapped_for_who_reaches_it`, and the tests of `ttm::dma`'s `PciTree`

use ttm::bo::{Bo, BoInfo, Reserved};
use ttm::context::{CancelToken, OpContext};
use ttm::device::Device;
use ttm::dma::{
    CacheModes, Constraints, Direction, DmaAddr, DmaDevice, DmaError, Field, Mapper, Mask,
    NoPeerPath, Path, PeerPath, SegmentParms, Tri, Verdict,
};
use ttm::driver::Advice;
use ttm::error::{Error, Result};
use ttm::fence::{Fence, Timeline, Usage};
use ttm::fixture::{BUS, Counting, builder, device, system, vram};
use ttm::pages::FrameSpan;
use ttm::placement::{CacheMode, MemType, Place, Placement};
use ttm::share::{
    AttachInfo, Attachment, ExportInfo, Exporter, Import, MoveNotice, ShareCounts, Shared,
};
use ttm::sync::atomic::{AtomicU64, Ordering};
use ttm::sync::{Arc, Mutex};

const SIZE: u64 = 5 * 4096;

fn tt() -> Placement {
    Placement::of(Place::new(MemType::TT))
}

fn verdict(path: Path) -> Verdict {
    Verdict {
        path,
        snoop: Tri::Yes,
        ..Verdict::unknown("camera")
    }
}

/// A device that finds frame n at page n of the bus.
fn camera() -> Arc<DmaDevice> {
    let address = |span: FrameSpan| Some(span.first * 4096);
    Arc::new(DmaDevice::direct(verdict(Path::Direct), SegmentParms::WIDEST, address).unwrap())
}

fn mapper(camera: &Arc<DmaDevice>) -> Arc<dyn Mapper> {
    Arc::clone(camera) as Arc<dyn Mapper>
}

struct Scene {
    device: Device<Counting>,
    queue: Timeline,
    bo: Bo<Counting>,
    shared: Shared<Counting>,
    camera: Arc<DmaDevice>,
}

impl Scene {
    fn new() -> Self {
        Self::exporting(ExportInfo::new())
    }

    fn exporting(info: ExportInfo) -> Self {
        let (device, queue) = device();
        let bo = device.create(BoInfo::new(SIZE - 100), ()).unwrap();
        let shared = device.export(&bo, info).unwrap();
        Self {
            device,
            queue,
            bo,
            shared,
            camera: camera(),
        }
    }

    fn attach(&self, info: AttachInfo) -> Result<Attachment<Counting>> {
        self.shared
            .attach(OpContext::new(), mapper(&self.camera), info)
    }

    fn map(&self, attached: &Attachment<Counting>) -> Result<Arc<ttm::dma::MappedList>> {
        let mapped = |bo: &Reserved<'_, Counting>| attached.map(bo, Direction::Both);
        let locked = self.shared.exec(OpContext::new(), mapped)?;
        Ok(Arc::clone(locked.value()))
    }

    fn unmap(&self, attached: &Attachment<Counting>) -> Result<()> {
        let unmapped = self
            .shared
            .exec(OpContext::new(), |bo| attached.unmap(bo))?;
        drop(unmapped);
        Ok(())
    }

    fn go(&self, to: &Placement) -> Result<()> {
        let gone = self
            .device
            .exec(OpContext::new(), |t| t.lock(&self.bo)?.validate(to))?;
        drop(gone);
        Ok(())
    }

    fn fence(&self, usage: Usage) -> Fence {
        let locked = self
            .shared
            .exec(OpContext::new(), |bo| bo.reserve_fences(1))
            .unwrap();
        let fence = self.queue.issue();
        locked.fence_all(&fence, usage);
        fence
    }

    fn check(&self) {
        self.device.check().unwrap_or_else(|v| panic!("{v}"));
    }

    /// Nothing is left of any of it.
    fn end(self) {
        let Self {
            device,
            bo,
            shared,
            camera,
            queue,
        } = self;
        queue.signal(queue.issued());
        assert_eq!(shared.counts(), ShareCounts::default());
        drop(shared);
        assert_eq!(device.exports(), 0);
        assert_eq!(bo.handles(), 1);
        device.check().unwrap_or_else(|v| panic!("{v}"));
        drop(bo);
        device.close(None).unwrap_or_else(|h| panic!("{h:?}"));
        assert_eq!(camera.live(), 0);
    }
}

fn dma(error: Error) -> DmaError {
    match error {
        Error::Dma { source, .. } => *source.downcast().expect("a DmaError"),
        error => panic!("{error}"),
    }
}

#[test]
fn an_object_is_exported_once() {
    let scene = Scene::new();
    let again = scene.device.export(&scene.bo, ExportInfo::new()).unwrap();
    assert!(again == scene.shared);
    assert_eq!((scene.device.exports(), scene.bo.handles()), (1, 2));
    let name = again.name();
    drop(again);
    assert!(name.open().unwrap() == scene.shared);
    let (other, _) = device();
    let refused = other.export(&scene.bo, ExportInfo::new()).unwrap_err();
    assert!(matches!(refused, Error::Invalid(_)), "{refused}");
    scene.end();
    assert_eq!(dma(name.open().unwrap_err()), DmaError::Released);
}

#[test]
fn a_name_is_never_another_exports() {
    let scene = Scene::new();
    let name = scene.shared.name();
    let Scene {
        device, bo, shared, ..
    } = scene;
    drop(shared);
    let shared = device.export(&bo, ExportInfo::new()).unwrap();
    assert_eq!(dma(name.open().unwrap_err()), DmaError::Released);
    assert!(shared.name().open().unwrap() == shared);
}

#[test]
fn its_size_is_whole_pages_for_life() {
    let scene = Scene::new();
    for to in [system(), vram(), tt()] {
        scene.go(&to).unwrap();
        assert_eq!(scene.shared.bytes(), SIZE);
    }
    scene.end();
}

#[test]
fn a_device_gets_its_own_object_back() {
    let scene = Scene::new();
    let Import::SelfImport(own) = scene.device.import(&scene.shared) else {
        panic!("its own");
    };
    assert!(own == scene.bo && own.handles() == 3);
    assert_eq!(scene.shared.counts(), ShareCounts::default());
    drop(own);
    assert_eq!(scene.bo.handles(), 2);

    let (other, _) = device();
    let Import::Foreign(imported) = other.import(&scene.shared) else {
        panic!("another's");
    };
    assert_eq!((imported.bytes(), scene.shared.counts().imports), (SIZE, 1));
    assert_eq!(other.live_objects(), 0);
    drop(imported);
    scene.end();
}

#[test]
fn an_export_and_an_attachment_keep_the_object() {
    let scene = Scene::new();
    scene.go(&system()).unwrap();
    let attached = scene.attach(AttachInfo::new("camera")).unwrap();
    let list = scene.map(&attached).unwrap();
    let Scene {
        device,
        bo,
        shared,
        camera,
        ..
    } = scene;
    drop((bo, shared));
    device.reap();
    device.check().unwrap();
    assert_eq!((device.live_objects(), camera.live()), (1, 1));
    assert_eq!(attached.list().unwrap(), list);
    drop(attached);
    device.close(None).unwrap();
    assert_eq!(camera.live(), 0);
}

struct Says(Option<&'static str>);

impl Exporter for Says {
    fn admit(&self, borrower: &AttachInfo) -> core::result::Result<(), String> {
        match self.0 {
            Some(who) if borrower.name() == who => Err(format!("not for a {who}")),
            _ => Ok(()),
        }
    }

    fn address(&self, frames: FrameSpan) -> Option<DmaAddr> {
        DmaAddr::new(frames.first * 4096)
    }
}

#[test]
fn a_veto_is_told() {
    let scene = Scene::exporting(ExportInfo::new().by(Arc::new(Says(Some("camera")))));
    let refused = dma(scene.attach(AttachInfo::new("camera")).unwrap_err());
    let why = "not for a camera".into();
    assert_eq!(refused, DmaError::Vetoed { why });
    drop(scene.attach(AttachInfo::new("encoder")).unwrap());
    scene.end();
}

#[test]
fn nothing_is_populated_before_the_first_map() {
    let scene = Scene::new();
    let only = |mode| Constraints {
        caching: CacheModes::of(&[mode]),
        ..Constraints::ANY
    };
    let cached = AttachInfo::new("camera").constraints(only(CacheMode::Cached));
    let attached = scene.attach(cached).unwrap();
    assert!(scene.device.system_budget().used().is_zero());
    // It narrows all the same, and says who it was.
    let other = AttachInfo::new("old").constraints(only(CacheMode::Uncached));
    let refused = dma(scene.attach(other).unwrap_err());
    let DmaError::AttachIncompatible { field, held_by, .. } = refused else {
        panic!("{refused}");
    };
    assert_eq!((field, held_by.len()), (Field::Caching, 0));
    let why = scene.shared.explain_constraints().unwrap().to_string();
    assert!(why.contains("camera"), "{why}");
    scene.map(&attached).unwrap();
    assert_eq!(scene.device.system_budget().used().bytes(), SIZE);
    scene.check();
    drop(attached);
    scene.end();
}

#[test]
fn each_attachment_has_a_list_of_its_own() {
    let scene = Scene::new();
    let info = || AttachInfo::new("camera").dynamic();
    let attached = [scene.attach(info()).unwrap(), scene.attach(info()).unwrap()];
    assert_eq!(attached[0].list().unwrap_err(), DmaError::NotLent);
    let lists = [0, 1].map(|n| scene.map(&attached[n]).unwrap());
    assert!(!Arc::ptr_eq(&lists[0], &lists[1]));
    assert_eq!(scene.camera.live(), 2);
    for segment in lists[0].dma_segments() {
        assert!(segment.addr.get().is_multiple_of(4096) && segment.len.is_multiple_of(4096));
    }
    assert_eq!(
        dma(scene.map(&attached[0]).unwrap_err()),
        DmaError::AlreadyLent
    );
    scene.check();
    scene.unmap(&attached[0]).unwrap();
    assert_eq!(
        dma(scene.unmap(&attached[0]).unwrap_err()),
        DmaError::NotLent
    );
    assert_eq!(scene.camera.live(), 1);
    assert!(attached[1].list().is_ok());
    let counts = scene.shared.counts();
    assert_eq!((counts.attached, counts.mapped), (2, 1));
    drop(attached);
    scene.end();
}

#[test]
fn only_the_object_itself_is_mapped() {
    let scene = Scene::new();
    let other = scene.device.create(BoInfo::new(4096), ()).unwrap();
    let attached = scene.attach(AttachInfo::new("camera")).unwrap();
    let refused = scene.device.exec(OpContext::new(), |t| {
        attached.map(&t.lock(&other)?, Direction::Both)
    });
    assert!(matches!(refused.unwrap_err(), Error::Invalid(_)));
    drop((attached, other));
    scene.end();
}

#[test]
fn who_is_static_keeps_the_object() {
    let scene = Scene::new();
    scene.go(&tt()).unwrap();
    let attached = scene.attach(AttachInfo::new("camera")).unwrap();
    scene.map(&attached).unwrap();
    scene.check();
    assert!(matches!(scene.go(&vram()).unwrap_err(), Error::Pinned));
    assert_eq!(
        scene
            .device
            .evict_all(MemType::TT, OpContext::new())
            .unwrap(),
        0
    );
    assert!(attached.list().is_ok());
    scene.unmap(&attached).unwrap();
    scene.go(&vram()).unwrap();
    // Attached is not mapped: it came along, and comes back when it is.
    scene.map(&attached).unwrap();
    assert!(matches!(scene.go(&vram()).unwrap_err(), Error::Pinned));
    drop(attached);
    scene.device.reap();
    scene.go(&vram()).unwrap();
    scene.end();
}

fn told(log: &Arc<Mutex<Vec<u64>>>) -> impl MoveNotice + 'static {
    let log = Arc::clone(log);
    move |n: u64| log.lock().push(n)
}

#[test]
fn who_is_dynamic_is_told_before_the_object_moves() {
    let scene = Scene::new();
    scene.go(&tt()).unwrap();
    let log = Arc::default();
    let info = AttachInfo::new("camera").dynamic().notice(told(&log));
    let attached = scene.attach(info).unwrap();
    // Nothing is mapped: nothing to tell.
    scene.go(&vram()).unwrap();
    scene.go(&tt()).unwrap();
    assert!(log.lock().is_empty());
    let first = scene.map(&attached).unwrap();
    // The frames stay: so does what it has.
    scene.go(&system()).unwrap();
    assert_eq!(attached.list().unwrap(), first);
    scene.check();
    scene.go(&vram()).unwrap();
    assert_eq!(*log.lock(), [1]);
    assert_eq!(
        attached.list().unwrap_err(),
        DmaError::Revoked { generation: 1 }
    );
    scene.device.reap();
    assert_eq!(scene.camera.live(), 0);
    // It reaches no device memory, so the object comes back for it.
    scene.map(&attached).unwrap();
    assert_eq!((attached.generation(), scene.camera.live()), (1, 1));
    scene.check();
    drop(attached);
    scene.end();
}

#[test]
fn queued_jobs_keep_the_old_mapping_for_a_while() {
    let scene = Scene::new();
    scene.go(&tt()).unwrap();
    let attached = scene.attach(AttachInfo::new("camera").dynamic()).unwrap();
    scene.map(&attached).unwrap();
    let fence = scene.fence(Usage::Read);
    scene.go(&vram()).unwrap();
    scene.device.reap();
    assert_eq!(scene.camera.live(), 1, "its job may still run");
    scene.queue.signal(fence.seqno());
    scene.device.reap();
    assert_eq!(scene.camera.live(), 0);
    drop(attached);
    scene.end();
}

#[test]
fn an_unmapped_list_is_there_until_its_jobs_have_ended() {
    let scene = Scene::new();
    let attached = scene.attach(AttachInfo::new("camera")).unwrap();
    scene.map(&attached).unwrap();
    let fence = scene.fence(Usage::Write);
    scene.unmap(&attached).unwrap();
    assert_eq!(scene.camera.live(), 1);
    // A later job does not hold it up.
    let later = scene.fence(Usage::Bookkeep);
    scene.queue.signal(fence.seqno());
    scene.device.reap();
    assert_eq!((scene.camera.live(), later.is_signalled()), (0, false));
    drop(attached);
    scene.end();
}

#[test]
fn a_notice_cannot_call_the_device() {
    let scene = Scene::new();
    let answer = Arc::new(Mutex::new(None));
    let (other, said) = (scene.shared.name(), Arc::clone(&answer));
    let info = AttachInfo::new("camera").dynamic().notice(move |_| {
        let called = other.open().and_then(|shared| {
            let locked = shared.exec(OpContext::new(), |bo| Ok(bo.pins()))?;
            Ok(*locked.value())
        });
        *said.lock() = Some(called.map(drop));
    });
    let attached = scene.attach(info).unwrap();
    scene.map(&attached).unwrap();
    scene.go(&vram()).unwrap();
    let said = answer.lock().take().expect("it was told");
    assert!(matches!(said, Err(Error::Reentrant)), "{said:?}");
    drop(attached);
    scene.end();
}

#[test]
fn who_is_revocable_never_holds_anything_up() {
    let scene = Scene::new();
    scene.go(&tt()).unwrap();
    // It never answers, and never maps again.
    let mute = scene.attach(AttachInfo::new("mute").revocable()).unwrap();
    let holder = scene.attach(AttachInfo::new("holder").dynamic()).unwrap();
    scene.map(&mute).unwrap();
    scene.map(&holder).unwrap();
    let by = "holder".to_owned();
    let refused = scene.shared.revoke(OpContext::new()).unwrap_err();
    assert_eq!(dma(refused), DmaError::NotRevocable { by });
    assert!(mute.list().is_ok() && holder.list().is_ok());
    scene.unmap(&holder).unwrap();
    let fence = scene.fence(Usage::Read);
    scene.shared.revoke(OpContext::new()).unwrap();
    assert_eq!(
        mute.list().unwrap_err(),
        DmaError::Revoked { generation: 1 }
    );
    assert_eq!(scene.camera.live(), 1);
    scene.queue.signal(fence.seqno());
    scene.device.reap();
    assert_eq!(scene.camera.live(), 0);
    scene.check();
    drop((mute, holder));
    scene.end();
}

#[test]
fn pins_are_for_who_is_dynamic_and_counted() {
    let scene = Scene::exporting(ExportInfo::new().pins(2));
    let attached = scene.attach(AttachInfo::new("plane").dynamic()).unwrap();
    let held = scene.attach(AttachInfo::new("camera")).unwrap();
    let pin = |attached: &Attachment<Counting>| {
        let pinned = scene.shared.exec(OpContext::new(), |bo| attached.pin(bo));
        pinned.map(drop)
    };
    let unpin = |attached: &Attachment<Counting>| {
        let unpinned = scene.shared.exec(OpContext::new(), |bo| attached.unpin(bo));
        unpinned.map(drop)
    };
    assert_eq!(dma(pin(&held).unwrap_err()), DmaError::NotDynamic);
    pin(&attached).unwrap();
    pin(&attached).unwrap();
    let most = 2;
    assert_eq!(
        dma(pin(&attached).unwrap_err()),
        DmaError::TooManyPins { most }
    );
    scene.map(&attached).unwrap();
    scene.check();
    assert!(matches!(scene.go(&vram()).unwrap_err(), Error::Pinned));
    unpin(&attached).unwrap();
    assert!(matches!(scene.go(&vram()).unwrap_err(), Error::Pinned));
    unpin(&attached).unwrap();
    assert!(matches!(unpin(&attached).unwrap_err(), Error::Invalid(_)));
    scene.go(&vram()).unwrap();
    pin(&attached).unwrap();
    assert_eq!(scene.shared.counts().pinned, 1);
    // Dropped with its pin.
    drop((attached, held));
    scene.device.reap();
    scene.go(&vram()).unwrap();
    scene.end();
}

#[test]
fn device_memory_is_mapped_for_who_reaches_it() {
    let scene = Scene::new();
    scene.go(&vram()).unwrap();
    let near = PeerPath::BusAddress { hops: 4 };
    let peer = AttachInfo::new("peer").dynamic().through(near);
    let peer = scene.attach(peer).unwrap();
    let list = scene.map(&peer).unwrap();
    assert!(list.cpu_segments().is_none());
    let segment = list.dma_segments()[0];
    assert_eq!(
        (segment.addr.get(), segment.len, segment.bus),
        (BUS, SIZE, true)
    );
    assert_eq!(scene.camera.live(), 0, "nobody translates it");
    scene.check();
    // Somebody who does not: it has to move, and the peer maps frames then.
    let far = || AttachInfo::new("far").dynamic();
    let refused = dma(scene.attach(far()).unwrap_err());
    let DmaError::NeedsMigration { field, unmap, .. } = refused else {
        panic!("{refused}");
    };
    assert_eq!((field, unmap), (Field::Storage, vec!["peer".to_owned()]));
    assert!(peer.list().is_ok());
    let far = scene.attach(far().migrating()).unwrap();
    assert_eq!(
        peer.list().unwrap_err(),
        DmaError::Revoked { generation: 1 }
    );
    let lists = [scene.map(&peer).unwrap(), scene.map(&far).unwrap()];
    assert!(lists.iter().all(|list| list.cpu_segments().is_some()));
    scene.check();
    drop((peer, far));
    scene.end();
}

#[test]
fn device_memory_that_is_kept_is_refused_with_its_reason() {
    let scene = Scene::new();
    scene.go(&vram()).unwrap();
    let locked = scene.shared.exec(OpContext::new(), |bo| Ok(bo.pin_guard()));
    let locked = locked.unwrap();
    let reason = NoPeerPath::Acs;
    let blocked = AttachInfo::new("far").through(PeerPath::NotSupported { reason });
    drop(locked);
    let locked = scene.shared.exec(OpContext::new(), |bo| {
        bo.pin();
        Ok(())
    });
    drop(locked.unwrap());
    let attached = scene.attach(blocked).unwrap();
    let refused = dma(scene.map(&attached).unwrap_err());
    assert_eq!(refused, DmaError::PeerNotReachable { reason });
    scene.check();
    let locked = scene.shared.exec(OpContext::new(), |bo| bo.unpin());
    drop(locked.unwrap());
    scene.map(&attached).unwrap();
    drop(attached);
    scene.end();
}

#[test]
fn a_late_strict_one_is_refused_or_has_it_moved() {
    let says = Arc::new(Says(None));
    let scene = Scene::exporting(ExportInfo::new().by(says));
    scene.go(&tt()).unwrap();
    let strict = || {
        let constraints = Constraints {
            caching: CacheModes::of(&[CacheMode::Cached]),
            limit: Mask::bits(33),
            ..Constraints::ANY
        };
        AttachInfo::new("strict").constraints(constraints)
    };
    // It fits: the frames are low.
    let first = scene.attach(AttachInfo::new("first")).unwrap();
    scene.map(&first).unwrap();
    let late = scene.attach(strict()).unwrap();
    scene.map(&late).unwrap();
    // It does not, and somebody keeps it there.
    let narrow = Constraints {
        limit: Mask::bits(12),
        ..Constraints::ANY
    };
    let narrow = || AttachInfo::new("narrow").constraints(narrow).migrating();
    let refused = dma(scene.attach(narrow()).unwrap_err());
    let DmaError::AttachIncompatible { field, held_by, .. } = &refused else {
        panic!("{refused}");
    };
    assert_eq!((*field, held_by.len()), (Field::Limit, 2));
    assert!(refused.to_string().contains("first, strict"), "{refused}");
    scene.check();
    drop((first, late));
    scene.end();
}

#[test]
fn brackets_wait_for_those_who_are_in_the_way() {
    let scene = Scene::new();
    scene.go(&tt()).unwrap();
    let now = || OpContext::new().without_waiting();
    let reader = scene.fence(Usage::Read);
    drop(
        scene
            .shared
            .begin_cpu(now(), Direction::FromDevice)
            .unwrap(),
    );
    for writes in [Direction::ToDevice, Direction::Both] {
        let refused = scene.shared.begin_cpu(now(), writes).unwrap_err();
        assert!(matches!(refused, Error::Busy), "{refused}");
    }
    scene.queue.signal(reader.seqno());
    let writer = scene.fence(Usage::Write);
    let refused = scene.shared.begin_cpu(now(), Direction::FromDevice);
    assert!(matches!(refused.unwrap_err(), Error::Busy));
    let token = CancelToken::new();
    token.cancel();
    let interrupted = OpContext::new().cancelled_by(&token);
    let refused = scene.shared.begin_cpu(interrupted, Direction::FromDevice);
    assert!(matches!(refused.unwrap_err(), Error::Interrupted));
    assert_eq!(scene.shared.counts().brackets, 0);
    scene.queue.signal(writer.seqno());
    let access = scene.shared.begin_cpu(now(), Direction::Both).unwrap();
    access.end(OpContext::new()).unwrap();
    scene.end();
}

#[test]
fn brackets_nest_and_keep_the_object() {
    let scene = Scene::new();
    scene.go(&tt()).unwrap();
    let outer = scene.shared.begin_cpu(OpContext::new(), Direction::Both);
    let outer = outer.unwrap();
    let inner = scene
        .shared
        .begin_cpu(OpContext::new(), Direction::FromDevice)
        .unwrap();
    scene.check();
    assert_eq!(scene.shared.counts().brackets, 2);
    outer.end(OpContext::new()).unwrap();
    assert!(matches!(scene.go(&vram()).unwrap_err(), Error::Pinned));
    drop(inner);
    scene.device.reap();
    scene.go(&vram()).unwrap();
    scene.end();
}

#[test]
fn fences_go_both_ways() {
    let scene = Scene::new();
    scene.go(&tt()).unwrap();
    let attached = scene.attach(AttachInfo::new("camera").dynamic()).unwrap();
    scene.map(&attached).unwrap();
    let writer = scene.fence(Usage::Write);
    let seen = scene.shared.exec(OpContext::new(), |bo| {
        let all = bo.fences(Usage::Bookkeep);
        Ok((attached.fences(bo)?, bo.fences(Usage::Read), all))
    });
    let seen = seen.unwrap();
    let (kernel, read, all) = seen.value();
    assert!(kernel.is_empty(), "nothing moves");
    assert_eq!(
        (&read[..], &all[..]),
        (&[writer.clone()][..], &[writer][..])
    );
    drop(seen);
    drop(attached);
    scene.end();
}

#[test]
fn what_was_purged_is_told_and_not_mapped_again() {
    let scene = Scene::new();
    scene.go(&tt()).unwrap();
    let attached = scene.attach(AttachInfo::new("camera").dynamic()).unwrap();
    scene.map(&attached).unwrap();
    let advised = scene.shared.exec(OpContext::new(), |bo| {
        bo.advise(Advice::DontNeed);
        Ok(())
    });
    drop(advised.unwrap());
    let gone = scene.device.evict_all(MemType::TT, OpContext::new());
    assert_eq!(gone.unwrap(), 1);
    assert!(matches!(attached.list(), Err(DmaError::Revoked { .. })));
    assert_eq!(scene.camera.live(), 0);
    assert!(matches!(scene.map(&attached).unwrap_err(), Error::Purged));
    scene.check();
    drop(attached);
    scene.end();
}

#[test]
fn a_lost_device_takes_its_memory_away_and_leaves_frames() {
    let scene = Scene::new();
    scene.go(&vram()).unwrap();
    let near = PeerPath::SameFunction;
    let info = AttachInfo::new("peer").dynamic().through(near);
    let attached = scene.attach(info).unwrap();
    scene.map(&attached).unwrap();
    scene.device.set_lost();
    scene.device.reap();
    assert_eq!(
        attached.list().unwrap_err(),
        DmaError::Revoked { generation: 1 }
    );
    assert!(scene.map(&attached).is_err());
    drop(attached);

    let kept = scene.device.create(BoInfo::new(SIZE), ()).unwrap();
    let shared = scene.device.export(&kept, ExportInfo::new()).unwrap();
    let attached = shared
        .attach(
            OpContext::new(),
            mapper(&scene.camera),
            AttachInfo::new("c"),
        )
        .unwrap();
    let locked = shared.exec(OpContext::new(), |bo| attached.map(bo, Direction::Both));
    assert_eq!(locked.unwrap().value().bytes(), SIZE);
    scene.device.set_restored();
    drop((attached, shared, kept));
    scene.device.reap();
    let discarded = scene
        .shared
        .exec(OpContext::new(), |bo| bo.validate(&Placement::new()));
    drop(discarded.unwrap());
    scene.end();
}

#[test]
fn a_changed_cache_mode_is_told() {
    let mut offers = ttm::pages::Offers::ordinary(ttm::placement::PageCount::new(64).unwrap());
    offers.modes = ttm::cache::Modes::all();
    let device = builder()
        .pages(Arc::new(Switching(offers, AtomicU64::new(0))))
        .build()
        .unwrap();
    let in_mode = |mode| Placement::of(Place::new(MemType::TT).cached(mode));
    let bo = device
        .create_in(OpContext::new(), BoInfo::new(SIZE), (), &tt())
        .unwrap();
    let camera = camera();
    let shared = device.export(&bo, ExportInfo::new()).unwrap();
    let only = Constraints {
        caching: CacheModes::of(&[CacheMode::Cached]),
        ..Constraints::ANY
    };
    let info = AttachInfo::new("camera").dynamic().constraints(only);
    let attached = shared
        .attach(OpContext::new(), mapper(&camera), info)
        .unwrap();
    let map = || {
        let locked = shared.exec(OpContext::new(), |bo| {
            attached.map(bo, Direction::Both)?;
            Ok(bo.facts().mode)
        });
        *locked.unwrap().value()
    };
    assert_eq!(map(), CacheMode::Cached);
    let to = in_mode(CacheMode::WriteCombined);
    drop(
        device
            .exec(OpContext::new(), |t| t.lock(&bo)?.validate(&to))
            .unwrap(),
    );
    assert!(matches!(attached.list(), Err(DmaError::Revoked { .. })));
    device.reap();
    assert_eq!(camera.live(), 0);
    // It cannot use that mode, so it is changed back for it.
    assert_eq!(map(), CacheMode::Cached);
    device.check().unwrap_or_else(|v| panic!("{v}"));
    // Another mode than those attached can use is refused while somebody keeps it.
    let wc = Constraints {
        caching: CacheModes::of(&[CacheMode::WriteCombined]),
        ..Constraints::ANY
    };
    let other = AttachInfo::new("display").constraints(wc).migrating();
    let refused = shared.attach(OpContext::new(), mapper(&camera), other);
    let refused = dma(refused.unwrap_err());
    assert!(
        matches!(
            refused,
            DmaError::AttachIncompatible {
                field: Field::Caching,
                ..
            }
        ),
        "{refused}"
    );
}

/// Counted frames that can have every mode.
struct Switching(ttm::pages::Offers, AtomicU64);

impl ttm::pages::PageSource for Switching {
    fn offers(&self) -> ttm::pages::Offers {
        self.0
    }

    fn take(&self, want: &ttm::pages::Want) -> Result<ttm::pages::FrameRun> {
        let pages = want.pages;
        let first = self.1.fetch_add(pages.get(), Ordering::Relaxed);
        let span = FrameSpan {
            file: 0,
            first,
            pages,
        };
        let zone = ttm::pages::Zone::Normal;
        Ok(ttm::pages::FrameRun::fresh(span, zone, 0, first))
    }

    fn give(&self, _: ttm::pages::FrameRun<ttm::pages::Dirty>) {}

    fn zero(&self, _: FrameSpan, _: CacheMode) -> Result<()> {
        Ok(())
    }

    fn map(&self, _: FrameSpan, _: CacheMode) -> Result<ttm::pages::Mapped> {
        Err(Error::Unsupported("there is no content"))
    }

    fn file(&self, _: FrameSpan, _: CacheMode) -> Result<ttm::pages::FileRange> {
        Err(Error::Unsupported("there is no file"))
    }

    fn switch(&self, _: &[FrameSpan], _: CacheMode, _: CacheMode) -> Result<()> {
        Ok(())
    }

    fn maintain(&self, _: FrameSpan, _: ttm::cache::Maintenance) {}

    fn taken(&self) -> ttm::placement::PageCount {
        ttm::placement::PageCount::new(self.1.load(Ordering::Relaxed)).unwrap()
    }
}

/// Those who clone, name, export, import and attach at once leave nothing behind, whatever closes
/// first (F-23).
#[test]
fn counts_return_to_where_they_began() {
    let mut seed = 1_u64;
    let mut dice = |n: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % n
    };
    let scene = Scene::new();
    for _ in 0..60 {
        let name = scene.shared.name();
        let mut bag: Vec<Box<dyn core::any::Any>> = Vec::new();
        for _ in 0..dice(9) {
            match dice(5) {
                0 => bag.push(Box::new(name.open().unwrap())),
                1 => bag.push(Box::new(
                    scene.device.export(&scene.bo, ExportInfo::new()).unwrap(),
                )),
                2 => {
                    let (other, _) = device();
                    if let Import::Foreign(imported) = other.import(&scene.shared) {
                        bag.push(Box::new(imported));
                    }
                }
                3 => {
                    let attached = scene.attach(AttachInfo::new("camera")).unwrap();
                    scene.map(&attached).unwrap();
                    bag.push(Box::new(attached));
                }
                _ => {
                    if let Import::SelfImport(own) = scene.device.import(&scene.shared) {
                        bag.push(Box::new(own));
                    }
                }
            }
        }
        scene.check();
        while !bag.is_empty() {
            drop(bag.swap_remove(dice(bag.len() as u64) as usize));
        }
        scene.device.reap();
        assert_eq!((scene.bo.handles(), scene.device.exports()), (2, 1));
    }
    scene.end();
}
