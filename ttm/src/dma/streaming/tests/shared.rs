//! One buffer for several.

use super::*;
use crate::dma::Direction;
use crate::dma::dice::Dice;

fn shared(machine: &Machine) -> SharedStreaming {
    SharedStreaming::new(backing(machine), 0..BYTES).unwrap()
}

#[test]
fn no_device_of_several_has_a_copy_of_its_own() {
    for platform in [Platform::Forced, Platform::Narrow] {
        let machine = Machine::new(platform, 1);
        let shared = shared(&machine);
        let refused = shared.attach(&machine.dma, Direction::Both, &bouncing());
        assert!(matches!(refused, Err(DmaError::WouldBounceShared { .. })));
        assert_eq!(shared.state(), SharedState::Devices { n: 0 });
        // Nor the second, beside one that has.
        let alone = mapped(&machine, 0..BYTES, dir::Bidi);
        let other = Machine::beside(Platform::Coherent, Arc::clone(&machine.memory), |dma| dma);
        let refused = alone.map_for(&other.dma, Direction::Both, &MapAttrs::new());
        assert!(matches!(
            refused.map(drop),
            Err(DmaError::WouldBounceShared { .. })
        ));
        alone.unmap(Keep::Sync).unwrap();
    }
}

#[test]
fn the_cpu_waits_for_those_in_its_way() {
    let machine = Machine::new(Platform::Coherent, 1);
    let mut shared = shared(&machine);
    let timeline = timeline();
    let reader = shared
        .attach(&machine.dma, Direction::ToDevice, &MapAttrs::new())
        .unwrap();
    let writer = shared
        .attach(&machine.dma, Direction::FromDevice, &MapAttrs::new())
        .unwrap();
    shared
        .attach_fence(writer, timeline.issue(), Access::Write)
        .unwrap();
    shared
        .attach_fence(reader, timeline.issue(), Access::Read)
        .unwrap();
    let busy =
        |result: Result<SharedAccess<'_>, _>| matches!(result, Err(DmaError::FencePending { .. }));
    assert!(busy(shared.begin_cpu(Access::Read)));
    timeline.signal(1);
    assert!(busy(shared.begin_cpu(Access::Write)));
    let mut access = shared.begin_cpu(Access::Read).unwrap();
    assert!(matches!(
        access.write(0, b"x"),
        Err(DmaError::WrongOwner { .. })
    ));
    drop(access);
    assert!(shared.detach(reader).is_err());
    shared.detach(writer).unwrap();
    timeline.signal(2);
    let mut access = shared.begin_cpu(Access::Write).unwrap();
    access.write(BYTES - 1, b"x").unwrap();
    assert!(access.write(BYTES, b"x").is_err());
    access.end().unwrap();
    let (shared, error) = shared.into_backing().unwrap_err();
    assert_eq!(error, DmaError::StillMapped { devices: 1 });
    shared.detach(reader).unwrap();
    assert_eq!(
        super::seen(&shared.into_backing().unwrap())[BYTES as usize - 1],
        b'x'
    );
}

#[test]
fn an_access_that_is_forgotten_keeps_the_devices_out() {
    let machine = Machine::new(Platform::Coherent, 1);
    let mut shared = shared(&machine);
    core::mem::forget(shared.begin_cpu(Access::Write).unwrap());
    assert_eq!(shared.state(), SharedState::Cpu);
    let refused = shared.attach(&machine.dma, Direction::Both, &MapAttrs::new());
    assert!(matches!(refused, Err(DmaError::WrongOwner { .. })));
    assert!(shared.begin_cpu(Access::Read).is_err());
    assert!(shared.device_owned_proof().is_err());
}

#[test]
fn a_second_device_needs_no_maintenance_where_the_first_had_it() {
    let deaf = Machine::new(Platform::Deaf, 1);
    let other = Machine::beside(Platform::Deaf, Arc::clone(&deaf.memory), |dma| dma);
    let first = mapped(&deaf, 0..BYTES, dir::Bidi);
    let before = deaf.memory.maintained();
    let attrs = MapAttrs::new().skip_cpu_sync(first.device_owned_proof());
    let guest = first
        .map_for(&other.dma, Direction::ToDevice, &attrs)
        .unwrap();
    assert_eq!(deaf.memory.maintained(), before);
    guest.unmap().unwrap();
    first.unmap(Keep::Sync).unwrap();

    // A first that snoops proves nothing of caches.
    let snooping = Machine::beside(Platform::Coherent, Arc::clone(&deaf.memory), |dma| dma);
    let backing = Backing::adopt(Box::new(Said(backing(&deaf))));
    backing.write(0, b"news").unwrap();
    let first = snooping
        .dma
        .map_streaming(backing, 0..BYTES, dir::Bidi, &MapAttrs::new())
        .unwrap();
    assert!(!first.need_sync());
    let attrs = MapAttrs::new().skip_cpu_sync(first.device_owned_proof());
    let guest = first.map_for(&other.dma, Direction::Both, &attrs).unwrap();
    let mut seen = [0; 4];
    other.device.read(guest.dma(), 0, &mut seen);
    assert_eq!(&seen, b"news");
    other.device.write(guest.dma(), 0, b"mine");
    guest.unmap().unwrap();
    let ours = first.to_cpu().unwrap();
    ours.read(0, &mut seen).unwrap();
    assert_eq!(
        &seen, b"mine",
        "what the guest wrote is synced by its unmap"
    );
    let _ = ours.unmap(Keep::Sync);
}

/// Memory that one device snoops and another does not.
struct Said(Backing);

impl crate::dma::OwnedMemory for Said {
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    fn frames(&self) -> &[crate::pages::FrameSpan] {
        self.0.frames()
    }

    fn read(&self, at: u64, out: &mut [u8]) {
        self.0.read(at, out).unwrap();
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.0.write(at, bytes).unwrap();
    }

    fn maintain(&self, bytes: Range<u64>, what: crate::cache::Maintenance) {
        self.0.memory().maintain(bytes, what);
    }

    fn is_snooped(&self) -> bool {
        true
    }
}

#[test]
fn a_guest_that_is_dropped_at_work_keeps_the_memory() {
    let machine = Machine::new(Platform::Coherent, 1);
    let other = Machine::beside(Platform::Coherent, Arc::clone(&machine.memory), |dma| dma);
    let timeline = timeline();
    let first = mapped(&machine, 0..BYTES, dir::Bidi);
    let guest = first.map_for(&other.dma, Direction::Both, &MapAttrs::new());
    let mut guest = guest.unwrap();
    guest.attach_fence(timeline.issue());
    let (guest, error) = guest.unmap().unwrap_err();
    assert!(error.is_retryable());
    drop(guest);
    drop(first.unmap(Keep::Sync).unwrap());
    assert_eq!(machine.memory.taken().get(), 3);
    timeline.signal(1);
    assert_eq!(other.dma.reap_quarantine(), 1);
    assert_eq!(machine.memory.taken().get(), 0);
}

#[test]
fn devices_that_are_dropped_with_a_shared_buffer_keep_it_until_the_last() {
    let machine = Machine::new(Platform::Coherent, 1);
    let other = Machine::beside(Platform::Coherent, Arc::clone(&machine.memory), |dma| dma);
    let timeline = timeline();
    let shared = shared(&machine);
    for dma in [&machine.dma, &other.dma] {
        let id = shared
            .attach(dma, Direction::Both, &MapAttrs::new())
            .unwrap();
        shared
            .attach_fence(id, timeline.issue(), Access::Write)
            .unwrap();
    }
    drop(shared);
    timeline.signal(1);
    assert_eq!(machine.dma.reap_quarantine(), 1);
    assert_eq!(machine.memory.taken().get(), 3);
    timeline.signal(2);
    assert_eq!(other.dma.reap_quarantine(), 1);
    assert_eq!(machine.memory.taken().get(), 0);
}

/// Two devices and the CPU take turns, whichever of them snoops.
#[test]
fn drawn_turns_give_everybody_the_right_bytes() {
    for platform in [Platform::Coherent, Platform::Deaf] {
        for seed in 0..30 {
            let mut dice = Dice::new(seed);
            let one = Machine::new(platform, seed);
            let path = match (platform, dice.below(2)) {
                (Platform::Coherent, 0) => Platform::Translated,
                (Platform::Coherent, _) => Platform::Coherent,
                (_, 0) => Platform::TranslatedDeaf,
                (_, _) => Platform::Deaf,
            };
            let two = Machine::beside(path, Arc::clone(&one.memory), |dma| dma);
            let mut shared = shared(&one);
            let mut truth = vec![0; BYTES as usize];
            let mut ids = Vec::new();
            for _ in 0..60 {
                one.memory.tick(dice.below(40));
                let at = dice.below(BYTES - 100);
                let len = 1 + dice.below(100) as usize;
                let bytes: Vec<u8> = (0..len).map(|_| dice.below(256) as u8).collect();
                let range = at as usize..at as usize + len;
                let mut seen = vec![0; len];
                match dice.below(6) {
                    0 if ids.len() < 4 => {
                        let machine = dice.of(&[&one, &two]);
                        let attrs = match shared.device_owned_proof() {
                            Ok(proof) if dice.one_in(2) => MapAttrs::new().skip_cpu_sync(proof),
                            _ => MapAttrs::new(),
                        };
                        let id = shared.attach(&machine.dma, Direction::Both, &attrs);
                        ids.push((id.unwrap(), machine));
                    }
                    1 if !ids.is_empty() => {
                        let n = dice.below(ids.len() as u64) as usize;
                        shared.detach(ids.swap_remove(n).0).unwrap();
                    }
                    2 | 3 if !ids.is_empty() => {
                        let (id, machine) = dice.of(&ids);
                        let list = shared.dma(id).unwrap();
                        machine.device.read(&list, at, &mut seen);
                        assert_eq!(seen, truth[range.clone()], "seed {seed}");
                        machine.device.write(&list, at, &bytes);
                        truth[range].copy_from_slice(&bytes);
                    }
                    _ => {
                        let mut access = shared.begin_cpu(Access::Write).unwrap();
                        access.read(at, &mut seen).unwrap();
                        assert_eq!(seen, truth[range.clone()], "seed {seed}");
                        access.write(at, &bytes).unwrap();
                        one.memory.tick(dice.below(40));
                        truth[range].copy_from_slice(&bytes);
                    }
                }
            }
            for (id, _) in ids {
                shared.detach(id).unwrap();
            }
            assert_eq!(super::seen(&shared.into_backing().unwrap()), truth);
        }
    }
}
