//! From `.proto` files to Rust code and a descriptor set, in memory.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorSet};
use protox::Compiler;

use crate::output::{self, Generated};

/// One crate whose code is generated: `proto/` to `src/gen/`.
pub(crate) struct Target {
    /// The crate, from the root of the repository.
    pub(crate) path: &'static str,
    /// The files to generate from, and with them everything that they import.
    sources: &'static [&'static str],
    /// Whether the descriptor set is written next to the code.
    descriptors: bool,
}

pub(crate) const TARGETS: [Target; 2] = [
    Target {
        path: "crates/waypost-proto",
        sources: &[
            "authpb/auth.proto",
            "etcdserverpb/auth.proto",
            "etcdserverpb/cluster.proto",
            "etcdserverpb/kv.proto",
            "etcdserverpb/lease.proto",
            "etcdserverpb/maintenance.proto",
            "etcdserverpb/watch.proto",
            "mvccpb/kv.proto",
            "v3electionpb/v3election.proto",
            "v3lockpb/v3lock.proto",
        ],
        descriptors: true,
    },
    Target { path: "examples/greeter", sources: &["greeter.proto"], descriptors: true },
];

/// Messages that carry a secret. Their `Debug` is written by hand in `waypost-proto`.
const SECRET: [&str; 5] = [
    "authpb.User",
    "etcdserverpb.AuthUserAddRequest",
    "etcdserverpb.AuthUserChangePasswordRequest",
    "etcdserverpb.AuthenticateRequest",
    "etcdserverpb.AuthenticateResponse",
];

/// Names on the wire whose conversion to snake case would come out broken, as `peer_ur_ls`; and what Rust calls them.
const RENAMED: [(&str, &str); 2] = [("peerURLs", "peer_urls"), ("clientURLs", "client_urls")];

// === impl Target ===

impl Target {
    /// The folder of the crate.
    pub(crate) fn folder(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(self.path)
    }

    /// Generates everything from the `.proto` files.
    pub(crate) fn generate(&self) -> Result<Generated> {
        let mut compiler = Compiler::new([self.folder().join("proto")]).context("proto folder")?;
        compiler
            .include_imports(true)
            .include_source_info(true)
            .open_files(self.sources)
            .context("the .proto files")?;
        let mut descriptors = compiler.file_descriptor_set();

        let mut files = rust_files(descriptors.clone())?;
        if self.descriptors {
            for file in &mut descriptors.file {
                file.source_code_info = None;
            }
            files.insert("descriptor.bin".to_owned(), descriptors.encode_to_vec());
        }
        Ok(Generated::new(files))
    }
}

fn rust_files(mut descriptors: FileDescriptorSet) -> Result<BTreeMap<String, Vec<u8>>> {
    for message in descriptors.file.iter_mut().flat_map(|file| &mut file.message_type) {
        rename_fields(message);
    }
    let folder = tempfile::tempdir().context("temporary folder")?;
    tonic_prost_build::configure()
        .bytes(".")
        .skip_debug(SECRET)
        .build_transport(false)
        .out_dir(folder.path())
        .compile_fds(descriptors)
        .context("code generation")?;
    output::read_folder(folder.path())
}

/// Only Rust sees the new names: a message on the wire has no names, and the descriptor set keeps the old ones.
fn rename_fields(message: &mut DescriptorProto) {
    for field in &mut message.field {
        if let Some((_, rust)) = RENAMED.iter().find(|(wire, _)| *wire == field.name()) {
            field.name = Some((*rust).to_owned());
        }
    }
}
