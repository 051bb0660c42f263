//! Loom: a token that is used while its operation falls asleep wakes it.
#![cfg(loom)]

mod loom_model;

use loom::thread;
use ttm::Error;
use ttm::bo::BoInfo;
use ttm::context::{CancelToken, OpContext};
use ttm::fixture::device_of;

#[test]
fn no_sleeper_misses_its_token() {
    loom_model::explore(3, || {
        let device = device_of(1);
        let bo = device.create(BoInfo::new(4096), ()).unwrap();
        let held = device
            .exec(OpContext::new(), |t| t.lock(&bo).map(drop))
            .unwrap();
        let token = CancelToken::new();
        let waiter = {
            let (device, bo, token) = (device.clone(), bo.clone(), token.clone());
            thread::spawn(move || {
                let context = OpContext::new().cancelled_by(&token);
                device.exec(context, |t| t.lock(&bo).map(drop)).map(drop)
            })
        };
        token.cancel();
        // The reservation stays held until the waiter is back.
        assert!(matches!(waiter.join().unwrap(), Err(Error::Interrupted)));
        drop(held);
        assert!(!bo.is_locked());
    });
}
