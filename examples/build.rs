//! Compiles the shaders of the Vulkan examples.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "vulkan")]
    shader::compile("src/vulkan_oversubscribe/step.wgsl", "step.spv");
}

#[cfg(feature = "vulkan")]
mod shader {
    use std::path::Path;

    use naga::back::spv;
    use naga::valid::{Capabilities, ValidationFlags, Validator};

    /// WGSL to SPIR-V, into the build's folder.
    pub(crate) fn compile(source: &str, name: &str) {
        println!("cargo::rerun-if-changed={source}");
        let text = std::fs::read_to_string(source).expect("the shader's source");
        let module = match naga::front::wgsl::parse_str(&text) {
            Ok(module) => module,
            Err(error) => panic!("{}", error.emit_to_string_with_path(&text, source)),
        };
        let info = Validator::new(ValidationFlags::all(), Capabilities::empty())
            .validate(&module)
            .expect("a valid shader");
        let options = spv::Options {
            lang_version: (1, 3),
            ..spv::Options::default()
        };
        let words = spv::write_vec(&module, &info, &options, None).expect("SPIR-V");
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let folder = std::env::var("OUT_DIR").expect("cargo says where");
        std::fs::write(Path::new(&folder).join(name), bytes).expect("the build's folder");
    }
}
