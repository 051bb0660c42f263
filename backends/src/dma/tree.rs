//! What a device tree says.

use super::root::ProbeRoot;

/// What the nearest node above a device that says something says of snooping.
pub(super) fn is_coherent(root: &ProbeRoot, device: &str) -> Option<(bool, String)> {
    for folder in root.ancestors(device) {
        for (name, coherent) in [("dma-coherent", true), ("dma-noncoherent", false)] {
            let property = format!("{folder}/of_node/{name}");
            if root.has(&property) {
                return Some((coherent, property));
            }
        }
    }
    None
}

/// The property of a port above a device that says that it leads out of the machine.
pub(super) fn external_port(root: &ProbeRoot, device: &str) -> Option<String> {
    let above = root.ancestors(device).into_iter().skip(1);
    let mut properties = above.map(|folder| format!("{folder}/of_node/external-facing"));
    properties.find(|property| root.has(property))
}

/// Whether a device, or a bus above it, has a node at all.
pub(super) fn has_node(root: &ProbeRoot, device: &str) -> bool {
    let mut above = root.ancestors(device).into_iter();
    above.any(|folder| root.has(&format!("{folder}/of_node")))
}

/// The pool of reserved memory that a device is restricted to.
pub(super) fn restricted_pool(root: &ProbeRoot, device: &str) -> Option<String> {
    let assigned = root
        .ancestors(device)
        .into_iter()
        .find_map(|folder| root.bytes(&format!("{folder}/of_node/memory-region")).ok())?;
    let handles: Vec<_> = assigned.chunks_exact(4).collect();
    let reserved = "/sys/firmware/devicetree/base/reserved-memory";
    root.names(reserved).into_iter().find_map(|name| {
        let node = format!("{reserved}/{name}");
        let kinds = root.text(&format!("{node}/compatible")).ok()?;
        let handle = root.bytes(&format!("{node}/phandle")).ok()?;
        let is_pool = kinds.split('\0').any(|kind| kind == "restricted-dma-pool");
        (is_pool && handles.contains(&&handle[..])).then_some(node)
    })
}
