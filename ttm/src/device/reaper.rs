//! The service that takes down what was released and what waited for a fence.

use crate::clock::{Progress, Service, WaitCell};
use crate::sync::{Arc, Weak};

use super::DeviceCore;

/// Reaps a device for as long as it lives.
pub(crate) struct Reaper {
    device: Weak<DeviceCore>,
    bell: Arc<WaitCell>,
}

impl Reaper {
    pub(crate) fn new(device: &Arc<DeviceCore>) -> Self {
        Self {
            device: Arc::downgrade(device),
            bell: Arc::clone(&device.bell),
        }
    }
}

impl Service for Reaper {
    fn name(&self) -> &'static str {
        "reaper"
    }

    fn step(&self) -> Progress {
        match self.device.upgrade() {
            Some(device) if device.reap() => Progress::Did,
            _ => Progress::Idle,
        }
    }

    fn bell(&self) -> &Arc<WaitCell> {
        &self.bell
    }
}
