//! Loom: no two charges share a page of the budget, and every charge is given back.
#![cfg(loom)]

mod loom_model;

use loom::sync::Arc;
use loom::thread;
use ttm::pages::Budget;
use ttm::placement::PageCount;

#[test]
fn charges_never_exceed_the_limit() {
    loom_model::explore(3, || {
        let pages = |n| PageCount::new(n).unwrap();
        let budget = Arc::new(Budget::new(pages(3)));
        let run = {
            let budget = Arc::clone(&budget);
            move || {
                let charged = budget.charge(pages(2), None).is_ok();
                if charged {
                    assert!(budget.used() >= pages(2) && budget.used() <= pages(3));
                    budget.uncharge(pages(2), None);
                }
                charged
            }
        };
        let other = thread::spawn(run.clone());
        let (ours, theirs) = (run(), other.join().unwrap());
        assert!(ours || theirs, "both were refused");
        assert_eq!(budget.used(), PageCount::ZERO);
        assert_eq!(budget.peak(), pages(2));
    });
}
