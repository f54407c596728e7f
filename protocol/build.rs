//! Generates the messages and services of `proto/darter.proto`; needs no compiler but ours.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/darter.proto");
    let files = protox::compile(["proto/darter.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .compile_fds(files)?;
    Ok(())
}
