//! A BO cache: objects that their users have done with, kept as they are for whoever wants the like.
//!
//! Making an object, finding it a place, and giving both back costs many times what using it does. Who
//! makes and drops objects of a few kinds all the time, such as command buffers, uploads and scratch
//! memory, lays them by instead:
//!
//! ```text
//!   take(kind) ── there is one ─────────────────────▶ where it was, bound as it was
//!       │             └─ somebody needed the room ──▶ it is dropped, the next one is looked at
//!       └─ none: make one
//!   put(kind, object) ── it can be another's ──▶ laid by, as content that nobody needs
//!                     └─ it cannot ────────────▶ dropped
//! ```
//!
//! What lies here takes room from nobody: it is [content that nobody needs](Advice::DontNeed), which
//! leaves before everything else, and without being copied. A cache has a limit of bytes all the same,
//! and its [service](BoCache::service) drops what nobody came for.
//!
//! ```
//! use core::time::Duration;
//! use ttm::bo::BoInfo;
//! use ttm::bo_cache::BoCache;
//! use ttm::context::OpContext;
//! use ttm::fixture::{device, vram};
//!
//! # fn main() -> ttm::Result<()> {
//! let (device, _) = device();
//! let cache = BoCache::new(&device, 1 << 20, Duration::from_secs(1));
//! let make = || device.create(BoInfo::new(8192), ());
//!
//! let scratch = cache.take_or(&8192, make)?;
//! device.exec(OpContext::new(), |t| t.lock(&scratch)?.validate(&vram()))?;
//! let id = scratch.id();
//! assert!(cache.put(8192, scratch));
//!
//! let again = cache.take_or(&8192, make)?;
//! assert_eq!(again.id(), id, "the same object, and it is still in VRAM");
//! assert_eq!(cache.usage().hits, 1);
//! # Ok(())
//! # }
//! ```

use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use crate::bo::Bo;
use crate::clock::{Background, Service, Time, WaitCell};
use crate::device::{Device, DeviceCore};
use crate::driver::Driver;
use crate::error::Result;
use crate::sync::{Arc, Mutex};

#[cfg(doc)]
use crate::driver::Advice;

/// Objects by kind. What a kind is, `K`, is its user's: all that he would look at to tell whether an
/// object will do, its size, usage and placement.
///
/// A cache is for one user: what an object holds when it comes out is what it held when it was put in,
/// and so are its priority, and the group that it is charged to. Fences of work that still uses it are
/// in its reservation, where a submission finds them.
///
/// It keeps its device from [closing](Device::close) while there is something in it:
/// [clear](BoCache::clear) it first.
pub struct BoCache<D: Driver, K> {
    inner: Arc<Inner<D, K>>,
}

struct Inner<D: Driver, K> {
    device: Arc<DeviceCore>,
    idle: Duration,
    shelves: Mutex<Shelves<D, K>>,
    bell: Arc<WaitCell>,
}

struct Shelves<D: Driver, K> {
    /// Of each kind, what was put in first to last.
    kinds: BTreeMap<K, VecDeque<Kept<D>>>,
    limit: u64,
    /// How many were ever put in.
    put: u64,
    usage: BoCacheUsage,
}

struct Kept<D: Driver> {
    bo: Bo<D>,
    /// How many were put in before it.
    number: u64,
    /// When the service saw it first.
    since: Option<Time>,
}

/// What a cache holds, and how it went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BoCacheUsage {
    /// Objects that lie here.
    pub objects: u64,
    /// Their bytes, in whole pages.
    pub bytes: u64,
    /// Objects that were asked for and taken out.
    pub hits: u64,
    /// Objects that were asked for when there was none.
    pub misses: u64,
    /// Objects that were found to have left their place, and dropped.
    pub gone: u64,
    /// Objects that could not be another's, and were dropped instead of put in.
    pub refused: u64,
    /// Objects that were dropped because nobody came for them, or for the limit.
    pub trimmed: u64,
}

impl<D: Driver, K: Ord + Send + 'static> BoCache<D, K> {
    /// An empty cache of at most `limit` bytes, whose [service](BoCache::service) drops what has lain
    /// there for `idle`.
    #[must_use]
    pub fn new(device: &Device<D>, limit: u64, idle: Duration) -> Self {
        Self {
            inner: Arc::new(Inner {
                device: Arc::clone(&device.core),
                idle,
                shelves: Mutex::new(Shelves {
                    kinds: BTreeMap::new(),
                    limit,
                    put: 0,
                    usage: BoCacheUsage::default(),
                }),
                bell: WaitCell::new(),
            }),
        }
    }

    /// Takes out the object of a kind that was put in last, if there is one that is still where it was.
    ///
    /// Takes the cache's lock and, for a moment, the object's reservation; waits for nothing. Must not
    /// be called from a driver's answer.
    #[inline]
    pub fn take(&self, kind: &K) -> Option<Bo<D>> {
        loop {
            let bo = self.inner.shelves.lock().take(kind)?;
            if bo.core.take_spare() {
                return Some(bo);
            }
            self.inner.shelves.lock().usage.gone_instead();
        }
    }

    /// The same, or what `make` makes.
    ///
    /// # Errors
    /// Those of `make`.
    #[inline]
    pub fn take_or(&self, kind: &K, make: impl FnOnce() -> Result<Bo<D>>) -> Result<Bo<D>> {
        match self.take(kind) {
            Some(bo) => Ok(bo),
            None => make(),
        }
    }

    /// Lays an object by for the next who asks for the kind; whoever did uses no handle or address of it any
    /// more. Answers false if it was dropped instead,
    /// because it
    /// - has other handles, windows or borrowers, or is locked by somebody;
    /// - is pinned, in a bulk group, shares its reservation, or is in frames that a user brought;
    /// - is nowhere, or what it held is lost;
    /// - is not [reusable](Driver::reusable), says its driver;
    /// - is of another device, or larger than the limit.
    ///
    /// What is over the limit then goes, the oldest first. Takes the object's reservation for a moment,
    /// and the cache's lock; waits for nothing. Must not be called from a driver's answer.
    #[inline]
    pub fn put(&self, kind: K, bo: Bo<D>) -> bool {
        let bytes = bo.pages().bytes();
        let ours = Arc::ptr_eq(&bo.core.device, &self.inner.device);
        let spare = ours && bo.handles() == 1 && bo.core.set_spare();
        let mut shelves = self.inner.shelves.lock();
        if !spare || bytes > shelves.limit {
            shelves.usage.refused += 1;
            return false;
        }
        let over = shelves.put(kind, bo, bytes);
        drop(shelves);
        drop(over);
        true
    }

    /// Changes the limit, in bytes; what is over it goes, the oldest first.
    pub fn set_limit(&self, limit: u64) {
        let over = {
            let mut shelves = self.inner.shelves.lock();
            shelves.limit = limit;
            shelves.take_over_limit()
        };
        drop(over);
    }

    /// Drops everything that lies here.
    pub fn clear(&self) {
        let all = self.inner.shelves.lock().take_all(|_| true);
        drop(all);
    }

    /// What lies here, and how it went.
    #[must_use]
    pub fn usage(&self) -> BoCacheUsage {
        self.inner.shelves.lock().usage
    }

    /// Background work, for the host's threads: drops what has lain here for too long. Ends with the
    /// cache.
    #[must_use]
    pub fn service(&self) -> Arc<dyn Service> {
        let inner = &self.inner;
        Arc::new(Background::new("BO cache", inner, &inner.bell, Inner::trim))
    }

    /// Whether the cache is as it should be: its sums, and that nobody else has what lies here.
    ///
    /// # Errors
    /// What is not.
    pub fn check(&self) -> core::result::Result<(), String> {
        self.inner.shelves.lock().check()
    }
}

impl<D: Driver, K: Ord> Inner<D, K> {
    /// Drops what was here when the service came by a while ago. Answers whether there was something.
    fn trim(&self) -> bool {
        let now = self.device.clock.now();
        let old = self.shelves.lock().take_all(|kept| {
            let since = *kept.since.get_or_insert(now);
            now.since(since) >= self.idle
        });
        !old.is_empty()
    }
}

impl<D: Driver, K: Ord> Shelves<D, K> {
    #[inline]
    fn take(&mut self, kind: &K) -> Option<Bo<D>> {
        let kept = self.kinds.get_mut(kind).and_then(VecDeque::pop_back);
        let Some(Kept { bo, .. }) = kept else {
            self.usage.misses += 1;
            return None;
        };
        self.usage.hits += 1;
        self.usage.left(&bo);
        Some(bo)
    }

    /// Answers what is over the limit, to be dropped without the lock.
    #[inline]
    fn put(&mut self, kind: K, bo: Bo<D>, bytes: u64) -> Vec<Bo<D>> {
        let kept = Kept {
            bo,
            number: self.put,
            since: None,
        };
        self.put += 1;
        self.kinds.entry(kind).or_default().push_back(kept);
        self.usage.objects += 1;
        self.usage.bytes += bytes;
        self.take_over_limit()
    }

    #[inline]
    fn take_over_limit(&mut self) -> Vec<Bo<D>> {
        let mut over = Vec::new();
        while self.usage.bytes > self.limit {
            let age = |kind: &VecDeque<Kept<D>>| kind.front().map_or(u64::MAX, |kept| kept.number);
            let oldest = self.kinds.values_mut().min_by_key(|kind| age(kind));
            let Some(kept) = oldest.and_then(VecDeque::pop_front) else {
                break;
            };
            self.usage.left(&kept.bo);
            self.usage.trimmed += 1;
            over.push(kept.bo);
        }
        over
    }

    /// Takes out all of which `goes` says so, to be dropped without the lock.
    fn take_all(&mut self, mut goes: impl FnMut(&mut Kept<D>) -> bool) -> Vec<Bo<D>> {
        let mut out = Vec::new();
        self.kinds.retain(|_, kind| {
            for _ in 0..kind.len() {
                let Some(mut kept) = kind.pop_front() else {
                    break;
                };
                if goes(&mut kept) {
                    out.push(kept.bo);
                } else {
                    kind.push_back(kept);
                }
            }
            !kind.is_empty()
        });
        for bo in &out {
            self.usage.left(bo);
            self.usage.trimmed += 1;
        }
        out
    }

    fn check(&self) -> core::result::Result<(), String> {
        let (mut objects, mut bytes) = (0, 0);
        for kept in self.kinds.values().flatten() {
            objects += 1;
            bytes += kept.bo.pages().bytes();
            if kept.bo.handles() != 1 {
                let id = kept.bo.id();
                return Err(format!(
                    "somebody else has object {id}, which lies in a cache"
                ));
            }
        }
        let sums = (self.usage.objects, self.usage.bytes);
        if sums != (objects, bytes) || bytes > self.limit {
            return Err(format!(
                "a cache of at most {} bytes holds {objects} objects of {bytes} bytes, and counts {sums:?}",
                self.limit
            ));
        }
        Ok(())
    }
}

impl BoCacheUsage {
    fn left<D: Driver>(&mut self, bo: &Bo<D>) {
        self.objects -= 1;
        self.bytes -= bo.pages().bytes();
    }

    /// What was taken out just now was not there any more.
    fn gone_instead(&mut self) {
        self.hits -= 1;
        self.gone += 1;
    }
}

impl<D: Driver, K> fmt::Debug for BoCache<D, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BoCache({:?})", self.inner.shelves.lock().usage)
    }
}
