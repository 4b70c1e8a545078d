# SPDX-License-Identifier: Apache-2.0
# remora: the only entry point. `make help` lists the targets.
#
# Each folder declares itself in its module.mk with one line:
#
#   $(call module,FOLDER,FOLDERS IT USES,LINK FLAGS[,EXTRA SUB-FOLDERS])
#
# All FOLDER/*.c (but main.c) become one archive; tests/unit/FOLDER/test_*.c become one cmocka program each,
# linked with the archive and, transitively, with what the folder uses. Programs are declared with
#
#   $(call program,NAME,MAIN.C,FOLDERS IT USES,LINK FLAGS)
#
# Variables: B=build directory, SAN=asan|ubsan|tsan, V=1 (show commands), T=folder (restricts `unit`), DEBUG=1 (-O0).

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:
MAKEFLAGS += --no-builtin-rules
SHELL := /bin/bash

SAN ?=
B ?= build$(if $(SAN),-$(SAN))
V ?=
Q := $(if $(V),,@)
CC := $(if $(filter default undefined,$(origin CC)),gcc,$(CC))
CXX := $(if $(filter default undefined,$(origin CXX)),g++,$(CXX))
PKG_CONFIG ?= pkg-config
VERSION := 0.1.0
PREFIX ?= /usr/local

WARN := -Wall -Wextra -Wshadow -Wvla -Werror
CWARN := -Wstrict-prototypes -Wmissing-prototypes
# Programs are optimised over all folders at once, 2-3 % of an HTTP request; tests link the ordinary code that the objects hold as well.
LTO := $(if $(SAN)$(DEBUG)$(filter-out gcc,$(CC)),,-flto=auto -ffat-lto-objects)
OPT := $(if $(DEBUG),-O0,-O2) -g $(LTO)
HARDEN := -fstack-protector-strong $(if $(SAN)$(DEBUG),,-D_FORTIFY_SOURCE=2)
SAN_asan := -fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined
SAN_ubsan := -fsanitize=undefined -fno-sanitize-recover=undefined
SAN_tsan := -fsanitize=thread
SANFLAGS := $(if $(SAN),$(or $(SAN_$(SAN)),$(error SAN must be asan, ubsan or tsan)))
CHECKED := $(if $(SAN)$(DEBUG),-DREMORA_CHECKED=1)
CPPFLAGS := -I. -I$(B)/gen -D_GNU_SOURCE -DREMORA_VERSION='"$(VERSION)"' $(CHECKED)
CFLAGS := -std=gnu17 $(OPT) $(WARN) $(CWARN) $(HARDEN) $(SANFLAGS) -fno-strict-aliasing -ffunction-sections -fdata-sections
CXXFLAGS := -std=gnu++17 $(OPT) $(WARN) $(HARDEN) $(SANFLAGS) -ffunction-sections -fdata-sections -fno-exceptions -fno-rtti
# libstdc++ and packed relocations: 1.9 MB of resident memory less, most of it pages that only the dynamic linker looks at.
LDLEAN := $(if $(SAN),,-static-libstdc++ -static-libgcc -Wl,-z,pack-relative-relocs)
LDFLAGS := $(SANFLAGS) -pthread -Wl,--gc-sections -Wl,--as-needed -Wl,-z,relro,-z,now $(LDLEAN)

MODULES :=
PROGRAMS :=
# Folders whose objects need the generated protobuf headers first.
GEN_USERS :=

# closure(folders): the folders and all that they use, each once, users before used.
closure = $(call closure_,$(1),)
closure_ = $(if $(strip $(1)),$(call closure_,$(sort $(filter-out $(2) $(1),$(foreach m,$(1),$(USES_$(m))))),$(2) $(1)),$(2))
archive = $(B)/lib/$(subst /,_,$(1)).a
archives = $(foreach m,$(call closure,$(1)),$(call archive,$(m)))
closure_libs = $(foreach m,$(call closure,$(1)),$(LIBS_$(m)))

define module
$(eval $(call module_,$(strip $(1)),$(2),$(3),$(4)))
endef
define module_
MODULES += $(1)
USES_$(1) := $(2)
LIBS_$(1) := $(3)
SRCS_$(1) := $$(filter-out %/main.c,$$(wildcard $(1)/*.c $(1)/*.cc $$(addsuffix /*.c,$$(addprefix $(1)/,$(4)))))
endef

define program
$(eval $(call program_,$(strip $(1)),$(2),$(3),$(4)))
endef
define program_
PROGRAMS += $(1)
MAIN_$(1) := $(2)
USES_PROG_$(1) := $(3)
LIBS_PROG_$(1) := $(4)
endef

include $(wildcard lib/*/module.mk proto/module.mk xds-client/module.mk proxy/module.mk init-net/module.mk \
	control-plane/module.mk injector/module.mk cli/module.mk tests/*/module.mk)

objs = $(patsubst %,$(B)/obj/%.o,$(SRCS_$(1)))

define module_rules
OBJS_$(1) := $$(call objs,$(1))
$(call archive,$(1)): $$(OBJS_$(1))
	@mkdir -p $$(@D)
	$(Q)rm -f $$@ && ar rcs $$@ $$(OBJS_$(1))
ifneq ($(filter proto,$(call closure,$(1))),)
$$(OBJS_$(1)): | $(B)/gen/.stamp
GEN_USERS += $(1)
endif
TESTS_$(1) := $$(patsubst %.c,$(B)/%,$$(wildcard tests/unit/$(1)/test_*.c))
TESTS += $$(TESTS_$(1))
$$(TESTS_$(1)): $(B)/%: $(B)/obj/%.c.o $(B)/obj/tests/unit/fixed_seed.c.o $$(call archives,$(1))
	@mkdir -p $$(@D)
	@echo "  LINK  $$@"
	$(Q)$(CXX) $(LDFLAGS) $(if $(LTO),-fno-lto) -o $$@ $$< $(B)/obj/tests/unit/fixed_seed.c.o -Wl,--start-group $$(call archives,$(1)) -Wl,--end-group \
		$$(call closure_libs,$(1)) -lcmocka -lm
ifneq ($(filter proto,$(call closure,$(1))),)
$$(patsubst $(B)/%,$(B)/obj/%.c.o,$$(TESTS_$(1))): | $(B)/gen/.stamp
endif
endef
$(foreach m,$(MODULES),$(eval $(call module_rules,$(m))))

define program_rules
$(B)/bin/$(1): $(B)/obj/$(MAIN_$(1)).o $$(call archives,$(USES_PROG_$(1)))
	@mkdir -p $$(@D)
	@echo "  LINK  $$@"
	$(Q)$(CXX) $(LDFLAGS) $(if $(LTO),-flto=auto -O2) -o $$@ $$< -Wl,--start-group $$(call archives,$(USES_PROG_$(1))) -Wl,--end-group \
		$$(call closure_libs,$(USES_PROG_$(1))) $(LIBS_PROG_$(1)) -lm
ifneq ($(filter proto,$(call closure,$(USES_PROG_$(1)))),)
$(B)/obj/$(MAIN_$(1)).o: | $(B)/gen/.stamp
endif
endef
$(foreach p,$(PROGRAMS),$(eval $(call program_rules,$(p))))

# Folders that every request goes through are worth more room for their code: 5 % of the instructions.
HOT := lib/base lib/event lib/net lib/http proxy/http proxy/router proxy/upstream proxy/model proxy/filters/http proxy/listener proxy/stats
$(foreach d,$(HOT),$(B)/obj/$(d)/%.c.o): CFLAGS += $(if $(LTO),-O3)

$(B)/obj/%.c.o: %.c
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(CFLAGS_$(@F)) -MMD -MP -c -o $@ $<

$(B)/obj/%.cc.o: %.cc
	@mkdir -p $(@D)
	@echo "  CXX   $<"
	$(Q)$(CXX) $(CPPFLAGS) $(CXXFLAGS) -MMD -MP -c -o $@ $<

-include $(shell [ -d $(B)/obj ] && find $(B)/obj -name '*.d' 2>/dev/null)

.PHONY: all programs deps unit help clean
programs: $(addprefix $(B)/bin/,$(PROGRAMS)) ## build the programs into build/bin/
all: programs

UNIT := $(if $(T),$(foreach t,$(T),$(TESTS_$(patsubst %/,%,$(t)))),$(TESTS))
unit: $(UNIT) ## build and run the unit tests (T=lib/http: only that folder)
	@tools/run-unit $(UNIT)

clean: ## remove the build directories
	rm -rf build build-asan build-ubsan build-tsan build-fuzz

help: ## this list
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | sort -u | \
		while IFS='|' read -r t d; do printf '  %-16s %s\n' "$$t" "$$d"; done

include tests/targets.mk
