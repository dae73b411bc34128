//! The OCI image layout that `istio/image/layout` and `istio/image/artifact` write: blobs, media
//! types, content and digest, as Istio's agent and a kubelet read them. No registry.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The one that `make` leaves.
fn installed_oras() -> PathBuf {
    let versions = std::fs::read_dir(repository("target/oras"));
    let mut versions = versions.into_iter().flatten().flatten();
    let version = versions.next().expect("no oras: run `make layout`");
    version.path().join("bin/oras")
}

fn output(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|error| panic!("{error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    output.stdout
}

/// Writes the layout of this module. Returns the printed digest.
fn layout(module: &Path, folder: &Path) -> String {
    write("layout", module, folder)
}

/// Runs a script of `istio/image`. Returns the printed digest.
fn write(script: &str, module: &Path, folder: &Path) -> String {
    let oras = std::env::var_os("ALB_OIDC_ORAS").map_or_else(installed_oras, PathBuf::from);
    let mut command = Command::new(repository("istio/image").join(script));
    let printed = output(command.args([module, folder]).env("ORAS", oras));
    String::from_utf8(printed)
        .expect("UTF-8")
        .trim_end()
        .to_owned()
}

fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let hex = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
    format!("sha256:{}", hex.collect::<String>())
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

/// The blob of this descriptor. Its bytes have the digest and the size of the descriptor.
fn blob(folder: &Path, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().expect("a digest");
    let (_, hex) = digest.split_once(':').expect("sha256:HEX");
    let bytes = std::fs::read(folder.join("blobs/sha256").join(hex)).expect("the blob");
    assert_eq!(sha256(&bytes), digest);
    assert_eq!(descriptor["size"], bytes.len());
    bytes
}

#[test]
fn layout_is_an_image_with_the_module() {
    let work = tempfile::tempdir().expect("a folder");
    let (module, folder) = (work.path().join("any.wasm"), work.path().join("image"));
    let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&module, &content).expect("the module");
    let digest = layout(&module, &folder);

    let index = json(&std::fs::read(folder.join("index.json")).expect("the index"));
    let version = json(&std::fs::read(folder.join("oci-layout")).expect("the version"));
    assert_eq!(version["imageLayoutVersion"], "1.0.0");
    let manifests = index["manifests"].as_array().expect("manifests");
    assert_eq!(manifests.len(), 1);
    assert_eq!(manifests[0]["digest"], digest.as_str());
    let image = json(&blob(&folder, &manifests[0]));
    let media_type = |of: &Value| of["mediaType"].as_str().expect("a media type").to_owned();
    assert_eq!(
        media_type(&image),
        "application/vnd.oci.image.manifest.v1+json"
    );

    // Istio's agent reads plugin.wasm from the last layer, if it has this media type.
    let layers = image["layers"].as_array().expect("layers");
    assert_eq!(layers.len(), 1);
    assert_eq!(
        media_type(&layers[0]),
        "application/vnd.oci.image.layer.v1.tar+gzip"
    );
    let archive = work.path().join("layer.tar.gz");
    std::fs::write(&archive, blob(&folder, &layers[0])).expect("the layer");
    let tar = |options: &str| output(Command::new("tar").arg(options).arg(&archive));
    assert_eq!(tar("-tzf"), b"plugin.wasm\n");
    assert!(
        tar("-xzOf") == content,
        "plugin.wasm differs from the module"
    );

    // A kubelet compares the uncompressed layer with the configuration.
    assert_eq!(
        media_type(&image["config"]),
        "application/vnd.oci.image.config.v1+json"
    );
    let config = json(&blob(&folder, &image["config"]));
    let tar = output(Command::new("gzip").arg("-dc").arg(&archive));
    assert_eq!(
        config["rootfs"]["diff_ids"],
        serde_json::json!([sha256(&tar)])
    );
}

#[test]
fn layout_takes_a_wasm_artifact() {
    let work = tempfile::tempdir().expect("a folder");
    let (module, folder) = (work.path().join("any.wasm"), work.path().join("image"));
    std::fs::write(&module, b"any").expect("the module");
    let image = layout(&module, &folder);
    let digest = write("artifact", &module, &folder);
    let index = json(&std::fs::read(folder.join("index.json")).expect("the index"));
    let manifests = index["manifests"].as_array().expect("manifests");
    let tagged = |tag: &str| {
        let named = |one: &&Value| one["annotations"]["org.opencontainers.image.ref.name"] == tag;
        manifests.iter().find(named).expect("the tag")
    };
    assert_eq!(manifests.len(), 2);
    assert_eq!(tagged("latest")["digest"], image.as_str());
    assert_eq!(tagged("artifact")["digest"], digest.as_str());

    // Istio's agent and Envoy Gateway require two layers.
    let artifact = json(&blob(&folder, tagged("artifact")));
    let layers = artifact["layers"].as_array().expect("layers");
    let types: Vec<_> = layers.iter().map(|layer| &layer["mediaType"]).collect();
    assert_eq!(
        types,
        [
            "application/vnd.module.wasm.config.v1+json",
            "application/vnd.module.wasm.content.layer.v1+wasm"
        ]
    );
    assert_eq!(json(&blob(&folder, &layers[0]))["type"], "envoy_proxy");
    assert_eq!(blob(&folder, &layers[1]), b"any");

    layout(&module, &folder);
    assert_eq!(write("artifact", &module, &folder), digest);
}

#[test]
fn digest_depends_on_the_module_alone() {
    let work = tempfile::tempdir().expect("a folder");
    let written = |name: &str, content: &[u8]| {
        let module = work.path().join(name);
        std::fs::write(&module, content).expect("the module");
        layout(&module, &work.path().join("image"))
    };
    let first = written("first.wasm", b"one");
    assert_eq!(written("second.wasm", b"one"), first);
    assert_ne!(written("third.wasm", b"two"), first);
}
