//! An object under torture, and the windows that threads look at it through.

use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};

use backends::sim::SimDriver;
use placement::PAGE_SIZE;
use ttm::bo::{Bo, BoInfo};
use ttm::device::Device;
use ttm::map::{Access, MapInfo, Window, Windows, Word, WordMut};

use crate::gap::Move;
use crate::slots::{Slots, WORDS};

/// An object, its windows, and what is being done to it.
pub(crate) struct Object {
    pub(crate) slots: Slots,
    /// Which of the sizes it has.
    pub(crate) size: usize,
    /// The move that was begun last.
    last_move: AtomicU8,
    windows: Vec<Window<SimDriver>>,
    pub(crate) bo: Bo<SimDriver>,
}

impl Object {
    /// An object of `pages` pages with three windows: of all of it, of a part, and for reading.
    pub(crate) fn new(
        device: &Device<SimDriver>,
        windows: &Windows<SimDriver>,
        slots: Slots,
        size: usize,
        pages: u64,
    ) -> ttm::Result<Self> {
        let bo = device.create(BoInfo::new(pages * PAGE_SIZE), ())?;
        // Where there is more than one page the part begins at an odd one.
        let part = u64::from(pages > 1)..pages;
        let infos = [
            MapInfo::whole(),
            MapInfo::whole().pages(part),
            MapInfo::whole().access(Access::Read),
        ];
        let windows = infos.into_iter().map(|info| windows.map(&bo, info));
        Ok(Self {
            slots,
            size,
            last_move: AtomicU8::new(Move::First as u8),
            windows: windows.collect::<ttm::Result<_>>()?,
            bo,
        })
    }

    /// Tells the threads which move begins.
    pub(crate) fn begins(&self, what: Move) {
        // Relaxed: it only sorts figures.
        self.last_move.store(what as u8, Ordering::Relaxed);
    }

    /// The move that was begun last.
    pub(crate) fn last_move(&self) -> Move {
        Move::ALL[usize::from(self.last_move.load(Ordering::Relaxed))]
    }

    /// The window of all of it.
    pub(crate) fn whole(&self) -> &Window<SimDriver> {
        &self.windows[0]
    }

    /// Its windows as a thread uses them: by address if `by_address`, else by call.
    pub(crate) fn views(&self, by_address: bool) -> ttm::Result<Vec<View<'_>>> {
        let pages = self.bo.pages().get();
        let view = |(n, window)| {
            let first = if n == 1 { u64::from(pages > 1) } else { 0 };
            View::new(window, first * WORDS..pages * WORDS, by_address)
        };
        self.windows.iter().enumerate().map(view).collect()
    }
}

/// A window in use.
pub(crate) struct View<'a> {
    /// The object's words that it has.
    words: Range<u64>,
    how: How<'a>,
}

/// How its words are reached.
enum How<'a> {
    Load(&'a [Word]),
    Store(&'a [WordMut]),
    Call(&'a Window<SimDriver>),
}

impl<'a> View<'a> {
    fn new(
        window: &'a Window<SimDriver>,
        words: Range<u64>,
        by_address: bool,
    ) -> ttm::Result<Self> {
        let how = match window.access() {
            _ if !by_address => How::Call(window),
            Access::Read => How::Load(window.words()?),
            Access::ReadWrite => How::Store(window.words_mut()?),
        };
        Ok(Self { words, how })
    }

    /// The words of the object that it has.
    pub(crate) fn words(&self) -> Range<u64> {
        self.words.clone()
    }

    /// Whether it has this word of the object.
    pub(crate) fn has(&self, word: u64) -> bool {
        self.words.contains(&word)
    }

    /// A word of the object that it has.
    pub(crate) fn load(&self, word: u64) -> ttm::Result<u64> {
        let at = word - self.words.start;
        match self.how {
            How::Load(words) => Ok(words[at as usize].load()),
            How::Store(words) => Ok(words[at as usize].load()),
            How::Call(window) => {
                let mut bytes = [0; 8];
                window.read_at(at * 8, &mut bytes)?;
                Ok(u64::from_le_bytes(bytes))
            }
        }
    }

    /// Writes a word of the object that it has. It must not be for reading.
    pub(crate) fn store(&self, word: u64, value: u64) -> ttm::Result<()> {
        let at = word - self.words.start;
        match self.how {
            How::Load(_) => Err(ttm::Error::Invalid("the window is for reading only")),
            How::Store(words) => {
                words[at as usize].store(value);
                Ok(())
            }
            How::Call(window) => window.write_at(at * 8, &value.to_le_bytes()),
        }
    }
}
