//! What the CPU and devices have to wait for.

use super::*;

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
