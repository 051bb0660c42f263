//! A device that its user opened, and his own work beside the manager's: fences both ways.
//!
//! The rule that the `unsafe` blocks here rely on: everything is of the device of a [`Shimmed`], which
//! outlives it, and is destroyed by its test once the work that used it is over.
#![expect(unsafe_code, reason = "raw work on the shared queue")]

use ash::vk;
use backends::vulkan::{Bound, BufferInfo, Copies, ImageInfo, UserTimeline, VulkanDriver};
use placement::MemType;
use ttm::bo::Bo;
use ttm::context::OpContext;
use ttm::fence::{Fence, FenceError, Status, Timeline, Usage};

use super::shim::plan::{self, Call};
use super::shim::{Shimmed, Watchdog, eventually};
use super::stage::{MIB, Setup, in_type};
use super::words::{assert_words, words};

type Object = Bo<VulkanDriver>;

const BYTES: u64 = 256 << 10;

fn shimmed() -> Option<Shimmed> {
    Shimmed::new(&Setup::with_vram(16 * MIB).config(|c| c.copies(Copies::Queue)))
}

fn semaphore(s: &Shimmed) -> vk::Semaphore {
    let mut kind = vk::SemaphoreTypeCreateInfo::default()
        .semaphore_type(vk::SemaphoreType::TIMELINE)
        .initial_value(0);
    let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
    // SAFETY: the device lives.
    unsafe { s.opened.device.create_semaphore(&info, None) }.unwrap()
}

fn value_of(s: &Shimmed, semaphore: vk::Semaphore) -> u64 {
    // SAFETY: a timeline semaphore of the device.
    unsafe { s.opened.device.get_semaphore_counter_value(semaphore) }.unwrap()
}

fn signal(s: &Shimmed, semaphore: vk::Semaphore, value: u64) {
    let info = vk::SemaphoreSignalInfo::default()
        .semaphore(semaphore)
        .value(value);
    // SAFETY: as above; values grow.
    unsafe { s.opened.device.signal_semaphore(&info) }.unwrap();
}

fn destroy(s: &Shimmed, semaphore: vk::Semaphore) {
    // SAFETY: what used it is over.
    unsafe { s.opened.device.destroy_semaphore(semaphore, None) };
}

/// A user's work: a word all over a buffer, if there is one; after some points, up to one.
struct Work {
    pool: vk::CommandPool,
}

impl Work {
    fn new(s: &Shimmed) -> Self {
        let family = s.opened.queues.general.family();
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(family);
        // SAFETY: the device lives and has the family.
        let pool = unsafe { s.opened.device.create_command_pool(&info, None) }.unwrap();
        Self { pool }
    }

    fn submit(
        &self,
        s: &Shimmed,
        fill: Option<(vk::Buffer, u32)>,
        waits: &[(vk::Semaphore, u64)],
        up_to: (vk::Semaphore, u64),
    ) {
        let device = &s.opened.device;
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(self.pool)
            .command_buffer_count(1);
        // SAFETY: the pool lives.
        let commands = unsafe { device.allocate_command_buffers(&info) }.unwrap();
        let begin = vk::CommandBufferBeginInfo::default();
        // SAFETY: it is new.
        unsafe { device.begin_command_buffer(commands[0], &begin) }.unwrap();
        if let Some((buffer, word)) = fill {
            // SAFETY: recording; the buffer is bound, for the points it waits for.
            unsafe { device.cmd_fill_buffer(commands[0], buffer, 0, vk::WHOLE_SIZE, word) };
        }
        // SAFETY: recording.
        unsafe { device.end_command_buffer(commands[0]) }.unwrap();
        let semaphores: Vec<_> = waits.iter().map(|w| w.0).collect();
        let values: Vec<_> = waits.iter().map(|w| w.1).collect();
        let stages = vec![vk::PipelineStageFlags::ALL_COMMANDS; waits.len()];
        let (signals, reached) = ([up_to.0], [up_to.1]);
        let mut timeline = vk::TimelineSemaphoreSubmitInfo::default()
            .wait_semaphore_values(&values)
            .signal_semaphore_values(&reached);
        let submit = [vk::SubmitInfo::default()
            .command_buffers(&commands)
            .wait_semaphores(&semaphores)
            .wait_dst_stage_mask(&stages)
            .signal_semaphores(&signals)
            .push_next(&mut timeline)];
        let queue = s.opened.queues.general.hold();
        // SAFETY: the queue is held, and everything lives until it is done.
        unsafe { device.queue_submit(queue.handle(), &submit, vk::Fence::null()) }.unwrap();
    }

    fn end(self, s: &Shimmed) {
        // SAFETY: its work is over.
        unsafe { s.opened.device.destroy_command_pool(self.pool, None) };
    }
}

fn made(s: &Shimmed, number: u64) -> Object {
    let info = BufferInfo::new(BYTES)
        .usage(vk::BufferUsageFlags::STORAGE_BUFFER | vk::BufferUsageFlags::TRANSFER_DST);
    let bo = s.make(s.vulkan.buffer(&info).unwrap());
    s.write(&bo, &words(number, 0, BYTES)).unwrap();
    bo
}

fn add(s: &Shimmed, bo: &Object, fence: &Fence) {
    let locked = s
        .device
        .exec(OpContext::new(), |t| t.lock(bo)?.reserve_fences(1));
    locked.unwrap().fence(bo, fence, Usage::Write).unwrap();
}

/// Sends it somewhere, behind something that is pending; answers the fence of the move.
fn send(s: &Shimmed, bo: &Object, to: MemType) -> Fence {
    let moved = try_send(s, bo, to);
    moved.expect("it cannot have arrived")
}

/// Sends it somewhere; nothing if it is there already.
fn try_send(s: &Shimmed, bo: &Object, to: MemType) -> Option<Fence> {
    let moved = s.device.exec(OpContext::new(), |t| {
        let reserved = t.lock(bo)?;
        reserved.validate(&in_type(to))?;
        Ok(reserved.fences(Usage::Kernel))
    });
    let moved = moved.unwrap();
    moved.value().last().cloned()
}

fn is_still_pending(fence: &Fence) -> bool {
    std::thread::sleep(core::time::Duration::from_millis(120));
    !fence.is_signalled()
}

#[test]
fn work_of_the_users_and_moves_wait_for_each_other() {
    let Some(s) = shimmed() else { return };
    let _dog = Watchdog::new("raw work");
    let (mine, gate) = (semaphore(&s), semaphore(&s));
    // SAFETY: it is destroyed below, after everything that has it.
    let users = unsafe { s.vulkan.adopt_timeline(mine) }.unwrap();
    let work = Work::new(&s);
    let bo = made(&s, 1);
    for round in 1..=3_u64 {
        let word = 0x0101_0101 * u32::try_from(round).unwrap();
        let locked = s.device.exec(OpContext::new(), |t| {
            let reserved = t.lock(&bo)?;
            reserved.validate(&in_type(MemType::VRAM))?;
            reserved.reserve_fences(1)
        });
        let locked = locked.unwrap();
        let binding = s.vulkan.bind(&locked, &[&bo], Usage::Write).unwrap();
        let Bound::Buffer { handle, .. } = binding.objects[0] else {
            panic!("{binding:?}");
        };
        let (fence, value) = users.next();
        let mut waits = binding.waits.clone();
        waits.push((gate, round));
        work.submit(&s, Some((handle, word)), &waits, (mine, value));
        locked.fence(&bo, &fence, Usage::Write).unwrap();
        drop(locked);
        // The move is queued behind work that is held up.
        let moved = send(&s, &bo, MemType::SYSTEM);
        assert_eq!(s.vulkan.point(&fence), Some((mine, value)));
        assert!(is_still_pending(&moved) && !fence.is_signalled());
        signal(&s, gate, round);
        let found = s.read(&bo).unwrap();
        assert!(
            found.iter().all(|b| u64::from(*b) == round),
            "round {round}"
        );
        assert_eq!(s.vulkan.point(&fence), None);
        assert_eq!(fence.status(), Status::Done);
    }
    drop((bo, users));
    s.vulkan.trim();
    work.end(&s);
    destroy(&s, gate);
    s.device.reap();
    destroy(&s, mine);
    s.end();
}

#[test]
fn a_move_behind_a_foreign_fence_waits_and_those_behind_it_too() {
    let Some(s) = shimmed() else { return };
    let _dog = Watchdog::new("a foreign fence");
    let foreign = Timeline::new(5, s.vulkan.clock());
    let bos: Vec<_> = (0..6).map(|n| made(&s, n)).collect();
    let gate = foreign.issue();
    add(&s, &bos[0], &gate);
    let moves: Vec<_> = bos.iter().map(|bo| send(&s, bo, MemType::VRAM)).collect();
    assert!(is_still_pending(&moves[0]));
    assert!(moves.iter().all(|fence| !fence.is_signalled()));
    // What became of others' work is not the move's business.
    foreign.fail(gate.seqno(), FenceError::Failed);
    for fence in &moves {
        eventually("a move", || fence.is_signalled());
        assert_eq!(fence.status(), Status::Done);
        let earlier = moves.iter().filter(|other| other.seqno() < fence.seqno());
        assert!(earlier.into_iter().all(Fence::is_signalled), "in order");
    }
    for (number, bo) in (0..).zip(&bos) {
        assert_words(&s.read(bo).unwrap(), number, 0);
    }
    drop(bos);
    s.end();
}

/// A point that was cancelled used to signal those before it, whose work was still running, and to
/// bring the semaphore past what the queue was about to signal.
#[test]
fn a_cancelled_point_fails_in_its_turn() {
    let Some(s) = shimmed() else { return };
    let _dog = Watchdog::new("cancel");
    let (mine, gate) = (semaphore(&s), semaphore(&s));
    // SAFETY: it is destroyed below, after everything that has it.
    let users = unsafe { s.vulkan.adopt_timeline(mine) }.unwrap();
    let work = Work::new(&s);
    let bo = made(&s, 1);
    // Alone, it fails at once.
    let (alone, value) = users.next();
    users.cancel(&alone);
    eventually("a cancelled point", || alone.is_signalled());
    assert_eq!(alone.status(), Status::Failed(FenceError::Failed));
    assert_eq!(value_of(&s, mine), value);
    // Behind one that is at work.
    let (first, at) = users.next();
    work.submit(&s, None, &[(gate, 1)], (mine, at));
    let (second, after) = users.next();
    add(&s, &bo, &second);
    let moved = send(&s, &bo, MemType::VRAM);
    users.cancel(&second);
    assert!(is_still_pending(&first), "its work is not over");
    assert!(!second.is_signalled() && !moved.is_signalled());
    signal(&s, gate, 1);
    eventually("the move", || moved.is_signalled());
    assert_eq!(first.status(), Status::Done);
    assert_eq!(second.status(), Status::Failed(FenceError::Failed));
    assert_eq!(moved.status(), Status::Done);
    assert_eq!(value_of(&s, mine), after);
    // And under one that is at work: that brings the semaphore there.
    let (first, _) = users.next();
    let (second, at) = users.next();
    work.submit(&s, None, &[(gate, 2)], (mine, at));
    users.cancel(&first);
    signal(&s, gate, 2);
    eventually("the last", || second.is_signalled());
    assert_eq!(first.status(), Status::Failed(FenceError::Failed));
    assert_eq!(second.status(), Status::Done);
    assert_words(&s.read(&bo).unwrap(), 1, 0);
    drop((bo, users));
    s.device.reap();
    work.end(&s);
    destroy(&s, gate);
    destroy(&s, mine);
    s.end();
}

#[test]
fn a_copy_that_the_queue_refuses_leaves_the_content_where_it_was() {
    let Some(s) = shimmed() else { return };
    let _dog = Watchdog::new("a refused copy");
    let bo = made(&s, 1);
    let way = [MemType::VRAM, MemType::SYSTEM, MemType::VRAM, MemType::TT];
    let mut from = MemType::SYSTEM;
    for to in way {
        let first = s.vulkan.counts().jobs == 0;
        let calls = [Call::AllocateCommands, Call::Submit, Call::Begin, Call::End];
        for call in calls.into_iter().skip(usize::from(!first)) {
            let failed = s.vulkan.counts().failed;
            plan::once(call, vk::Result::ERROR_OUT_OF_HOST_MEMORY);
            // It may have failed before anybody asks.
            if let Some(fence) = try_send(&s, &bo, to) {
                eventually("the end of the move", || fence.is_signalled());
                assert_eq!(fence.status(), Status::Failed(FenceError::Failed));
            }
            assert_words(&s.read(&bo).unwrap(), 1, 0);
            assert_eq!(s.place_of(&bo), Some(from), "after {call:?} to {to}");
            assert_eq!(s.vulkan.counts().failed, failed + 1);
        }
        if let Some(fence) = try_send(&s, &bo, to) {
            eventually("the end of the move", || fence.is_signalled());
            assert_eq!(fence.status(), Status::Done);
        }
        assert_words(&s.read(&bo).unwrap(), 1, 0);
        assert_eq!(s.place_of(&bo), Some(to));
        from = to;
    }
    s.check();
    drop(bo);
    s.end();
}

/// Binds and users' work used to be told to wait for copies that were not submitted yet. On a device
/// with one queue these came behind what waited for them, and nothing went on.
#[test]
fn nobody_waits_for_a_copy_that_would_come_behind_him() {
    let Some(s) = shimmed() else { return };
    let _dog = Watchdog::new("many moves, and work that waits for the last");
    let users = s.vulkan.timeline().unwrap();
    let foreign = Timeline::new(6, s.vulkan.clock());
    let work = Work::new(&s);
    let bos: Vec<_> = (0..24).map(|n| made(&s, n)).collect();
    for held_up in [false, true] {
        let gate = foreign.issue();
        match held_up {
            true => add(&s, &bos[0], &gate),
            false => foreign.signal(gate.seqno()),
        }
        let moves: Vec<_> = bos
            .iter()
            .map(|bo| try_send(&s, bo, MemType::VRAM))
            .collect();
        let last = bos.last().unwrap();
        if held_up {
            let moved = moves.last().unwrap().as_ref();
            assert_eq!(s.vulkan.point(moved.expect("it is held up")), None);
            let foreign = &foreign;
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(core::time::Duration::from_millis(50));
                    foreign.signal(gate.seqno());
                });
                use_it(&s, last, &work, &users);
            });
        } else {
            use_it(&s, last, &work, &users);
        }
        for (number, bo) in (0..).zip(&bos[..23]) {
            assert_words(&s.read(bo).unwrap(), number, 0);
            s.validate(bo, &in_type(MemType::SYSTEM)).unwrap();
        }
        s.validate(last, &in_type(MemType::SYSTEM)).unwrap();
        assert!(s.read(last).unwrap().iter().all(|b| *b == 7));
    }
    work.end(&s);
    drop((bos, users));
    s.end();
}

/// Work of the user's that fills the object, where it is now.
fn use_it(s: &Shimmed, bo: &Object, work: &Work, users: &UserTimeline) {
    let locked = s
        .device
        .exec(OpContext::new(), |t| t.lock(bo)?.reserve_fences(1))
        .unwrap();
    let binding = s.vulkan.bind(&locked, &[bo], Usage::Write).unwrap();
    let Bound::Buffer { handle, .. } = binding.objects[0] else {
        panic!("{binding:?}");
    };
    let (fence, value) = users.next();
    let up_to = (users.semaphore(), value);
    work.submit(s, Some((handle, 0x0707_0707)), &binding.waits, up_to);
    locked.fence(bo, &fence, Usage::Write).unwrap();
}

/// The fence of a copy that was not begun used to signal at once: what it gave free was still used by
/// those whom the copy was to wait for.
#[test]
fn a_refused_copy_signals_after_what_it_was_behind() {
    let Some(s) = shimmed() else { return };
    let _dog = Watchdog::new("a refused copy behind work");
    let gate = semaphore(&s);
    let users = s.vulkan.timeline().unwrap();
    let work = Work::new(&s);
    let bo = made(&s, 1);
    let (fence, value) = users.next();
    work.submit(&s, None, &[(gate, 1)], (users.semaphore(), value));
    add(&s, &bo, &fence);
    plan::once(Call::Submit, vk::Result::ERROR_OUT_OF_HOST_MEMORY);
    let refused = send(&s, &bo, MemType::VRAM);
    // Nobody passes it.
    let other = made(&s, 2);
    let later = send(&s, &other, MemType::VRAM);
    assert!(is_still_pending(&refused) && !later.is_signalled());
    // Its user has gone; the semaphore stays for the copy.
    drop(users);
    signal(&s, gate, 1);
    eventually("the end of both", || later.is_signalled());
    assert_eq!(refused.status(), Status::Failed(FenceError::Failed));
    assert_eq!(later.status(), Status::Done);
    assert_words(&s.read(&bo).unwrap(), 1, 0);
    assert_words(&s.read(&other).unwrap(), 2, 0);
    work.end(&s);
    drop((bo, other));
    destroy(&s, gate);
    s.end();
}

/// Where a buffer was bound used to be told by the handle of the memory, and handles come again: a new
/// allocation with an old one's handle was taken for it, and the buffer stayed bound to freed memory.
#[test]
fn a_buffer_is_bound_anew_to_memory_with_an_old_handle() {
    for stable in [false, true] {
        let Some(s) = shimmed() else { return };
        if stable && !s.vulkan.keeps_handles() {
            return s.end();
        }
        let info = BufferInfo::new(BYTES).stable(stable);
        let bo = s.make(s.vulkan.buffer(&info).unwrap());
        s.write(&bo, &words(1, 0, BYTES)).unwrap();
        let mut generations = Vec::new();
        for _ in 0..8 {
            let locked = s.device.exec(OpContext::new(), |t| {
                t.lock(&bo)?.validate(&in_type(MemType::VRAM))
            });
            let locked = locked.unwrap();
            let binding = s.vulkan.bind(&locked, &[&bo], Usage::Write).unwrap();
            let Bound::Buffer { generation, .. } = binding.objects[0] else {
                panic!("{binding:?}");
            };
            generations.push((generation, binding.rebound));
            drop(locked);
            s.validate(&bo, &in_type(MemType::SYSTEM)).unwrap();
            s.read(&bo).unwrap();
            s.device.reap();
            eventually("memory without a user", || {
                s.device.reap();
                s.vulkan.trim();
                s.vulkan.usage(MemType::VRAM).unwrap().chunks == 0
            });
        }
        match stable {
            true => assert!(generations.iter().all(|g| g.1 == 1), "{generations:?}"),
            false => assert!(
                generations.windows(2).all(|g| g[1].0 == g[0].0 + 1),
                "{generations:?}"
            ),
        }
        drop(bo);
        s.end();
    }
}

/// What had been waiting for others used to be submitted by the watching thread while its device was
/// being taken down.
#[test]
fn a_device_dropped_in_the_middle_abandons_what_was_not_begun() {
    let Some(s) = shimmed() else { return };
    let _dog = Watchdog::new("a drop in the middle");
    let foreign = Timeline::new(8, s.vulkan.clock());
    let gate = foreign.issue();
    let bos: Vec<_> = (0..12).map(|n| made(&s, n)).collect();
    if let Some(done) = try_send(&s, &bos[0], MemType::VRAM) {
        eventually("the first", || done.is_signalled());
    }
    add(&s, &bos[1], &gate);
    let moves: Vec<_> = bos[1..]
        .iter()
        .map(|bo| send(&s, bo, MemType::VRAM))
        .collect();
    let submissions = s.vulkan.counts().submissions;
    drop(bos);
    assert_eq!(s.vulkan.counts().submissions, submissions);
    drop(s);
    foreign.signal(gate.seqno());
    for fence in moves {
        assert_eq!(fence.status(), Status::Failed(FenceError::Abandoned));
    }
}

/// An image that had left device memory kept the allocation in which it had been.
#[test]
fn an_image_that_left_leaves_its_memory() {
    let Some(s) = shimmed() else { return };
    let info = ImageInfo::new(vk::Format::R8G8B8A8_UNORM, 256, 256);
    let bo = s.make(s.vulkan.image(&info).unwrap());
    for _ in 0..3 {
        s.validate(&bo, &in_type(MemType::VRAM)).unwrap();
        s.validate(&bo, &in_type(MemType::SYSTEM)).unwrap();
        eventually("memory without a user", || {
            s.device.reap();
            s.vulkan.trim();
            plan::live().0 == 0
        });
    }
    drop(bo);
    s.end();
}

/// Semaphores go out as descriptors and come in as others at their value, where the driver has that; here
/// it is played, but for the payload, which the two would share.
#[test]
fn a_timeline_goes_out_and_comes_in_at_its_value() {
    let turn = super::stage::turn();
    plan::calm();
    plan::plan().semaphore_fds = true;
    let setup = Setup::with_vram(16 * MIB).config(|c| c.copies(Copies::Queue));
    let Some(s) = Shimmed::with(&setup, turn) else {
        return;
    };
    let fds = || {
        let all = std::fs::read_dir("/proc/self/fd").unwrap();
        let targets = all.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        let of_one = |t: &std::path::PathBuf| t.to_string_lossy().contains("ttm-semaphore");
        targets.filter(of_one).count()
    };
    let ours = s.vulkan.timeline().unwrap();
    signal(&s, ours.semaphore(), 5);
    let out = ours.export().unwrap();
    assert_eq!(fds(), 1);
    // SAFETY: what went out is a timeline of this device.
    let theirs = unsafe { s.vulkan.import_timeline(out) }.unwrap();
    assert_eq!(fds(), 0, "it is the driver's");
    assert_eq!(value_of(&s, theirs.semaphore()), 5);
    assert!(theirs.fence_at(5).is_err(), "that was before it came in");
    let bo = made(&s, 1);
    let fence = theirs.fence_at(9).unwrap();
    add(&s, &bo, &fence);
    let moved = send(&s, &bo, MemType::VRAM);
    assert!(is_still_pending(&moved), "it waits for the other side");
    signal(&s, theirs.semaphore(), 9);
    eventually("the move", || moved.is_signalled());
    assert_words(&s.read(&bo).unwrap(), 1, 0);
    let again = theirs.export();
    assert!(again.is_err(), "what came in does not go out: {again:?}");

    plan::once(
        Call::ImportSemaphore,
        vk::Result::ERROR_INVALID_EXTERNAL_HANDLE,
    );
    let out = ours.export().unwrap();
    // SAFETY: as above.
    let refused = unsafe { s.vulkan.import_timeline(out) };
    assert!(refused.is_err());
    assert_eq!(fds(), 0, "it is closed");
    drop((bo, ours, theirs, fence, moved));
    s.end();
}

/// Without the driver's help it is an error that says so.
#[test]
fn a_timeline_stays_where_none_goes_out() {
    let Some(s) = shimmed() else {
        return;
    };
    let ours = s.vulkan.timeline().unwrap();
    if s.vulkan.facts().can.semaphore_fd {
        return super::stage::lacks(&"a device without semaphores that go out");
    }
    let refused = ours.export().expect_err("there is no such extension");
    assert!(refused.to_string().contains("semaphore"), "{refused}");
    let file = std::fs::File::open("/dev/null").unwrap();
    // SAFETY: the device takes none in, so it is not looked at.
    let refused = unsafe { s.vulkan.import_timeline(file.into()) };
    let refused = refused.expect_err("there is no such extension");
    assert!(refused.to_string().contains("VK_KHR_external_semaphore_fd"));
    drop(ours);
    s.end();
}
