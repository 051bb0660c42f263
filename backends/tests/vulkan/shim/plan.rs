//! What is to fail, and when.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use ash::vk;
use ttm::sync::{Mutex, MutexGuard};

/// The calls that can fail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Call {
    Allocate,
    Import,
    Map,
    Submit,
    BindSparse,
    QueueIdle,
    CreateBuffer,
    BindBuffer,
    CreateImage,
    BindImage,
    CreateSemaphore,
    Counter,
    Wait,
    Signal,
    CreatePool,
    AllocateCommands,
    Begin,
    End,
    HostPointer,
    MemoryFd,
    ImportSemaphore,
}

impl Call {
    /// Those that say that the device is lost, once it is.
    fn tells_loss(self) -> bool {
        matches!(
            self,
            Self::Submit | Self::BindSparse | Self::QueueIdle | Self::Counter | Self::Wait
        )
    }
}

/// From the `nth` call from now on (1: the next), once or for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) call: Call,
    pub(crate) nth: u64,
    pub(crate) result: vk::Result,
    pub(crate) forever: bool,
}

#[derive(Default)]
pub(crate) struct Plan {
    rules: Vec<Rule>,
    counts: BTreeMap<Call, u64>,
    lost: bool,
    /// Failures that were injected, ever.
    injected: u64,
    /// The most bytes of allocations, imports apart.
    pub(crate) most_bytes: Option<u64>,
    /// The most imports.
    pub(crate) most_imports: Option<usize>,
    /// Live allocations: bytes, and whether it is an import.
    live: BTreeMap<vk::DeviceMemory, (u64, bool)>,
    /// What the driver says of each heap's budget.
    pub(crate) budget: Option<u64>,
    /// Whether the device's memory looks as if the CPU did not reach it, beside memory of the host's
    /// that it does reach.
    pub(crate) hidden: bool,
    /// Whether semaphores go out and come in, which is played.
    pub(crate) semaphore_fds: bool,
}

pub(crate) fn plan() -> MutexGuard<'static, Plan> {
    static PLAN: OnceLock<Mutex<Plan>> = OnceLock::new();
    PLAN.get_or_init(Mutex::default).lock()
}

/// Nothing fails any more; what was counted is forgotten.
pub(crate) fn calm() {
    let mut plan = plan();
    *plan = Plan {
        injected: plan.injected,
        live: core::mem::take(&mut plan.live),
        ..Plan::default()
    };
}

pub(crate) fn arm(rule: Rule) {
    plan().rules.push(rule);
}

/// The next such call fails once.
pub(crate) fn once(call: Call, result: vk::Result) {
    arm(Rule {
        call,
        nth: 1,
        result,
        forever: false,
    });
}

/// No rule any more; counts, and a loss, stay.
pub(crate) fn disarm() {
    plan().rules.clear();
}

pub(crate) fn count(call: Call) -> u64 {
    plan().counts.get(&call).copied().unwrap_or(0)
}

pub(crate) fn forget_counts() {
    plan().counts.clear();
}

pub(crate) fn injected() -> u64 {
    plan().injected
}

/// Bytes that are allocated, imports apart; and imports.
pub(crate) fn live() -> (u64, usize) {
    let plan = plan();
    let bytes = plan.live.values().filter(|m| !m.1).map(|m| m.0).sum();
    (bytes, plan.live.values().filter(|m| m.1).count())
}

impl Plan {
    /// Counts a call, and answers with what it fails.
    pub(super) fn turn(&mut self, call: Call) -> Option<vk::Result> {
        *self.counts.entry(call).or_default() += 1;
        let mut fails = None;
        self.rules.retain_mut(|rule| {
            if rule.call != call {
                return true;
            }
            rule.nth = rule.nth.saturating_sub(1);
            if rule.nth == 0 && fails.is_none() {
                fails = Some(rule.result);
                return rule.forever;
            }
            true
        });
        self.lost |= fails == Some(vk::Result::ERROR_DEVICE_LOST);
        if self.lost && call.tells_loss() {
            fails = Some(vk::Result::ERROR_DEVICE_LOST);
        }
        self.injected += u64::from(fails.is_some());
        fails
    }

    /// The same for an allocation, which limits forbid too.
    pub(super) fn allocates(&mut self, bytes: u64, import: bool) -> Option<vk::Result> {
        let call = match import {
            true => Call::Import,
            false => Call::Allocate,
        };
        if let Some(result) = self.turn(call) {
            return Some(result);
        }
        let same = || self.live.values().filter(|m| m.1 == import);
        let bytes = bytes + same().map(|m| m.0).sum::<u64>();
        let refused = match import {
            true => (self.most_imports.is_some_and(|most| same().count() >= most))
                .then_some(vk::Result::ERROR_TOO_MANY_OBJECTS),
            false => (self.most_bytes.is_some_and(|most| bytes > most))
                .then_some(vk::Result::ERROR_OUT_OF_DEVICE_MEMORY),
        };
        self.injected += u64::from(refused.is_some());
        refused
    }

    pub(super) fn allocated(&mut self, memory: vk::DeviceMemory, bytes: u64, import: bool) {
        self.live.insert(memory, (bytes, import));
    }

    pub(super) fn freed(&mut self, memory: vk::DeviceMemory) {
        self.live.remove(&memory);
    }
}
