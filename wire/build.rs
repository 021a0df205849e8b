//! Generates messages and services from `proto/farshore.proto`; protox needs no protoc on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/farshore.proto");
    let descriptors = protox::compile(["proto/farshore.proto"], ["proto"])?;
    tonic_prost_build::configure().bytes(".").codec_path("crate::sealed::SealedCodec").compile_fds(descriptors)?;
    Ok(())
}
