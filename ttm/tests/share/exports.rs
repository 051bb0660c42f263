//! Exporting, importing, attaching, and what is counted of it.

use super::*;

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

/// Those who clone, name, export, import and attach at once leave nothing behind, whatever closes
/// first (F-23).
#[test]
fn counts_return_to_where_they_began() {
    let mut dice = Dice(1);
    let scene = Scene::new();
    for _ in 0..60 {
        let name = scene.shared.name();
        let mut bag: Vec<Box<dyn core::any::Any>> = Vec::new();
        for _ in 0..dice.below(9) {
            match dice.below(5) {
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
            drop(bag.swap_remove(dice.below(bag.len() as u64) as usize));
        }
        scene.device.reap();
        assert_eq!((scene.bo.handles(), scene.device.exports()), (2, 1));
    }
    scene.end();
}
