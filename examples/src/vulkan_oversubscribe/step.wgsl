// One pass over an object: each word becomes another, which depends on where it is.
// `content::step` is the same for the CPU.

@group(0) @binding(0) var<storage, read_write> words: array<u32>;

@compute @workgroup_size(64)
fn main(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let stride = groups.x * 64u;
    for (var n = id.x; n < arrayLength(&words); n += stride) {
        var word = (words[n] ^ (n * 0x9e3779b9u)) * 0x85ebca6bu;
        word ^= word >> 13u;
        words[n] = word * 0xc2b2ae35u + 1u;
    }
}
