#!/usr/bin/env bash
# Builds the module from a copy of this tree in another directory, with another cargo home, and compares the bytes with ./alb_oidc_filter.wasm.
set -euo pipefail
cd "$(dirname "$0")/.."

module=alb_oidc_filter.wasm
copy=$(mktemp -d); trap 'rm -rf "$copy"' EXIT
mkdir -p "$copy/another/directory" "$copy/cargo-home"

# The working tree, not the last commit: it was used for the build to compare.
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    if [ -e "$file" ]; then printf '%s\0' "$file"; fi
done | tar --null --files-from=- -cf - | tar -xf - -C "$copy/another/directory"
# Only the registry's settings: the crates are fetched and unpacked again.
home=${CARGO_HOME:-$HOME/.cargo}
for settings in "$home"/config.toml "$home"/config; do
    if [ -e "$settings" ]; then cp "$settings" "$copy/cargo-home/"; fi
done

CARGO_HOME=$copy/cargo-home make --no-print-directory -C "$copy/another/directory" module
if ! cmp "$module" "$copy/another/directory/$module"; then
    echo "not reproducible: a second build, in another directory, gave other bytes" >&2
    exit 1
fi
echo "reproducible: two builds in two directories gave sha256 $(sha256sum <"$module" | cut -d' ' -f1)"
