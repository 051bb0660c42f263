//! The Vulkan loader, opened when it is asked for, and an instance with its devices.
//!
//! The rule that the `unsafe` blocks here rely on: `instance` was made by the loader behind `entry`,
//! which stays loaded as long as `entry` lives, and is destroyed once, in `drop`; the handles in
//! `physical` are its own.
#![expect(unsafe_code, reason = "calls of the Vulkan loader")]

use std::ffi::CString;
use std::fmt;

use ash::vk;

use super::error::VulkanError;
use super::facts::Facts;

/// What is asked of the loader: everything up to it may be used where a device has it.
const ASKED: u32 = vk::API_VERSION_1_3;

/// An instance of Vulkan, destroyed when dropped. What was made from it must be gone by then.
pub struct Instance {
    entry: ash::Entry,
    instance: ash::Instance,
    physical: Vec<vk::PhysicalDevice>,
}

impl Instance {
    /// Loads the loader and makes an instance for a program of that name. No layer and no extension
    /// is asked for; `VK_INSTANCE_LAYERS` and its like are heeded by the loader.
    ///
    /// # Errors
    /// - [`VulkanError::NoLoader`]: it is not there, or knows nothing of Vulkan 1.1.
    /// - [`VulkanError::NoDevice`]: no driver, or none of them finds a device.
    /// - [`VulkanError::Call`]: the loader or a driver fails otherwise.
    pub fn open(app_name: &str) -> Result<Self, VulkanError> {
        // SAFETY: the library of that name is the Vulkan loader, which may be loaded at any time;
        // the `Entry` keeps it loaded for as long as its functions are called.
        let entry = unsafe { ash::Entry::load() }
            .map_err(|error| VulkanError::NoLoader(error.to_string()))?;
        // SAFETY: the function may be called with any loader, and is looked up first.
        let speaks = unsafe { entry.try_enumerate_instance_version() }
            .map_err(VulkanError::call("vkEnumerateInstanceVersion"))?
            .unwrap_or(vk::API_VERSION_1_0);
        if speaks < vk::API_VERSION_1_1 {
            return Err(VulkanError::NoLoader(
                "this one knows Vulkan 1.0 only".into(),
            ));
        }
        let instance = create(&entry, app_name)?;
        let mut opened = Self {
            entry,
            instance,
            physical: Vec::new(),
        };
        // SAFETY: the instance is alive.
        opened.physical = unsafe { opened.instance.enumerate_physical_devices() }
            .map_err(no_device("vkEnumeratePhysicalDevices"))?;
        match opened.physical.is_empty() {
            true => Err(VulkanError::NoDevice),
            false => Ok(opened),
        }
    }

    /// The devices, as the loader orders them, and what each says of itself now. At least one.
    #[must_use]
    pub fn devices(&self) -> Vec<(vk::PhysicalDevice, Facts)> {
        let facts = |&physical| {
            // SAFETY: the instance is alive, of version 1.1 at least, and the device is its own.
            let facts = unsafe { Facts::query(&self.instance, physical) };
            (physical, facts)
        };
        self.physical.iter().map(facts).collect()
    }

    /// The loader's functions.
    #[must_use]
    pub fn entry(&self) -> &ash::Entry {
        &self.entry
    }

    /// The instance's functions.
    #[must_use]
    pub fn instance(&self) -> &ash::Instance {
        &self.instance
    }
}

fn create(entry: &ash::Entry, app_name: &str) -> Result<ash::Instance, VulkanError> {
    let name: Vec<u8> = app_name.bytes().filter(|&byte| byte != 0).collect();
    let name = CString::new(name).expect("its zeros were left out");
    let app = vk::ApplicationInfo::default()
        .application_name(&name)
        .api_version(ASKED);
    let info = vk::InstanceCreateInfo::default().application_info(&app);
    // SAFETY: `info` and what it points to live until the call is over, and the instance is
    // destroyed before the loader is let go (`Instance::drop`).
    unsafe { entry.create_instance(&info, None) }.map_err(no_device("vkCreateInstance"))
}

/// The error of a call that answers so where there is no driver.
fn no_device(what: &'static str) -> impl Fn(vk::Result) -> VulkanError {
    move |result| match result {
        vk::Result::ERROR_INCOMPATIBLE_DRIVER => VulkanError::NoDevice,
        result => VulkanError::Call { what, result },
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: it is destroyed here only, and what was made from it is gone (the contract of
        // the `unsafe` calls that made it).
        unsafe { self.instance.destroy_instance(None) };
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance")
            .field("handle", &self.instance.handle())
            .field("physical", &self.physical)
            .finish_non_exhaustive()
    }
}
