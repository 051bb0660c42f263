//! Every case there is, against the table.

use std::collections::BTreeMap;

use super::case::{Case, Ends, Lies, SkipSync, Way};
use super::*;
use crate::dma::{Mask, Path, Topic, Tri};

/// Calls `f` with every case.
fn every(mut f: impl FnMut(&Case)) {
    const BOTH: [bool; 2] = [false, true];
    let ways = [
        Way::Direct,
        Way::Identity,
        Way::Translated,
        Way::Owned(false),
        Way::Owned(true),
        Way::Unknown,
    ];
    for way in ways {
        for snoop in Tri::ALL {
            for lies in [Lies::Ours, Lies::Below, Lies::Above] {
                for ends in [Ends::Granule, Ends::Line, Ends::Neither] {
                    for skip in [SkipSync::No, SkipSync::Proven, SkipSync::Unproven] {
                        for bits in 0..1_u32 << 14 {
                            let bit = |n: u32| BOTH[(bits >> n & 1) as usize];
                            let case = Case {
                                way,
                                snoop,
                                lies,
                                ends,
                                skip,
                                asks_not_to: bit(0),
                                forced: bit(1),
                                // What is out of reach cannot be if everything is within it.
                                limited: bit(2) || lies == Lies::Above,
                                untrusted: bit(3),
                                encrypted: bit(4),
                                restricted: bit(5),
                                io_above: bit(6),
                                shared: bit(7),
                                persistent: bit(8),
                                device_writes: bit(9),
                                coherent: bit(10),
                                allow_bounce: bit(11),
                                pool: bit(12),
                                coherent_memory: bit(13),
                                mask: Mask::bits(32),
                                end: u64::MAX,
                            };
                            let impossible = case.asks_not_to
                                && snoop.is_yes() != (way == Way::Owned(true))
                                || way == Way::Owned(true) && !snoop.is_yes()
                                || way == Way::Unknown && snoop.is_yes();
                            if !impossible {
                                f(&case);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn every_case_has_a_row_and_every_row_a_case_and_none_is_unsafe() {
    let mut hits: BTreeMap<Code, u64> = BTreeMap::new();
    every(|case| {
        let row = table::row_of(case);
        *hits.entry(row.code).or_default() += 1;
        let decision = (row.decision)(case);
        let told = || format!("{}: {decision:?} of {case:?}", row.code);
        if decision == Decision::Streaming {
            assert_eq!(case.bounces(), None, "a copy is possible: {}", told());
            let by_contract = matches!(case.way, Way::Owned(_));
            assert!(case.snoop.is_yes() || by_contract, "{}", told());
            assert!(!case.snoop.is_no(), "{}", told());
        }
        if decision.copies() {
            assert!(case.can_be_copied() && case.allow_bounce, "{}", told());
        }
        if case.coherent {
            let keeps = !matches!(decision, Decision::Synced { .. } | Decision::Bounce);
            assert!(keeps, "demanded coherency: {}", told());
        }
        if decision == (Decision::Synced { copies: false }) {
            assert!(!case.persistent, "no point to sync at: {}", told());
            let owned = case.skip == SkipSync::Proven;
            assert!(owned || !case.tears_lines(), "half a line: {}", told());
            let direct = case.is_direct() && case.bounces().is_some();
            assert!(!direct || row.code == Code::D31, "{}", told());
        }
        if decision == Decision::Coherent {
            assert!(case.coherent_memory, "{}", told());
        }
    });
    for row in TABLE {
        assert!(hits.contains_key(&row.code), "{} decides nothing", row.code);
    }
    assert_eq!(hits.len(), TABLE.len(), "two rows have one name");
}

fn snooping(path: Path) -> Verdict {
    Verdict::for_tests(path)
}

fn code(verdict: &Verdict, need: &Need) -> Code {
    choose(verdict, need).code
}

#[test]
fn what_the_mails_argue_about() {
    let ours = Need::default();
    let foreign = Need {
        memory: Memory::Foreign { end: 6 << 30 },
        ..ours
    };
    let bracketed = Need {
        cpu_use: CpuUse::Bracketed,
        ..foreign
    };
    let forced = Verdict {
        forced_bounce: Tri::Yes,
        ..snooping(Path::Direct)
    };
    // Not "no graphics": coherent memory is not copied.
    assert_eq!(code(&forced, &ours), Code::D09);
    assert_eq!(code(&forced, &foreign), Code::D11);
    assert_eq!(code(&forced, &bracketed), Code::D10);
    let allowed = Need {
        allow_bounce: true,
        ..bracketed
    };
    let copied = Decision::Synced { copies: true };
    assert_eq!(choose(&forced, &allowed).decision, copied);
    // Behind a virtual IOMMU, of whatever make.
    let translated = Verdict {
        path: Path::Translated { strict: false },
        forced_bounce: Tri::Yes,
        ..snooping(Path::Direct)
    };
    assert_eq!(code(&translated, &foreign), Code::D12);
    assert_eq!(code(&snooping(translated.path), &foreign), Code::D27);
    assert_eq!(code(&snooping(Path::Identity), &foreign), Code::D28);
    assert_eq!(code(&snooping(Path::Direct), &foreign), Code::D29);
    // 32 bits and more memory than that.
    let narrow = Verdict {
        mask: Mask::bits(32),
        ..snooping(Path::Identity)
    };
    assert_eq!(code(&narrow, &ours), Code::D16);
    assert_eq!(code(&narrow, &foreign), Code::D19);
    assert_eq!(code(&narrow, &bracketed), Code::D18);
    let below = Need {
        memory: Memory::Foreign { end: 1 << 30 },
        ..ours
    };
    assert_eq!(code(&narrow, &below), Code::D17);
    // Skipping the sync of a shared buffer, with and without a proof.
    let arm = Verdict {
        snoop: Tri::No,
        ..snooping(Path::Direct)
    };
    let skipped = |skip_sync| Need {
        share: Share::Shared,
        skip_sync,
        ..bracketed
    };
    assert_eq!(code(&arm, &skipped(SkipSync::Proven)), Code::D23);
    assert_eq!(code(&arm, &skipped(SkipSync::Unproven)), Code::D24);
    assert_eq!(code(&arm, &ours), Code::D20);
    assert_eq!(code(&arm, &bracketed), Code::D21);
}

#[test]
fn an_explanation_names_its_facts_and_what_is_open() {
    let mut verdict = snooping(Path::Identity);
    verdict.facts.push(crate::dma::Fact {
        topic: Topic::Path,
        says: "identity".into(),
        source: "/sys/kernel/iommu_groups/7/type".into(),
        trust: crate::dma::Trust::Declared,
        privileged: false,
    });
    verdict.missing.push(crate::dma::Missing {
        source: "/sys/kernel/debug/swiotlb".into(),
        why: "debugfs is not mounted".into(),
    });
    let need = Need {
        revocable: true,
        ..Need::default()
    };
    let text = choose(&verdict, &need).explain(&verdict);
    for part in [
        "dev: streaming (D28)",
        "path: identity [/sys/kernel/iommu_groups/7/type, declared]",
        "snoop: nothing says",
        "debugfs is not mounted",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let lazy = snooping(Path::Translated { strict: false });
    assert!(choose(&lazy, &need).notes[0].starts_with("D30"));
}

/// What the device may do changes how far a decision is trusted, never the decision: the setting can
/// be changed while the mapping lives.
#[test]
fn a_device_that_may_not_pass_the_caches_by_makes_the_answer_surer_and_no_other() {
    let forces_snoop = Tri::No;
    for asks_not_to in [false, true] {
        let of = |may_ask_not_to| {
            let verdict = Verdict {
                asks_not_to,
                may_ask_not_to,
                ..snooping(Path::Owned { forces_snoop })
            };
            choose(&verdict, &Need::managed())
        };
        let (unknown, may, may_not) = (of(Tri::Unknown), of(Tri::Yes), of(Tri::No));
        assert_eq!((&may.decision, may.code), (&unknown.decision, unknown.code));
        assert_eq!(may.notes, unknown.notes);
        assert_eq!((&may_not.decision, may_not.code), (&may.decision, may.code));
        assert_ne!(may_not.notes, may.notes);
        let expected = match asks_not_to {
            true => (Code::D03, "may be wrong"),
            false => (Code::D04, "high confidence"),
        };
        assert_eq!(may_not.code, expected.0);
        assert!(may_not.notes[0].contains(expected.1), "{may_not:?}");
    }
}
