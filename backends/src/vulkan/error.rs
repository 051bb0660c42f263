//! What goes wrong with a Vulkan device, and what to do then.

use std::error::Error as StdError;
use std::fmt;

use ash::vk;
use placement::PageCount;

/// Why Vulkan cannot be used, or what a call of it answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VulkanError {
    /// The Vulkan loader cannot be used; the text says why.
    NoLoader(String),
    /// There is a loader, and no device.
    NoDevice,
    /// A device cannot be used.
    Unsuitable {
        /// Its name.
        device: String,
        /// What it lacks.
        lacks: String,
    },
    /// A call failed.
    Call {
        /// Its name.
        what: &'static str,
        /// What it answered.
        result: vk::Result,
    },
}

impl VulkanError {
    /// The error of a call of that name, for `map_err`.
    pub fn call(what: &'static str) -> impl Fn(vk::Result) -> Self {
        move |result| Self::Call { what, result }
    }

    /// The same as the manager's error, where so many pages were wanted: memory that ran out is then
    /// [`ttm::Error::NoMemory`] with that number, and so are allocations, and addresses to map them
    /// at, that did.
    #[must_use]
    pub fn wanting(self, wanted: PageCount) -> ttm::Error {
        match self {
            Self::Call {
                result: vk::Result::ERROR_DEVICE_LOST,
                ..
            } => ttm::Error::DeviceLost,
            Self::Call {
                result:
                    vk::Result::ERROR_OUT_OF_DEVICE_MEMORY
                    | vk::Result::ERROR_OUT_OF_HOST_MEMORY
                    | vk::Result::ERROR_TOO_MANY_OBJECTS
                    | vk::Result::ERROR_FRAGMENTATION
                    | vk::Result::ERROR_MEMORY_MAP_FAILED,
                ..
            } => ttm::Error::no_memory(wanted),
            other => ttm::Error::Backend(Box::new(other)),
        }
    }
}

impl fmt::Display for VulkanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLoader(why) => write!(
                f,
                "no Vulkan loader: install libvulkan1 or what your system calls it, of version 1.1 \
                 or later ({why})"
            ),
            Self::NoDevice => f.write_str(
                "no Vulkan device: install a driver (mesa-vulkan-drivers has one that needs no \
                 GPU), and see that VK_DRIVER_FILES, if set, names one that is there",
            ),
            Self::Unsuitable { device, lacks } => {
                write!(f, "{device} cannot be used: {lacks}; choose another device")
            }
            Self::Call { what, result } => {
                write!(f, "{what} answered {result:?}")?;
                f.write_str(advice(*result))
            }
        }
    }
}

/// What to do about an answer, where that is known.
fn advice(result: vk::Result) -> &'static str {
    match result {
        vk::Result::ERROR_DEVICE_LOST => "; open the device anew",
        vk::Result::ERROR_OUT_OF_DEVICE_MEMORY | vk::Result::ERROR_OUT_OF_HOST_MEMORY => {
            "; free some memory, or take less"
        }
        vk::Result::ERROR_TOO_MANY_OBJECTS => "; make fewer allocations, of larger chunks",
        vk::Result::ERROR_INCOMPATIBLE_DRIVER => "; install a driver for this device",
        vk::Result::ERROR_INITIALIZATION_FAILED => {
            "; see whether the device can be opened by this user"
        }
        vk::Result::ERROR_LAYER_NOT_PRESENT => "; see VK_INSTANCE_LAYERS, or install the layer",
        _ => "",
    }
}

impl StdError for VulkanError {}

impl From<VulkanError> for ttm::Error {
    /// Memory that ran out is [`ttm::Error::NoMemory`] for one page, the least that it can have
    /// been: where the number is known, [`VulkanError::wanting`] says more.
    fn from(error: VulkanError) -> Self {
        error.wanting(PageCount::new(1).expect("one is a count of pages"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ttm::error::Class;

    fn call(result: vk::Result) -> VulkanError {
        VulkanError::call("vkSomething")(result)
    }

    #[test]
    fn what_the_caller_does_next_follows_from_what_vulkan_answered() {
        for (result, class) in [
            (vk::Result::ERROR_DEVICE_LOST, Class::Broken),
            (vk::Result::ERROR_OUT_OF_DEVICE_MEMORY, Class::Refuse),
            (vk::Result::ERROR_OUT_OF_HOST_MEMORY, Class::Refuse),
            (vk::Result::ERROR_TOO_MANY_OBJECTS, Class::Refuse),
            (vk::Result::ERROR_MEMORY_MAP_FAILED, Class::Refuse),
            (vk::Result::ERROR_INITIALIZATION_FAILED, Class::Broken),
        ] {
            assert_eq!(ttm::Error::from(call(result)).class(), class, "{result:?}");
        }
    }

    #[test]
    fn memory_that_ran_out_says_how_much_was_wanted() {
        let error =
            call(vk::Result::ERROR_OUT_OF_DEVICE_MEMORY).wanting(PageCount::new(512).unwrap());
        assert!(matches!(error, ttm::Error::NoMemory { wanted, .. } if wanted.get() == 512));
    }

    #[test]
    fn each_text_says_what_to_do() {
        for (error, word) in [
            (
                VulkanError::NoLoader("not found".into()),
                "install libvulkan1",
            ),
            (VulkanError::NoDevice, "install a driver"),
            (call(vk::Result::ERROR_DEVICE_LOST), "anew"),
        ] {
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
