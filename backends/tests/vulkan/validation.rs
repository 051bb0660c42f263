//! The tests again under the validation layer, in a process of their own; and one wrong call there, so
//! that its silence means something.
#![expect(unsafe_code, reason = "one wrong call")]

use std::process::Command;

use ash::vk;
use backends::vulkan::{Instance, VulkanConfig, VulkanDevice};

use super::stage::{skip, turn};

const LAYER: &str = "VK_LAYER_KHRONOS_validation";

/// Set in the other process: what it is to do.
const CHILD: &str = "TTM_VULKAN_CHILD";

fn has_layer() -> bool {
    let instance = match Instance::open("ttm tests") {
        Ok(instance) => instance,
        Err(error) => {
            skip(&error);
            return false;
        }
    };
    // SAFETY: the loader may be asked at any time.
    let layers = unsafe { instance.entry().enumerate_instance_layer_properties() };
    let named = |l: &vk::LayerProperties| {
        l.layer_name_as_c_str()
            .is_ok_and(|n| n.to_bytes() == LAYER.as_bytes())
    };
    let has = layers.unwrap_or_default().iter().any(named);
    if !has {
        skip(&"the validation layer is not installed");
    }
    has
}

/// What another process said that ran some tests under the layer, and whether they passed.
fn under_the_layer(child: &str, arguments: &[&str]) -> (String, bool) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .args(["--nocapture", "--test-threads=1"])
        .env("VK_INSTANCE_LAYERS", LAYER)
        .env(CHILD, child)
        .output()
        .unwrap();
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (text.concat(), output.status.success())
}

fn complaints(said: &str) -> Vec<&str> {
    let is = |line: &&str| {
        ["VUID", "Validation Error", "UNASSIGNED"]
            .iter()
            .any(|w| line.contains(w))
    };
    said.lines().filter(is).collect()
}

#[test]
fn the_layer_sees_a_wrong_call() {
    if std::env::var(CHILD).is_ok_and(|child| child == "wrong") {
        let _turn = turn();
        let vulkan = VulkanDevice::open(&VulkanConfig::new("ttm tests")).unwrap();
        let info = vk::BufferCreateInfo::default()
            .size(0)
            .usage(vk::BufferUsageFlags::TRANSFER_SRC);
        // SAFETY: none: a buffer of no bytes is what the layer is to see. Drivers bear it.
        if let Ok(buffer) = unsafe { vulkan.ash().create_buffer(&info, None) } {
            // SAFETY: it was just made, and nobody has it.
            unsafe { vulkan.ash().destroy_buffer(buffer, None) };
        }
        return;
    }
    if std::env::var_os(CHILD).is_some() || !has_layer() {
        return;
    }
    let (said, _) = under_the_layer(
        "wrong",
        &["--exact", "validation::the_layer_sees_a_wrong_call"],
    );
    let seen = complaints(&said);
    assert!(
        seen.iter()
            .any(|line| line.contains("VkBufferCreateInfo-size")),
        "{said}"
    );
}

#[test]
fn the_layer_has_nothing_to_say() {
    if std::env::var_os(CHILD).is_some() || !has_layer() {
        return;
    }
    let (said, passed) = under_the_layer("right", &["--skip", "validation::"]);
    let seen = complaints(&said);
    assert!(seen.is_empty(), "{} complaints:\n{said}", seen.len());
    assert!(passed, "{said}");
}
