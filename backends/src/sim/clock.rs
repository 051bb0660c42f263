//! Virtual time: clients take turns, and waiting makes time pass.
//!
//! ```text
//!                 its turn                park
//!      ready ───────────────▶ running ───────────────▶ parked
//!        ▲                                               │
//!        └───────────────────────────────────────────────┘
//!          unparked, deadline reached, or nothing else left (stalled)
//! ```
//!
//! Exactly one client runs at a time. When it parks, the next ready one runs, in the order in
//! which they became ready. When none is ready, services are stepped until all are idle; then the
//! next event by (time, order of scheduling) happens, on the thread of whoever parked last. The
//! deadline of a park is an event like any other. With no event left, every parked client wakes
//! with [`Woken::Stalled`].
//!
//! So the outcome depends on the program and the seed, and neither on the host's scheduler nor on
//! how many cores it has.

use core::any::Any;
use core::cell::Cell;
use core::fmt;
use core::fmt::Write;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use ttm::clock::{Clock, Progress, Service, Time, WaitCell, WaitFor, Woken};
use ttm::sync::atomic::{AtomicU64, Ordering};
use ttm::sync::{Arc, Condvar, Mutex, MutexGuard};

/// What a client waits for when it waits for the clients of its scope. A stall does not wake it.
pub(super) const SCOPE: WaitFor = WaitFor::Other("the clients of its scope");

/// A service that still finds work after so many steps in a row is broken.
const STEPS: u64 = 10_000_000;

/// Something that happens at a moment.
pub(super) type Call = Box<dyn FnOnce(Time) + Send>;

type Guard<'a> = MutexGuard<'a, State>;

/// A clock that makes time pass only when everybody waits.
///
/// ```
/// use backends::sim::VirtualClock;
/// use ttm::clock::Clock;
///
/// let clock = VirtualClock::new();
/// clock.scope(|s| {
///     s.spawn("slow", || clock.sleep(2_000_000_000));
///     s.spawn("fast", || clock.sleep(1_000_000_000));
/// });
/// assert_eq!(clock.now().nanos(), 2_000_000_000);
/// ```
///
/// A thread that is no client of a [`scope`](VirtualClock::scope) and parks (the main thread of a
/// test) is a client for as long as it is parked. What it does otherwise the clock does not see:
/// two such threads are not deterministic, and one that waits for the other is told that it
/// stalled.
pub struct VirtualClock {
    state: Mutex<State>,
    /// `state.now`, for reading without the lock. Relaxed: whoever was woken by an event got the
    /// lock after the event's time was stored.
    now: AtomicU64,
    ticks: AtomicU64,
}

struct State {
    now: u64,
    /// Numbers events and clients.
    sequence: u64,
    clients: BTreeMap<u64, Client>,
    /// Who has the turn.
    running: Option<u64>,
    /// Whether a thread is running events; then nobody has the turn.
    driving: bool,
    ready: VecDeque<u64>,
    events: BTreeMap<(u64, u64), Event>,
    services: Vec<Arc<dyn Service>>,
    stepping: bool,
    /// Xorshift state; 0 takes ready clients in order.
    shuffle: u64,
    digest: u64,
    turns: u64,
    stall: String,
    /// What an event or a service panicked with, for the next client that runs.
    panic: Option<Box<dyn Any + Send>>,
}

struct Client {
    name: Arc<str>,
    turn: Arc<Condvar>,
    parked: Option<Parked>,
    woken: Woken,
}

struct Parked {
    cell: Option<Arc<WaitCell>>,
    what: WaitFor,
    since: u64,
    deadline: Option<(u64, u64)>,
}

enum Event {
    Deadline(u64),
    Call(Call),
}

thread_local! {
    /// The clock (by address) whose client this thread is, and its number.
    static CLIENT: Cell<(usize, u64)> = const { Cell::new((0, 0)) };
    /// Whether this thread runs an event or a service.
    static IN_EVENT: Cell<bool> = const { Cell::new(false) };
    /// Whether this thread's last park ended in a stall.
    static STALLED: Cell<bool> = const { Cell::new(false) };
}

impl VirtualClock {
    /// A clock at the beginning of time, without clients, that lets ready clients run in order.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::seeded(0)
    }

    /// Like [`VirtualClock::new`]; a seed other than 0 chooses among ready clients at random, the
    /// same way for the same seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                now: 0,
                sequence: 0,
                clients: BTreeMap::new(),
                running: None,
                driving: false,
                ready: VecDeque::new(),
                events: BTreeMap::new(),
                services: Vec::new(),
                stepping: false,
                shuffle: seed,
                digest: 0xcbf2_9ce4_8422_2325,
                turns: 0,
                stall: String::new(),
                panic: None,
            }),
            now: AtomicU64::new(0),
            ticks: AtomicU64::new(0),
        })
    }

    /// Makes `call` happen at `at`, or as soon as everybody waits if that is past. It runs on the
    /// thread of whoever parked last, holds no lock of the clock, and may schedule and unpark.
    ///
    /// The panic of a call goes on in the client that runs next.
    pub fn schedule(&self, at: Time, call: Box<dyn FnOnce(Time) + Send>) {
        let mut state = self.state.lock();
        state.add_event(at.nanos(), Event::Call(call));
    }

    /// Steps `service` after every event and before time advances, until it is idle.
    pub fn add_service(&self, service: Arc<dyn Service>) {
        self.state.lock().services.push(service);
    }

    /// Forgets all services. They may hold the device that holds this clock.
    pub fn clear_services(&self) {
        let services = core::mem::take(&mut self.state.lock().services);
        drop(services);
    }

    /// The calling client computes for `ns` nanoseconds: others run, events happen.
    pub fn advance(&self, ns: u64) {
        self.pause(ns, "the end of its computing");
    }

    /// The calling client sleeps for `ns` nanoseconds.
    pub fn sleep(&self, ns: u64) {
        self.pause(ns, "the end of its sleep");
    }

    /// Lets every other ready client run once before the calling one goes on. Time stands still.
    pub fn yield_now(&self) {
        let (id, implicit) = self.me();
        let mut state = self.state.lock();
        if implicit {
            state.add_client(id, "a thread");
        }
        state.ready.push_back(id);
        self.wait_for_turn(state, id, implicit);
    }

    /// How many times a client was given the turn, and events happened.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.state.lock().turns
    }

    /// A digest of who ran when: equal for equal runs.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.state.lock().digest
    }

    fn pause(&self, ns: u64, what: &'static str) {
        let until = self.now().after_nanos(ns);
        let cell = WaitCell::new();
        while self.now() < until {
            if self.park(&cell, Some(until), WaitFor::Other(what)) == Woken::Stalled {
                return;
            }
        }
    }

    /// The calling thread's number here, and whether it is no client.
    fn me(&self) -> (u64, bool) {
        let (clock, id) = CLIENT.get();
        let nested = IN_EVENT.get();
        if clock == self.address() && !nested {
            return (id, false);
        }
        let mut state = self.state.lock();
        state.sequence += 1;
        (state.sequence, true)
    }

    fn address(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    /// Makes a client that is ready, for a thread that will call [`VirtualClock::enter`].
    pub(super) fn add_client(&self, name: &str) -> u64 {
        let mut state = self.state.lock();
        state.sequence += 1;
        let id = state.sequence;
        state.add_client(id, name);
        state.ready.push_back(id);
        id
    }

    /// The calling thread is the client `id` from now on. Waits for its first turn.
    pub(super) fn enter(&self, id: u64) {
        CLIENT.set((self.address(), id));
        let mut state = self.state.lock();
        let turn = Arc::clone(&state.clients[&id].turn);
        while state.running != Some(id) {
            turn.wait(&mut state);
        }
    }

    /// The client `id` is over, which is the calling thread's or never had one. Passes the turn on.
    pub(super) fn leave(&self, id: u64) {
        if CLIENT.get() == (self.address(), id) {
            CLIENT.set((0, 0));
        }
        let mut state = self.state.lock();
        state.ready.retain(|ready| *ready != id);
        // It is parked still if a panic went through its park.
        let parked = state.clients.remove(&id).and_then(|c| c.parked);
        if let Some(key) = parked.and_then(|p| p.deadline) {
            state.events.remove(&key);
        }
        if state.running == Some(id) {
            state.running = None;
        }
        drop(self.pass_turn(state));
    }

    /// Gives the turn away and sleeps until `id` has it again. Answers how it was woken.
    fn wait_for_turn<'a>(&'a self, mut state: Guard<'a>, id: u64, implicit: bool) -> Woken {
        // An event or a service that sleeps: others run meanwhile, and so do further events.
        let nested = IN_EVENT.replace(false);
        if nested {
            state.driving = false;
        } else if state.running == Some(id) {
            state.running = None;
        }
        let turn = Arc::clone(&state.clients[&id].turn);
        loop {
            if state.running.is_none() && !state.driving {
                state = self.pass_turn(state);
            }
            if state.running == Some(id) {
                break;
            }
            turn.wait(&mut state);
        }
        let woken = state.clients[&id].woken;
        if implicit {
            state.clients.remove(&id);
            state.running = None;
            if nested {
                state.driving = true;
            } else {
                state.hand_on_or_nudge();
            }
        }
        let panic = state.panic.take();
        drop(state);
        IN_EVENT.set(nested);
        STALLED.set(woken == Woken::Stalled);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        woken
    }

    /// Finds out who runs next, making events happen until somebody can.
    fn pass_turn<'a>(&'a self, mut state: Guard<'a>) -> Guard<'a> {
        let mut settled = false;
        while state.running.is_none() && !state.driving {
            if state.hand_on() || state.clients.is_empty() {
                break;
            }
            if !settled {
                settled = true;
                state = self.step_services(state);
                continue;
            }
            let Some(((at, sequence), event)) = state.events.pop_first() else {
                if state.declare_stall() {
                    continue;
                }
                break;
            };
            state.now = state.now.max(at);
            self.now.store(state.now, Ordering::Relaxed);
            state.note(sequence);
            settled = false;
            state = match event {
                Event::Deadline(id) => {
                    state.wake(id, Woken::TimedOut);
                    state
                }
                Event::Call(call) => {
                    let now = Time::from_nanos(state.now);
                    let state = self.outside(state, || call(now));
                    self.step_services(state)
                }
            };
        }
        state
    }

    /// Steps all services until all are idle.
    fn step_services<'a>(&'a self, mut state: Guard<'a>) -> Guard<'a> {
        if state.services.is_empty() || state.stepping {
            return state;
        }
        state.stepping = true;
        let services = state.services.clone();
        let mut state = self.outside(state, || {
            let mut steps = 0;
            while services.iter().any(|s| s.step() == Progress::Did) {
                steps += 1;
                assert!(
                    steps < STEPS,
                    "a service always finds work: {:?}",
                    services.iter().map(|s| s.name()).collect::<Vec<_>>()
                );
            }
        });
        state.stepping = false;
        state
    }

    /// Runs `call` without the lock, while nobody has the turn.
    fn outside<'a>(&'a self, mut state: Guard<'a>, call: impl FnOnce()) -> Guard<'a> {
        state.driving = true;
        drop(state);
        let before = IN_EVENT.replace(true);
        let result = catch_unwind(AssertUnwindSafe(call));
        IN_EVENT.set(before);
        let mut state = self.state.lock();
        state.driving = false;
        if let Err(panic) = result {
            state.panic.get_or_insert(panic);
        }
        state
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Time {
        Time::from_nanos(self.now.load(Ordering::Relaxed))
    }

    /// A deadline that has passed still lets everybody else who is ready run first.
    fn park(&self, cell: &Arc<WaitCell>, deadline: Option<Time>, what: WaitFor) -> Woken {
        let (id, implicit) = self.me();
        let mut state = self.state.lock();
        if cell.take_token() {
            return Woken::Notified;
        }
        if implicit {
            state.add_client(id, "a thread");
        }
        state.park(id, cell, deadline, what);
        self.wait_for_turn(state, id, implicit)
    }

    fn unpark(&self, cell: &Arc<WaitCell>) {
        let mut state = self.state.lock();
        match state.sleeper(cell) {
            Some(id) => {
                state.wake(id, Woken::Notified);
                if state.running.is_none() && !state.driving {
                    state.hand_on_or_nudge();
                }
            }
            None => cell.notify(),
        }
    }

    fn takes_turns(&self) -> bool {
        true
    }

    /// The thread that has the turn is the one that waits: no other runs. Where none has it, as among
    /// threads that are no clients, the caller is itself.
    fn on_behalf(&self, work: &mut dyn FnMut()) {
        struct Back((usize, u64));
        impl Drop for Back {
            fn drop(&mut self) {
                CLIENT.set(self.0);
            }
        }
        let running = self.state.lock().running;
        let _back = Back(CLIENT.get());
        if let Some(id) = running {
            CLIENT.set((self.address(), id));
        }
        work();
    }

    fn tick(&self, n: u64) -> u64 {
        self.ticks.fetch_add(n, Ordering::Relaxed) + n
    }

    /// Who is parked; for a thread whose last park stalled, who was parked at the stall.
    fn wait_graph(&self) -> String {
        let state = self.state.lock();
        if STALLED.get() {
            state.stall.clone()
        } else {
            state.graph()
        }
    }
}

impl fmt::Debug for VirtualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VirtualClock({:?})", self.now())
    }
}

impl State {
    fn add_client(&mut self, id: u64, name: &str) {
        let client = Client {
            name: name.into(),
            turn: Arc::new(Condvar::new()),
            parked: None,
            woken: Woken::Notified,
        };
        self.clients.insert(id, client);
    }

    fn add_event(&mut self, at: u64, event: Event) -> (u64, u64) {
        self.sequence += 1;
        let key = (at.max(self.now), self.sequence);
        self.events.insert(key, event);
        key
    }

    fn park(&mut self, id: u64, cell: &Arc<WaitCell>, deadline: Option<Time>, what: WaitFor) {
        let deadline = deadline
            .filter(|at| *at != Time::NEVER)
            .map(|at| self.add_event(at.nanos(), Event::Deadline(id)));
        let parked = Parked {
            cell: Some(Arc::clone(cell)),
            what,
            since: self.now,
            deadline,
        };
        self.client(id).parked = Some(parked);
    }

    fn client(&mut self, id: u64) -> &mut Client {
        self.clients.get_mut(&id).expect("a client that is there")
    }

    /// Who sleeps at `cell`: the one who was a client first.
    fn sleeper(&self, cell: &Arc<WaitCell>) -> Option<u64> {
        let here = |parked: &Parked| parked.cell.as_ref().is_some_and(|c| Arc::ptr_eq(c, cell));
        let mut clients = self.clients.iter();
        clients
            .find(|(_, client)| client.parked.as_ref().is_some_and(here))
            .map(|(id, _)| *id)
    }

    /// A parked client becomes ready.
    fn wake(&mut self, id: u64, woken: Woken) {
        let client = self.client(id);
        client.woken = woken;
        let parked = client.parked.take().expect("only parked clients are woken");
        if let Some(key) = parked.deadline {
            self.events.remove(&key);
        }
        self.ready.push_back(id);
    }

    /// Gives the turn to a ready client. Answers whether there was one.
    fn hand_on(&mut self) -> bool {
        let Some(id) = self.next_ready() else {
            return false;
        };
        self.note(id);
        self.running = Some(id);
        self.client(id).turn.notify_all();
        true
    }

    /// For a thread that goes on without the turn: if nobody is ready, somebody who is parked
    /// has to make events happen.
    fn hand_on_or_nudge(&mut self) {
        if !self.hand_on()
            && let Some(client) = self.clients.values().find(|c| c.parked.is_some())
        {
            client.turn.notify_all();
        }
    }

    fn next_ready(&mut self) -> Option<u64> {
        if self.shuffle == 0 || self.ready.len() < 2 {
            return self.ready.pop_front();
        }
        self.shuffle ^= self.shuffle << 13;
        self.shuffle ^= self.shuffle >> 7;
        self.shuffle ^= self.shuffle << 17;
        let n = (self.shuffle % self.ready.len() as u64) as usize;
        self.ready.remove(n)
    }

    /// Nothing will happen by itself any more: wakes everybody. Answers whether there was anybody.
    fn declare_stall(&mut self) -> bool {
        let stuck: Vec<u64> = self
            .clients
            .iter()
            .filter(|(_, c)| c.parked.as_ref().is_some_and(|p| p.what != SCOPE))
            .map(|(id, _)| *id)
            .collect();
        self.stall = self.graph();
        for id in &stuck {
            self.wake(*id, Woken::Stalled);
        }
        !stuck.is_empty()
    }

    fn graph(&self) -> String {
        let mut text = String::new();
        for client in self.clients.values() {
            let Some(parked) = &client.parked else {
                continue;
            };
            let since = Time::from_nanos(parked.since);
            let _ = match parked.what {
                WaitFor::Reservation { holder } => writeln!(
                    text,
                    "{} waits since {since:?} for a reservation of the transaction of age {holder}",
                    client.name
                ),
                WaitFor::Fence { timeline, seqno } => writeln!(
                    text,
                    "{} waits since {since:?} for point {seqno} of timeline {timeline}",
                    client.name
                ),
                WaitFor::Claim => writeln!(
                    text,
                    "{} waits since {since:?} for space that an older transaction claims",
                    client.name
                ),
                WaitFor::Work => writeln!(text, "{} waits since {since:?} for work", client.name),
                WaitFor::Other(what) => {
                    writeln!(text, "{} waits since {since:?} for {what}", client.name)
                }
            };
        }
        text
    }

    /// Folds who or what is next into the digest.
    fn note(&mut self, what: u64) {
        self.turns += 1;
        for word in [self.now, what] {
            self.digest = (self.digest ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
