//! Who keeps the object where it is, and who is told that it moves.

use super::*;

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
    assert_eq!((field, unmap), (Field::Storage, ["peer".to_owned()].into()));
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
