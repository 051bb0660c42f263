//! What an object holds while it is moved about, and whether it still does.

use ttm::bo::Bo;
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::driver::Driver;

/// Writes the whole object.
///
/// # Errors
/// Those of the device.
pub fn write<D: Driver>(device: &Device<D>, bo: &Bo<D>) -> ttm::Result<()> {
    let bytes: Vec<u8> = (0..bo.bytes()).map(byte).collect();
    device.exec(OpContext::new(), |t| t.lock(bo)?.write(0, &bytes))?;
    Ok(())
}

/// Whether it holds what [`write()`] wrote.
///
/// # Errors
/// Those of the device.
pub fn is_whole<D: Driver>(device: &Device<D>, bo: &Bo<D>) -> ttm::Result<bool> {
    let mut bytes = vec![0; usize::try_from(bo.bytes()).unwrap_or(usize::MAX)];
    device.exec(OpContext::new(), |t| t.lock(bo)?.read(0, &mut bytes))?;
    Ok((0..).zip(&bytes).all(|(at, &found)| found == byte(at)))
}

/// The byte at an offset: none of its repetitions is a page.
fn byte(at: u64) -> u8 {
    (at % 251) as u8 ^ (at >> 12) as u8
}
