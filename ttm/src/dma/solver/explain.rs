//! Who set which bound.

use core::fmt;

use crate::dma::{Bound, Constraints, Field};

/// One bound, and who set it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reason {
    /// The bound.
    pub bound: Bound,
    /// The names of those who asked for it; where only several together came to it, all of them.
    pub by: Vec<String>,
}

/// Every bound that somebody set. Shows one a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    reasons: Vec<Reason>,
}

/// What each is called and asks for.
type Members<'a> = [(&'a str, &'a Constraints)];

impl Explanation {
    /// Of what all of those came to.
    pub(super) fn new(all: &Constraints, members: &Members<'_>) -> Self {
        let free = Constraints::ANY;
        let set = Field::ALL.into_iter();
        let set = set.filter(|field| all.bound(*field) != free.bound(*field));
        let reasons = set.map(|field| Reason {
            bound: all.bound(field),
            by: names(field, all, members),
        });
        Self {
            reasons: reasons.collect(),
        }
    }

    /// The bounds, in the order of [`Field::ALL`].
    #[must_use]
    pub fn reasons(&self) -> &[Reason] {
        &self.reasons
    }

    /// Who set the bound of that field; `None` if nobody did.
    #[must_use]
    pub fn of(&self, field: Field) -> Option<&Reason> {
        let mut reasons = self.reasons.iter();
        reasons.find(|reason| reason.bound.field() == field)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Reason { bound, by } in &self.reasons {
            writeln!(f, "{bound}: {}", by.join(", "))?;
        }
        Ok(())
    }
}

fn names(field: Field, all: &Constraints, members: &Members<'_>) -> Vec<String> {
    let normal = |one: &Constraints| one.normal().unwrap_or(*one);
    let named = |which: &dyn Fn(&Constraints) -> bool| -> Vec<String> {
        let found = members.iter().filter(|(_, one)| which(&normal(one)));
        found.map(|(name, _)| (*name).to_owned()).collect()
    };
    let exactly = named(&|one| one.bound(field) == all.bound(field));
    if !exactly.is_empty() {
        return exactly;
    }
    let free = Constraints::ANY;
    let asks = |one: &Constraints, field: Field| one.bound(field) != free.bound(field);
    let together = named(&|one| {
        let mut fields = follows_from(field).iter().copied();
        asks(one, field) || fields.any(|field| asks(one, field))
    });
    match together.is_empty() {
        // Nobody asked: it comes of there being several.
        true => vec!["sharing".to_owned()],
        false => together,
    }
}

/// Other fields that narrow this one.
const fn follows_from(field: Field) -> &'static [Field] {
    match field {
        Field::MaxSegment => &[Field::BoundaryMask, Field::MinAlignMask],
        Field::Caching => &[Field::Coherent, Field::NeverSnoops],
        Field::Storage => &[Field::CpuPages, Field::Encryption],
        _ => &[],
    }
}
