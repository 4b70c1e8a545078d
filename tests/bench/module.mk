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
