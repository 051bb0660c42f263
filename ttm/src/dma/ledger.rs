//! Who mapped what, and who misused it: the checks that a kernel has for its drivers, for ours.
//!
//! ```text
//!   mapped ──▶ record (where, what, how) ──▶ checked, synced … ──▶ unmapped
//!                │ each is held against it; what does not fit is a Violation with both places
//!                └──▶ left when the device goes: a leak
//! ```
//!
//! A [`DmaDevice`](super::DmaDevice) that was given a ledger tells it everything by itself. Most of
//! the [`Class`]es cannot occur then, because the types do not let them; each says why. Whoever maps
//! by other means, or passes on calls from where there are no such types, tells the ledger himself,
//! and it finds all of them.
//!
//! Every call says where it was made. A ledger has room for so many records, and when that is used up
//! it switches itself off and says so: then [`Ledger::verdict`] fails as it does for a violation.

mod class;
mod event;
mod lines;
#[cfg(test)]
mod tests;

use core::fmt;
use core::panic::Location;
use std::collections::BTreeMap;

use crate::sync::Mutex;

pub use class::{Class, Typed};
pub use event::{Claim, Kind, Origin, Record, RecordAttrs, SyncTo, Synced, Ticket};

use super::{DmaSegment, SegmentParms};

type Site = &'static Location<'static>;

/// Something that should not have been done.
#[derive(Clone, Debug)]
pub struct Violation {
    /// What kind of thing.
    pub class: Class,
    /// Where it was mapped; `None` if it never was.
    pub map_site: Option<Site>,
    /// Where it was misused.
    pub site: Site,
    /// With figures.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}", self.class, self.site, self.text)?;
        match self.map_site {
            Some(site) => write!(f, " (mapped at {site})"),
            None => Ok(()),
        }
    }
}

/// Why a ledger is not content.
#[derive(Clone, Debug)]
pub struct Report {
    /// The first violations, in order.
    pub violations: Vec<Violation>,
    /// How many there were.
    pub total: u64,
    /// The records ran out, so what came later was not looked at.
    pub switched_off: bool,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} violations", self.total)?;
        if self.switched_off {
            f.write_str("; out of records, switched off: give it more room")?;
        }
        let mut all = self.violations.iter();
        all.try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}

impl core::error::Error for Report {}

/// Records of what is mapped, for as many devices as one likes. Its lock is a leaf.
///
/// ```
/// use ttm::dma::{AnyStreaming, Backing, Class, Direction, DmaError, Ledger, MapAttrs, dir};
/// use ttm::dma::fixture::{Machine, Platform};
/// use ttm::sync::Arc;
///
/// # fn main() -> Result<(), DmaError> {
/// let ledger = Arc::new(Ledger::new(1000));
/// let machine = Machine::with(Platform::Coherent, 1, |dma| dma.with_ledger(ledger.clone()));
/// let backing = Backing::alloc(&machine.source(), 4096, Default::default())?;
/// let mapped = machine.dma.map_streaming(backing, 0..4096, dir::To, &MapAttrs::new());
/// let mut table = AnyStreaming::from(mapped.map_err(|(_, error)| error)?);
/// assert!(ledger.verdict().is_ok());
///
/// // A sync from a device that only reads: an error, and a violation that both places are known of.
/// assert!(table.to_cpu(Direction::FromDevice).is_err());
/// assert_eq!(ledger.count(Class::SyncForCpuOfReadOnly), 1);
/// assert!(ledger.verdict().unwrap_err().to_string().starts_with("1 violations\n  L19"));
/// # Ok(())
/// # }
/// ```
pub struct Ledger {
    room: usize,
    strict: bool,
    inner: Mutex<Inner>,
}

struct Inner {
    /// By device, address and number.
    live: BTreeMap<(u64, u64, u64), Entry>,
    next: u64,
    counts: [u64; Class::ALL.len()],
    kept: Vec<Violation>,
    off: bool,
}

struct Entry {
    record: Record,
    site: Site,
    checked: bool,
}

/// What was found in one call.
type Found = Vec<(Class, Option<Site>, String)>;

/// Violations that are kept with their text.
const KEPT: usize = 100;

impl Ledger {
    /// A ledger with room for so many records at once.
    #[must_use]
    pub fn new(room: usize) -> Self {
        Self {
            room,
            strict: false,
            inner: Mutex::new(Inner {
                live: BTreeMap::new(),
                next: 0,
                counts: [0; Class::ALL.len()],
                kept: Vec::new(),
                off: false,
            }),
        }
    }

    /// Panics at the first violation, where it is made; not at what a drop finds, which would hide
    /// why things are dropped.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// Notes a mapping, with the segments that the device was given and what they have to be like.
    #[track_caller]
    pub fn mapped(&self, record: Record, segments: &[DmaSegment], parms: &SegmentParms) -> Ticket {
        let site = Location::caller();
        let (ticket, found) = {
            let mut inner = self.inner.lock();
            if inner.off {
                return Ticket(0);
            }
            if inner.live.len() >= self.room {
                inner.off = true;
                inner.live.clear();
                return Ticket(0);
            }
            let mut found = Found::new();
            record.check_origin(&mut found);
            event::check_segments(segments, parms, &mut found);
            let others = inner.live.values();
            lines::check(&record, others.map(|e| (&e.record, e.site)), &mut found);
            inner.next += 1;
            let ticket = inner.next;
            let key = (record.device, record.addr, ticket);
            let checked = false;
            inner.live.insert(
                key,
                Entry {
                    record,
                    site,
                    checked,
                },
            );
            (Ticket(ticket), found)
        };
        self.note(site, found, self.strict);
        ticket
    }

    /// Notes that somebody looked at whether a mapping had failed.
    pub fn checked(&self, ticket: Ticket) {
        let mut inner = self.inner.lock();
        let entry = inner.live.iter_mut().find(|(key, _)| key.2 == ticket.0);
        if let Some((_, entry)) = entry {
            entry.checked = true;
        }
    }

    /// Holds a sync against what is mapped there.
    #[track_caller]
    pub fn synced(&self, sync: &Synced) {
        let found = {
            let inner = self.inner.lock();
            if inner.off {
                return;
            }
            let mut found = Found::new();
            let below = inner
                .live
                .range((sync.device, 0, 0)..=(sync.device, sync.addr, u64::MAX));
            let entry = below.rev().map(|(_, entry)| entry);
            let entry = { entry }.find(|e| sync.addr < e.record.addr.saturating_add(e.record.len));
            match entry {
                None => found.push((
                    Class::SyncOfUnmapped,
                    None,
                    format!("nothing is mapped at {:#x}", sync.addr),
                )),
                Some(entry) => sync.check(&entry.record, entry.site, &mut found),
            }
            found
        };
        self.note(Location::caller(), found, self.strict);
    }

    /// Ends a record, and holds against it how it is ended.
    #[track_caller]
    pub fn unmapped(&self, claim: &Claim) {
        let found = {
            let mut inner = self.inner.lock();
            if inner.off {
                return;
            }
            let mut found = Found::new();
            let key = inner.find(claim);
            match key {
                _ if claim.record.addr == u64::MAX => found.push((
                    Class::FreeOfError,
                    None,
                    "the address is the one that says that mapping failed".into(),
                )),
                None => found.push((
                    Class::FreeOfUnmapped,
                    None,
                    format!("nothing is mapped at {:#x}", claim.record.addr),
                )),
                Some(key) => {
                    let entry = inner.live.remove(&key).expect("just found");
                    claim.check(&entry.record, entry.site, entry.checked, &mut found);
                }
            }
            found
        };
        self.note(Location::caller(), found, self.strict);
    }

    /// The device goes: what it has mapped is leaked. Never panics.
    #[track_caller]
    pub fn released(&self, device: u64) {
        let found = {
            let mut inner = self.inner.lock();
            let gone = inner
                .live
                .extract_if((device, 0, 0)..=(device, u64::MAX, u64::MAX), |_, _| true);
            gone.map(|(_, entry)| {
                let text = format!("{} is still mapped and its device goes", entry.record);
                (Class::Leak, Some(entry.site), text)
            })
            .collect()
        };
        self.note(Location::caller(), found, false);
    }

    /// Notes what no record is needed for. Never panics in a drop.
    #[track_caller]
    pub(super) fn offence(
        &self,
        class: Class,
        ticket: Option<Ticket>,
        text: String,
        in_drop: bool,
    ) {
        let map_site = ticket.and_then(|ticket| {
            let inner = self.inner.lock();
            let mut live = inner.live.iter();
            live.find(|(key, _)| key.2 == ticket.0)
                .map(|(_, entry)| entry.site)
        });
        let found = vec![(class, map_site, text)];
        self.note(Location::caller(), found, self.strict && !in_drop);
    }

    /// # Panics
    /// If it is told to, and something was found.
    fn note(&self, site: Site, found: Found, strict: bool) {
        let mut first = None;
        for (class, map_site, text) in found {
            let violation = Violation {
                class,
                map_site,
                site,
                text,
            };
            let mut inner = self.inner.lock();
            inner.counts[class as usize] += 1;
            if strict && first.is_none() {
                first = Some(violation.to_string());
            }
            if inner.kept.len() < KEPT {
                inner.kept.push(violation);
            }
        }
        if let Some(first) = first {
            panic!("{first}");
        }
    }

    /// How many violations of a class there were.
    #[must_use]
    pub fn count(&self, class: Class) -> u64 {
        self.inner.lock().counts[class as usize]
    }

    /// What is mapped now.
    #[must_use]
    pub fn live(&self) -> usize {
        self.inner.lock().live.len()
    }

    /// Whether all that was done was right, and looked at.
    ///
    /// # Errors
    /// What was not.
    pub fn verdict(&self) -> Result<(), Report> {
        let inner = self.inner.lock();
        let total = inner.counts.iter().sum();
        if total == 0 && !inner.off {
            return Ok(());
        }
        Err(Report {
            violations: inner.kept.clone(),
            total,
            switched_off: inner.off,
        })
    }
}

impl Inner {
    /// The record that a claim is about: that of its ticket, or the oldest at the address that fits
    /// best.
    fn find(&self, claim: &Claim) -> Option<(u64, u64, u64)> {
        let Record { device, addr, .. } = claim.record;
        let at = (device, addr, 0)..=(device, addr, u64::MAX);
        let here = self.live.range(at);
        match claim.ticket {
            Some(ticket) => here.map(|(key, _)| *key).find(|key| key.2 == ticket.0),
            None => here
                .min_by_key(|(_, entry)| claim.misfits(&entry.record))
                .map(|(key, _)| *key),
        }
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ledger({} live)", self.live())
    }
}
