//! What a device is found to do when it is opened.

use ash::vk;
use backends::vulkan::{Facts, VulkanConfig, VulkanDevice};
use cli::size::ByteSize;
use cli::table::Table;
use serde::Serialize;

/// What was found, as `--json` writes it.
#[derive(Debug, Serialize)]
pub(crate) struct Tried {
    /// Why it could not be opened; nothing if it was.
    lacks: Option<String>,
    sparse_buffers: bool,
    imported_pages: bool,
    sparse_buffers_of_imported_pages: bool,
    /// As what memory goes out so that it can be mapped.
    file: Option<String>,
    sparse_buffers_of_exported_memory: bool,
    copies: Vec<Copied>,
}

/// What copies of one size cost, in nanoseconds, and who is chosen.
#[derive(Debug, Serialize)]
struct Copied {
    bytes: u64,
    queue_ns: u64,
    import_ns: u64,
    cpu_in_ns: u64,
    cpu_out_ns: u64,
    into_device: &'static str,
    out_of_device: &'static str,
}

impl Tried {
    /// Opens the first device of that name, and gives it back.
    pub(crate) fn of(facts: &Facts) -> Self {
        let config = VulkanConfig::new("vulkan_info").device(&facts.name);
        match VulkanDevice::open(&config) {
            Ok(vulkan) => Self::found(&vulkan),
            Err(error) => Self {
                lacks: Some(error.to_string()),
                sparse_buffers: false,
                imported_pages: false,
                sparse_buffers_of_imported_pages: false,
                file: None,
                sparse_buffers_of_exported_memory: false,
                copies: Vec::new(),
            },
        }
    }

    fn found(vulkan: &VulkanDevice) -> Self {
        let trials = vulkan.trials();
        let costs = vulkan.costs();
        let who = |bytes, into| match costs.cpu_copies(bytes, into) {
            true => "cpu",
            false => "queue",
        };
        let file = |(how, base): (vk::ExternalMemoryHandleTypeFlags, u64)| {
            format!("{} from byte {base}", format!("{how:?}").to_lowercase())
        };
        let copied = costs.measured().iter().map(|cost| Copied {
            bytes: cost.bytes,
            queue_ns: cost.queue_ns,
            import_ns: cost.import_ns,
            cpu_in_ns: cost.cpu_in_ns,
            cpu_out_ns: cost.cpu_out_ns,
            into_device: who(cost.bytes, true),
            out_of_device: who(cost.bytes, false),
        });
        Self {
            lacks: None,
            sparse_buffers: trials.sparse,
            imported_pages: trials.import,
            sparse_buffers_of_imported_pages: trials.sparse_import,
            file: trials.file.map(file),
            sparse_buffers_of_exported_memory: trials.sparse_file,
            copies: copied.collect(),
        }
    }

    /// The same for people.
    pub(crate) fn text(&self) -> String {
        if let Some(lacks) = &self.lacks {
            return format!("tried: {lacks}\n");
        }
        let yes = |yes: bool| if yes { "yes" } else { "no" };
        let mut text = format!(
            "tried: sparse buffers show what is bound to them: {}; imported pages too: {}; exported \
             memory too: {}\n\
             tried: imported pages are the process's own: {}; memory goes out as a file: {}\n",
            yes(self.sparse_buffers),
            yes(self.sparse_buffers_of_imported_pages),
            yes(self.sparse_buffers_of_exported_memory),
            yes(self.imported_pages),
            self.file.as_deref().unwrap_or("no"),
        );
        if self.copies.is_empty() {
            return text;
        }
        let mut table = Table::new([
            "copy",
            "queue us",
            "import us",
            "CPU in us",
            "CPU out us",
            "in by",
            "out by",
        ]);
        for row in &self.copies {
            let micros = |ns: u64| ns as f64 / 1e3;
            table.row([
                ByteSize(row.bytes).into(),
                micros(row.queue_ns).into(),
                micros(row.import_ns).into(),
                micros(row.cpu_in_ns).into(),
                micros(row.cpu_out_ns).into(),
                row.into_device.into(),
                row.out_of_device.into(),
            ]);
        }
        text += &format!("{table}\n");
        text
    }
}
