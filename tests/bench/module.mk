# SPDX-License-Identifier: Apache-2.0
# What `make bench` runs beside the programs under test. Not in PROGRAMS: none of it is installed.
BENCH_PROGRAMS := $(addprefix $(B)/bench/,forwarder backend load)
LIBS_BENCH_load := $(shell $(PKG_CONFIG) --libs openssl 2>/dev/null || echo -lssl -lcrypto)

$(BENCH_PROGRAMS): $(B)/bench/%: $(B)/obj/tests/bench/%.c.o
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $< $(LIBS_BENCH_$*)

.PHONY: bench-programs
bench-programs: $(BENCH_PROGRAMS)

# One loop over one piece of pure code: $(B)/bench/bench_NAME [seconds]
MICRO_USES_h1 := lib/http
MICRO_USES_routes := proxy/model
MICRO_USES_authz := proxy/authz
MICRO_PROGRAMS := $(addprefix $(B)/bench/bench_,h1 routes authz)
define micro_rule
$(B)/bench/bench_$(1): $(B)/obj/tests/bench/micro/bench_$(1).c.o $$(call archives,$(MICRO_USES_$(1)))
	@mkdir -p $$(@D)
	@echo "  LINK  $$@"
	$(Q)$(CXX) $(LDFLAGS) -o $$@ $$< -Wl,--start-group $$(call archives,$(MICRO_USES_$(1))) -Wl,--end-group $$(call closure_libs,$(MICRO_USES_$(1))) -lm
endef
$(foreach n,h1 routes authz,$(eval $(call micro_rule,$(n))))

.PHONY: micro
micro: $(MICRO_PROGRAMS) ## builds the loops over single pieces of code ($(B)/bench/bench_*)
