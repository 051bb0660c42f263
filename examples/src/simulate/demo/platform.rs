//! The platform that the card is in, and what is made of it.

use anyhow::{Context, Result, bail};
use backends::sim::{Gpu, GpuConfig, Platform};
use serde::Serialize;
use ttm::dma::{Choice, DmaDevice, Mapper, Mask, Need, Verdict, choose};
use ttm::pages::PageSource;
use ttm::sync::Arc;

use crate::args::DemoArgs;
use cli::report::Outputs;
use cli::table::thousands;

/// A platform, and what follows from it for system pages.
pub(super) struct Chosen {
    platform: Platform,
    verdict: Verdict,
    choice: Choice,
    ignored: bool,
}

impl Chosen {
    /// What `--platform` names.
    pub(super) fn of(args: &DemoArgs) -> Result<Option<Self>> {
        let Some(name) = &args.platform else {
            return Ok(None);
        };
        let platform = Platform::named(name).with_context(|| {
            let names = Platform::ALL.map(|platform| platform.name()).join(", ");
            format!("--platform: expected one of {names}, found {name:?}")
        })?;
        let verdict = platform.verdict();
        Ok(Some(Self {
            choice: choose(&verdict, &Need::managed()),
            platform,
            verdict,
            ignored: args.unsafe_ignore_probe,
        }))
    }

    /// Puts the card into it.
    pub(super) fn put(&self, card: &mut GpuConfig, seed: u64) {
        self.platform.put(card, seed);
    }

    /// By whom system pages are mapped for the card: as the verdict says, or as if it reached
    /// everything.
    pub(super) fn mapper(&self, gpu: &Gpu) -> Result<Arc<DmaDevice>> {
        let verdict = match self.ignored {
            false => self.verdict.clone(),
            true => Verdict {
                mask: Mask::ALL,
                ..self.verdict.clone()
            },
        };
        Ok(gpu.mapper(verdict)?)
    }

    /// What a device is told that it reaches; nothing if the probe is ignored.
    pub(super) fn told(&self) -> Option<Verdict> {
        (!self.ignored).then(|| self.verdict.clone())
    }

    /// System pages: as the choice says, or as if everything were coherent.
    pub(super) fn pages(&self, gpu: &Gpu) -> Result<Arc<dyn PageSource>> {
        if !self.ignored {
            return Ok(gpu.pages_for(&self.choice)?);
        }
        let Some(memory) = gpu.memory() else {
            bail!("--platform: the card's memory has no contents");
        };
        Ok(memory.as_if_coherent())
    }

    pub(super) fn seen(&self, card: Option<&DmaDevice>) -> Seen {
        let stats = card.map(DmaDevice::stats).unwrap_or_default();
        Seen {
            mapped: stats.mapped,
            live_mappings: card.map_or(0, Mapper::live),
            name: self.platform.name(),
            code: self.choice.code.to_string(),
            choice: self.choice.decision.name(),
            reason: self.choice.reason.clone(),
            ignored: self.ignored,
        }
    }
}

/// What `--platform list` prints.
pub(super) fn list() -> String {
    let platforms = Platform::ALL.iter();
    let line = |platform: &Platform| format!("{:<14} {}\n", platform.name(), platform.says());
    platforms.map(line).collect()
}

/// The platform, as `--json` writes it.
#[derive(Debug, Serialize)]
pub(super) struct Seen {
    name: &'static str,
    code: String,
    choice: &'static str,
    reason: String,
    ignored: bool,
    /// How often an object's pages were mapped for the card.
    mapped: u64,
    /// Those that are at the end.
    live_mappings: u64,
}

impl Seen {
    pub(super) fn print(&self, outputs: &Outputs) -> Result<()> {
        let Self {
            name,
            code,
            choice,
            reason,
            mapped,
            live_mappings,
            ..
        } = self;
        let done = match self.ignored {
            true => "ignored: streaming, no syncs, no limits; it would have been ",
            false => "",
        };
        outputs.say(&format!(
            "platform {name}: {done}{choice} ({code}): {reason}\n\
             system pages were mapped for the card {} times, {live_mappings} objects still are\n",
            thousands(*mapped)
        ))
    }
}
