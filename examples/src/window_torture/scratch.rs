//! An object that only the mover has: it is pinned, let go, and thrown away.

use placement::{MemType, PAGE_SIZE, Place, Placement};
use ttm::Error;
use ttm::bo::{Bo, BoInfo};
use ttm::context::OpContext;
use ttm::map::{MapInfo, Window};

use backends::sim::SimDriver;

use crate::rig::Rig;

const PAGES: u64 = 16;

/// What is written; no word of the torture's.
const MARK: u64 = 0xffff_f0f0_0f0f_5a5a;

/// Makes one, and answers what is wrong with it.
pub(crate) fn use_up(rig: &Rig) -> ttm::Result<Result<(), String>> {
    let bo = rig.device().create(BoInfo::new(PAGES * PAGE_SIZE), ())?;
    let window = rig.windows().map(&bo, MapInfo::whole())?;
    window.write_at(PAGE_SIZE, &MARK.to_le_bytes())?;
    if let Err(wrong) = stays(rig, &bo, &window)? {
        return Ok(Err(wrong));
    }
    drop(window);
    let window = rig.windows().map(&bo, MapInfo::whole())?;
    go(rig, &bo, &inside(rig))?;
    if word(&window)? != MARK {
        return Ok(Err(
            "an object that was pinned has lost what was written".into()
        ));
    }
    go(rig, &bo, &Placement::new())?;
    let found = word(&window)?;
    if found != 0 {
        let wrong = format!("an object that was thrown away has {found:#018x} instead of zeroes");
        return Ok(Err(wrong));
    }
    if rig.abilities().loads_wait {
        let found = window.words()?[(PAGE_SIZE / 8) as usize].load();
        if found != 0 {
            let wrong = format!("its window has {found:#018x} instead of zeroes");
            return Ok(Err(wrong));
        }
    }
    Ok(Ok(()))
}

/// Who pins it, or has an address that cannot wait, has it stay where it is.
fn stays(
    rig: &Rig,
    bo: &Bo<SimDriver>,
    window: &Window<SimDriver>,
) -> ttm::Result<Result<(), String>> {
    let pin = match rig.abilities().loads_wait {
        true => Some(window.pin()?),
        false => None,
    };
    // This pins it where nothing waits.
    let found = window.words()?[(PAGE_SIZE / 8) as usize].load();
    if found != MARK {
        return Ok(Err(format!(
            "a fresh object has {found:#018x}, not what was written"
        )));
    }
    let moved = go(rig, bo, &inside(rig));
    drop(pin);
    Ok(match moved {
        Err(Error::Pinned) => Ok(()),
        Err(error) => Err(format!("a pinned object was refused with: {error}")),
        Ok(()) => Err("a pinned object was moved".into()),
    })
}

fn inside(rig: &Rig) -> Placement {
    Placement::of(Place::new(MemType::VRAM).within(rig.aperture()))
}

fn go(rig: &Rig, bo: &Bo<SimDriver>, placement: &Placement) -> ttm::Result<()> {
    let device = rig.device();
    device
        .exec(OpContext::new(), |t| t.lock(bo)?.validate(placement))
        .map(drop)
}

fn word(window: &Window<SimDriver>) -> ttm::Result<u64> {
    let mut bytes = [0; 8];
    window.read_at(PAGE_SIZE, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
