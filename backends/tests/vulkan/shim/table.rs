//! The wrapped functions.
//!
//! The rule that the `unsafe` blocks here rely on: whoever calls a wrapper keeps the contract of the
//! function that it wraps, of the device that was wrapped last; the real functions stay loaded for as
//! long as that device lives.

use core::ffi::{CStr, c_char, c_int, c_void};
use std::fs::File;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use ash::vk;
use ttm::sync::{Arc, Mutex};

use super::plan::{Call, plan};

/// The functions behind the wrappers.
struct Real {
    v1_0: ash::DeviceFnV1_0,
    v1_2: ash::DeviceFnV1_2,
    i1_0: ash::InstanceFnV1_0,
    i1_1: ash::InstanceFnV1_1,
    host_pointer: Option<vk::PFN_vkGetMemoryHostPointerPropertiesEXT>,
    memory_fd: Option<vk::PFN_vkGetMemoryFdKHR>,
}

fn slot() -> &'static Mutex<Option<Arc<Real>>> {
    static REAL: OnceLock<Mutex<Option<Arc<Real>>>> = OnceLock::new();
    REAL.get_or_init(Mutex::default)
}

fn real() -> Arc<Real> {
    Arc::clone(slot().lock().as_ref().expect("a device was wrapped"))
}

/// The device and its instance with wrapped functions.
pub(super) fn wrap(device: &ash::Device, instance: &ash::Instance) -> (ash::Device, ash::Instance) {
    let (host_pointer, memory_fd) = extensions(device, instance);
    *slot().lock() = Some(Arc::new(Real {
        v1_0: device.fp_v1_0().clone(),
        v1_2: device.fp_v1_2().clone(),
        i1_0: instance.fp_v1_0().clone(),
        i1_1: instance.fp_v1_1().clone(),
        host_pointer,
        memory_fd,
    }));
    let v1_0 = ash::DeviceFnV1_0 {
        allocate_memory,
        free_memory,
        map_memory,
        queue_submit,
        queue_bind_sparse,
        queue_wait_idle,
        create_buffer,
        bind_buffer_memory,
        get_buffer_memory_requirements,
        create_image,
        bind_image_memory,
        get_image_memory_requirements,
        create_semaphore,
        create_command_pool,
        allocate_command_buffers,
        begin_command_buffer,
        end_command_buffer,
        ..device.fp_v1_0().clone()
    };
    let v1_2 = ash::DeviceFnV1_2 {
        get_semaphore_counter_value,
        wait_semaphores,
        signal_semaphore,
        ..device.fp_v1_2().clone()
    };
    let i1_0 = ash::InstanceFnV1_0 {
        get_physical_device_memory_properties,
        enumerate_device_extension_properties,
        get_device_proc_addr,
        ..instance.fp_v1_0().clone()
    };
    let i1_1 = ash::InstanceFnV1_1 {
        get_physical_device_memory_properties2,
        get_physical_device_external_semaphore_properties,
        ..instance.fp_v1_1().clone()
    };
    let device = ash::Device::from_parts_1_3(
        device.handle(),
        v1_0,
        device.fp_v1_1().clone(),
        v1_2,
        device.fp_v1_3().clone(),
    );
    let instance =
        ash::Instance::from_parts_1_3(instance.handle(), i1_0, i1_1, instance.fp_v1_3().clone());
    (device, instance)
}

type Extensions = (
    Option<vk::PFN_vkGetMemoryHostPointerPropertiesEXT>,
    Option<vk::PFN_vkGetMemoryFdKHR>,
);

fn extensions(device: &ash::Device, instance: &ash::Instance) -> Extensions {
    let named = |name: &CStr| {
        // SAFETY: the device is of the instance, and the name ends with a zero.
        unsafe { instance.get_device_proc_addr(device.handle(), name.as_ptr()) }
    };
    let host = named(c"vkGetMemoryHostPointerPropertiesEXT").map(|function| {
        // SAFETY: a function of that name has that type.
        unsafe {
            core::mem::transmute::<
                unsafe extern "system" fn(),
                vk::PFN_vkGetMemoryHostPointerPropertiesEXT,
            >(function)
        }
    });
    let fd = named(c"vkGetMemoryFdKHR").map(|function| {
        // SAFETY: as above.
        unsafe {
            core::mem::transmute::<unsafe extern "system" fn(), vk::PFN_vkGetMemoryFdKHR>(function)
        }
    });
    (host, fd)
}

/// Functions that only fail or not.
macro_rules! wrapped {
    ($($table:ident.$name:ident($($arg:ident: $of:ty),*) is $call:ident;)*) => {$(
        unsafe extern "system" fn $name($($arg: $of),*) -> vk::Result {
            let fails = plan().turn(Call::$call);
            if let Some(result) = fails {
                return result;
            }
            // SAFETY: the rule at the head.
            unsafe { (real().$table.$name)($($arg),*) }
        }
    )*};
}

type Allocator<'a> = *const vk::AllocationCallbacks<'a>;

wrapped! {
    v1_0.map_memory(
        device: vk::Device, memory: vk::DeviceMemory, offset: u64, size: u64,
        flags: vk::MemoryMapFlags, data: *mut *mut c_void
    ) is Map;
    v1_0.queue_submit(
        queue: vk::Queue, count: u32, infos: *const vk::SubmitInfo<'_>, fence: vk::Fence
    ) is Submit;
    v1_0.queue_bind_sparse(
        queue: vk::Queue, count: u32, infos: *const vk::BindSparseInfo<'_>, fence: vk::Fence
    ) is BindSparse;
    v1_0.create_buffer(
        device: vk::Device, info: *const vk::BufferCreateInfo<'_>, allocator: Allocator<'_>,
        buffer: *mut vk::Buffer
    ) is CreateBuffer;
    v1_0.bind_buffer_memory(
        device: vk::Device, buffer: vk::Buffer, memory: vk::DeviceMemory, offset: u64
    ) is BindBuffer;
    v1_0.create_image(
        device: vk::Device, info: *const vk::ImageCreateInfo<'_>, allocator: Allocator<'_>,
        image: *mut vk::Image
    ) is CreateImage;
    v1_0.bind_image_memory(
        device: vk::Device, image: vk::Image, memory: vk::DeviceMemory, offset: u64
    ) is BindImage;
    v1_0.create_command_pool(
        device: vk::Device, info: *const vk::CommandPoolCreateInfo<'_>, allocator: Allocator<'_>,
        pool: *mut vk::CommandPool
    ) is CreatePool;
    v1_0.allocate_command_buffers(
        device: vk::Device, info: *const vk::CommandBufferAllocateInfo<'_>,
        buffers: *mut vk::CommandBuffer
    ) is AllocateCommands;
    v1_0.begin_command_buffer(
        buffer: vk::CommandBuffer, info: *const vk::CommandBufferBeginInfo<'_>
    ) is Begin;
    v1_0.end_command_buffer(buffer: vk::CommandBuffer) is End;
    v1_2.get_semaphore_counter_value(
        device: vk::Device, semaphore: vk::Semaphore, value: *mut u64
    ) is Counter;
    v1_2.wait_semaphores(
        device: vk::Device, info: *const vk::SemaphoreWaitInfo<'_>, timeout: u64
    ) is Wait;
    v1_2.signal_semaphore(
        device: vk::Device, info: *const vk::SemaphoreSignalInfo<'_>
    ) is Signal;
}

unsafe extern "system" fn create_semaphore(
    device: vk::Device,
    info: *const vk::SemaphoreCreateInfo<'_>,
    allocator: Allocator<'_>,
    semaphore: *mut vk::Semaphore,
) -> vk::Result {
    let (fails, played) = {
        let mut plan = plan();
        (plan.turn(Call::CreateSemaphore), plan.semaphore_fds)
    };
    if let Some(result) = fails {
        return result;
    }
    // SAFETY: the caller hands in a valid structure.
    let mut info = unsafe { *info };
    let counts;
    if played && in_chain(info.p_next, vk::StructureType::EXPORT_SEMAPHORE_CREATE_INFO).is_some() {
        // The driver knows of no such thing; what else there is in the chain says that it counts.
        let kind = in_chain(info.p_next, vk::StructureType::SEMAPHORE_TYPE_CREATE_INFO);
        let kind = kind.expect("only timelines go out");
        // SAFETY: the type in the chain says what it is.
        let kind = unsafe { *kind.cast::<vk::SemaphoreTypeCreateInfo<'_>>() };
        counts = vk::SemaphoreTypeCreateInfo {
            p_next: core::ptr::null(),
            ..kind
        };
        info.p_next = (&raw const counts).cast();
    }
    // SAFETY: the rule at the head; what is in the chain lives for the call.
    unsafe { (real().v1_0.create_semaphore)(device, &raw const info, allocator, semaphore) }
}

/// The extensions of the driver, and the one that is played, if it is not among them.
unsafe extern "system" fn enumerate_device_extension_properties(
    physical: vk::PhysicalDevice,
    layer: *const c_char,
    count: *mut u32,
    found: *mut vk::ExtensionProperties,
) -> vk::Result {
    let list = real().i1_0.enumerate_device_extension_properties;
    if !plan().semaphore_fds {
        // SAFETY: the rule at the head.
        return unsafe { list(physical, layer, count, found) };
    }
    let mut all = 0;
    // SAFETY: the rule at the head; without a place for them they are counted.
    let answer = unsafe { list(physical, layer, &raw mut all, core::ptr::null_mut()) };
    assert_eq!(answer, vk::Result::SUCCESS);
    if found.is_null() {
        // SAFETY: the place is the caller's.
        unsafe { *count = all + 1 };
        return vk::Result::SUCCESS;
    }
    // SAFETY: the caller has room for as many as were counted, which is one more.
    let answer = unsafe { list(physical, layer, &raw mut all, found) };
    let mut played = vk::ExtensionProperties::default();
    played
        .extension_name
        .iter_mut()
        .zip(ash::khr::external_semaphore_fd::NAME.to_bytes())
        .for_each(|(to, from)| *to = *from as c_char);
    // SAFETY: as above.
    let last = unsafe { &mut *found.wrapping_add(all as usize) };
    *last = played;
    // SAFETY: the place is the caller's.
    unsafe { *count = all + 1 };
    answer
}

unsafe extern "system" fn get_physical_device_external_semaphore_properties(
    physical: vk::PhysicalDevice,
    info: *const vk::PhysicalDeviceExternalSemaphoreInfo<'_>,
    found: *mut vk::ExternalSemaphoreProperties<'_>,
) {
    let ask = real()
        .i1_1
        .get_physical_device_external_semaphore_properties;
    // SAFETY: the rule at the head.
    unsafe { ask(physical, info, found) };
    if plan().semaphore_fds {
        use vk::ExternalSemaphoreFeatureFlags as F;
        // SAFETY: the call wrote it, and it is the caller's.
        unsafe { (*found).external_semaphore_features = F::EXPORTABLE | F::IMPORTABLE };
    }
}

/// What was submitted is over, whatever is said.
unsafe extern "system" fn queue_wait_idle(queue: vk::Queue) -> vk::Result {
    // SAFETY: the rule at the head.
    let answer = unsafe { (real().v1_0.queue_wait_idle)(queue) };
    plan().turn(Call::QueueIdle).unwrap_or(answer)
}

unsafe extern "system" fn allocate_memory(
    device: vk::Device,
    info: *const vk::MemoryAllocateInfo<'_>,
    allocator: Allocator<'_>,
    memory: *mut vk::DeviceMemory,
) -> vk::Result {
    // SAFETY: the caller hands in a valid structure.
    let mut info = unsafe { *info };
    let import = in_chain(
        info.p_next,
        vk::StructureType::IMPORT_MEMORY_HOST_POINTER_INFO_EXT,
    );
    let import = import.is_some();
    let fails = {
        let mut plan = plan();
        if plan.hidden {
            info.memory_type_index = 0;
        }
        plan.allocates(info.allocation_size, import)
    };
    if let Some(result) = fails {
        return result;
    }
    // SAFETY: the rule at the head.
    let answer =
        unsafe { (real().v1_0.allocate_memory)(device, &raw const info, allocator, memory) };
    if answer == vk::Result::SUCCESS {
        // SAFETY: the call succeeded, so it was written.
        let made = unsafe { *memory };
        plan().allocated(made, info.allocation_size, import);
    }
    answer
}

unsafe extern "system" fn free_memory(
    device: vk::Device,
    memory: vk::DeviceMemory,
    allocator: Allocator<'_>,
) {
    plan().freed(memory);
    // SAFETY: the rule at the head.
    unsafe { (real().v1_0.free_memory)(device, memory, allocator) }
}

/// Memory of type 0 that is hidden is of type 1 as well.
fn both(needs: &mut vk::MemoryRequirements) {
    if plan().hidden {
        needs.memory_type_bits |= 2;
    }
}

unsafe extern "system" fn get_buffer_memory_requirements(
    device: vk::Device,
    buffer: vk::Buffer,
    needs: *mut vk::MemoryRequirements,
) {
    // SAFETY: the rule at the head.
    unsafe { (real().v1_0.get_buffer_memory_requirements)(device, buffer, needs) };
    // SAFETY: the call wrote it, and it is the caller's.
    both(unsafe { &mut *needs });
}

unsafe extern "system" fn get_image_memory_requirements(
    device: vk::Device,
    image: vk::Image,
    needs: *mut vk::MemoryRequirements,
) {
    // SAFETY: the rule at the head.
    unsafe { (real().v1_0.get_image_memory_requirements)(device, image, needs) };
    // SAFETY: the call wrote it, and it is the caller's.
    both(unsafe { &mut *needs });
}

/// One type that does all becomes two: the device's, which the CPU does not reach, and the host's.
fn hide(memory: &mut vk::PhysicalDeviceMemoryProperties) {
    use vk::MemoryPropertyFlags as P;
    if !plan().hidden {
        return;
    }
    assert_eq!(
        memory.memory_type_count, 1,
        "only such devices can be hidden"
    );
    memory.memory_type_count = 2;
    memory.memory_heap_count = 2;
    memory.memory_types[1] = vk::MemoryType {
        property_flags: P::HOST_VISIBLE | P::HOST_COHERENT | P::HOST_CACHED,
        heap_index: 1,
    };
    memory.memory_types[0].property_flags = P::DEVICE_LOCAL;
    memory.memory_heaps[1] = vk::MemoryHeap {
        flags: vk::MemoryHeapFlags::empty(),
        ..memory.memory_heaps[0]
    };
}

unsafe extern "system" fn get_physical_device_memory_properties(
    physical: vk::PhysicalDevice,
    memory: *mut vk::PhysicalDeviceMemoryProperties,
) {
    // SAFETY: the rule at the head.
    unsafe { (real().i1_0.get_physical_device_memory_properties)(physical, memory) };
    // SAFETY: the call wrote it, and it is the caller's.
    hide(unsafe { &mut *memory });
}

unsafe extern "system" fn get_physical_device_memory_properties2(
    physical: vk::PhysicalDevice,
    memory: *mut vk::PhysicalDeviceMemoryProperties2<'_>,
) {
    // SAFETY: the rule at the head.
    unsafe { (real().i1_1.get_physical_device_memory_properties2)(physical, memory) };
    // SAFETY: the call wrote it, and it is the caller's.
    let memory = unsafe { &mut *memory };
    hide(&mut memory.memory_properties);
    let (budget, hidden) = {
        let plan = plan();
        (plan.budget, plan.hidden)
    };
    let kind = vk::StructureType::PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT;
    let Some(found) = in_chain(memory.p_next, kind) else {
        return;
    };
    let found = found
        .cast::<vk::PhysicalDeviceMemoryBudgetPropertiesEXT<'_>>()
        .cast_mut();
    // SAFETY: the type in the chain says what it is, and it is the caller's.
    let found = unsafe { &mut *found };
    if hidden {
        found.heap_budget[1] = found.heap_budget[0];
    }
    if let Some(bytes) = budget {
        found.heap_budget = [bytes; vk::MAX_MEMORY_HEAPS];
    }
}

/// The structure of that type in a chain.
fn in_chain(first: *const c_void, kind: vk::StructureType) -> Option<*const c_void> {
    let mut next = first.cast::<vk::BaseInStructure<'_>>();
    while !next.is_null() {
        // SAFETY: chains are of valid structures, each with this head, and end with null.
        let head = unsafe { *next };
        if head.s_type == kind {
            return Some(next.cast());
        }
        next = head.p_next;
    }
    None
}

unsafe extern "system" fn get_device_proc_addr(
    device: vk::Device,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    // SAFETY: the rule at the head.
    let found = unsafe { (real().i1_0.get_device_proc_addr)(device, name) };
    // SAFETY: names end with a zero.
    let name = unsafe { CStr::from_ptr(name) };
    let ours: *const c_void = match name.to_bytes() {
        b"vkGetMemoryHostPointerPropertiesEXT" => {
            let ours: vk::PFN_vkGetMemoryHostPointerPropertiesEXT = get_host_pointer_properties;
            ours as *const c_void
        }
        b"vkGetMemoryFdKHR" => {
            let ours: vk::PFN_vkGetMemoryFdKHR = get_memory_fd;
            ours as *const c_void
        }
        b"vkGetSemaphoreFdKHR" if plan().semaphore_fds => {
            let ours: vk::PFN_vkGetSemaphoreFdKHR = get_semaphore_fd;
            return played(ours as *const c_void);
        }
        b"vkImportSemaphoreFdKHR" if plan().semaphore_fds => {
            let ours: vk::PFN_vkImportSemaphoreFdKHR = import_semaphore_fd;
            return played(ours as *const c_void);
        }
        _ => return found,
    };
    found?;
    played(ours)
}

/// The address of a function, as the loader gives it.
fn played(ours: *const c_void) -> vk::PFN_vkVoidFunction {
    // SAFETY: it is the address of a function.
    Some(unsafe { core::mem::transmute::<*const c_void, unsafe extern "system" fn()>(ours) })
}

unsafe extern "system" fn get_host_pointer_properties(
    device: vk::Device,
    kind: vk::ExternalMemoryHandleTypeFlags,
    pointer: *const c_void,
    properties: *mut vk::MemoryHostPointerPropertiesEXT<'_>,
) -> vk::Result {
    let fails = plan().turn(Call::HostPointer);
    if let Some(result) = fails {
        return result;
    }
    let function = real().host_pointer.expect("it was looked up before");
    // SAFETY: the rule at the head.
    let answer = unsafe { function(device, kind, pointer, properties) };
    if plan().hidden {
        // SAFETY: the call wrote it, and it is the caller's.
        unsafe { (*properties).memory_type_bits |= 2 };
    }
    answer
}

unsafe extern "system" fn get_memory_fd(
    device: vk::Device,
    info: *const vk::MemoryGetFdInfoKHR<'_>,
    fd: *mut c_int,
) -> vk::Result {
    let fails = plan().turn(Call::MemoryFd);
    if let Some(result) = fails {
        return result;
    }
    let function = real().memory_fd.expect("it was looked up before");
    // SAFETY: the rule at the head.
    unsafe { function(device, info, fd) }
}

/// What stands in for a semaphore that goes out: a file with its value.
unsafe extern "system" fn get_semaphore_fd(
    device: vk::Device,
    info: *const vk::SemaphoreGetFdInfoKHR<'_>,
    fd: *mut c_int,
) -> vk::Result {
    // SAFETY: the caller hands in a valid structure.
    let info = unsafe { *info };
    assert_eq!(
        info.handle_type,
        vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD
    );
    let mut value = 0;
    // SAFETY: the rule at the head.
    let answer = unsafe {
        (real().v1_2.get_semaphore_counter_value)(device, info.semaphore, &raw mut value)
    };
    assert_eq!(answer, vk::Result::SUCCESS);
    // SAFETY: the place is the caller's.
    unsafe { *fd = OwnedFd::from(file_with(value)).into_raw_fd() };
    vk::Result::SUCCESS
}

/// A file without a name that holds a value.
fn file_with(value: u64) -> File {
    let name = std::env::temp_dir().join(format!("ttm-semaphore-{}", std::process::id()));
    let mut options = File::options();
    let file = options.read(true).write(true).create_new(true).open(&name);
    let file = file.expect("one at a time");
    std::fs::remove_file(name).expect("just made");
    file.write_all_at(&value.to_le_bytes(), 0).expect("8 bytes");
    file
}

/// A semaphore that comes in is brought to the value that the file has, which is closed.
unsafe extern "system" fn import_semaphore_fd(
    device: vk::Device,
    info: *const vk::ImportSemaphoreFdInfoKHR<'_>,
) -> vk::Result {
    if let Some(result) = plan().turn(Call::ImportSemaphore) {
        return result;
    }
    // SAFETY: the caller hands in a valid structure.
    let info = unsafe { *info };
    assert!(info.flags.is_empty(), "for good");
    assert_eq!(
        info.handle_type,
        vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD
    );
    // SAFETY: the descriptor is the driver's from here on.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(info.fd) });
    let mut value = [0; 8];
    file.read_exact_at(&mut value, 0).expect("8 bytes");
    let signal = vk::SemaphoreSignalInfo::default()
        .semaphore(info.semaphore)
        .value(u64::from_le_bytes(value));
    // SAFETY: the rule at the head; a fresh semaphore is at 0.
    unsafe { (real().v1_2.signal_semaphore)(device, &raw const signal) }
}
