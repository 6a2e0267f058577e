//! Compiles `proto/` into Rust and into one descriptor set, with protox: no protoc to install.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

/// The contract, seen from this crate.
const ROOT: &str = "../../proto";
/// In the descriptor set so that reflection clients can read error details; `tonic-types` has the Rust types.
const ERROR_DETAILS: &str = "google/rpc/error_details.proto";
/// Prefix of type URLs in `google.protobuf.Any`, by which clients find the type again.
const TYPE_URL_DOMAIN: &str = "type.googleapis.com";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    let root = Path::new(ROOT);
    let mut files = proto_files(&root.join("clinic"))?;
    files.push(root.join(ERROR_DETAILS));
    files.sort();

    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_source_info(true).include_imports(true).open_files(files)?;
    let descriptors = PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin");
    fs::write(descriptors, compiler.encode_file_descriptor_set())?;

    let mut config = tonic_prost_build::Config::new();
    // Ordered maps, so that the same request has the same bytes each time and is known again by its request id.
    config.btree_map(["."]).enable_type_names().type_name_domain(["."], TYPE_URL_DOMAIN);
    tonic_prost_build::configure()
        // Channels are made in one place, with our limits; generated `connect` functions would go around it.
        .build_transport(false)
        // A method that a server leaves out answers UNIMPLEMENTED.
        .generate_default_stubs(true)
        .extern_path(".google.rpc", "::tonic_types::pb")
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    Ok(())
}

/// Every `.proto` file under `folder`.
fn proto_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(proto_files(&path)?);
        } else if path.extension().is_some_and(|e| e == "proto") {
            files.push(path);
        }
    }
    Ok(files)
}
