//! A device that is refused for how it reaches memory, and one that gets pages within its reach.

use ttm::Error;
use ttm::device::{Device, DeviceBuilder};
use ttm::dma::{Coherency, Mask, Path, Tri, Verdict};
use ttm::fixture::{Counting, Nothing, still};

fn verdict() -> Verdict {
    Verdict::for_tests(Path::Direct)
}

fn builder() -> DeviceBuilder<Counting> {
    let pages = Nothing::new(placement::PageCount::new(1 << 20).unwrap());
    Device::builder(Counting, still()).pages(pages)
}

fn refusal(verdict: Verdict) -> String {
    let built = builder()
        .reaches(verdict)
        .require(Coherency::Streaming)
        .build();
    match built {
        Err(Error::NotCoherent(why)) => why.into(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_required_is_there_or_the_refusal_says_why_not() {
    let built = builder()
        .reaches(verdict())
        .require(Coherency::Streaming)
        .build();
    assert!(built.is_ok());
    let forced = Verdict {
        forced_bounce: Tri::Yes,
        ..verdict()
    };
    assert!(refusal(forced).contains("D09"));
    let deaf = Verdict {
        snoop: Tri::No,
        ..verdict()
    };
    assert!(refusal(deaf).contains("D21"));
    // Not knowing is not enough.
    assert!(refusal(Verdict::unknown("card")).contains("nothing says"));
    assert!(matches!(
        builder().require(Coherency::Streaming).build(),
        Err(Error::Invalid(_))
    ));
}

#[test]
fn a_narrow_device_gets_pages_within_its_reach_or_none_at_all() {
    let narrow = |bits| Verdict {
        mask: Mask::bits(bits),
        ..verdict()
    };
    // The source has no zone below 4 GiB to take them from.
    for bits in [28, 32] {
        let built = builder().reaches(narrow(bits)).build();
        assert!(matches!(built, Err(Error::NotCoherent(_))), "{built:?}");
    }
    assert!(refusal(narrow(28)).contains("28-bit mask"));
    let wide = builder()
        .reaches(narrow(35))
        .require(Coherency::Streaming)
        .build();
    assert!(wide.is_ok());
}
