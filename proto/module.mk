# SPDX-License-Identifier: Apache-2.0
# protoc-c turns every .proto below this folder, and Google's well-known types, into $(B)/gen; its stamp is what other
# modules wait for. The generated .c are compiled in a few batches: nearly all of the time goes into their headers.
PROTO_FILES := $(sort $(shell find proto -name '*.proto'))
PROTO_WELL_KNOWN := $(addprefix google/protobuf/,any.proto duration.proto empty.proto struct.proto timestamp.proto wrappers.proto)
PROTO_NAMES := $(patsubst proto/%,%,$(PROTO_FILES)) $(PROTO_WELL_KNOWN)
PROTO_HEADERS := $(patsubst %.proto,$(B)/gen/%.pb-c.h,$(PROTO_NAMES))
PROTO_BATCHES := 0 1 2 3 4 5 6 7

$(call module,proto,lib/base,-lprotobuf-c)
SRCS_proto += $(PROTO_BATCHES:%=gen/batch-%.c)

# Built aside and moved as a whole, so that an interrupted run leaves no half-written header behind.
$(B)/gen/.stamp: $(PROTO_FILES) proto/module.mk
	@echo "  PROTO $(words $(PROTO_NAMES)) files"
	@mkdir -p $(B)
	$(Q)rm -rf $(B)/gen.new && mkdir $(B)/gen.new && \
		protoc-c -Iproto --c_out=$(B)/gen.new $(PROTO_NAMES) && \
		i=0; for f in $(PROTO_NAMES:.proto=.pb-c.c); do \
			echo "#include \"$$f\"" >> $(B)/gen.new/batch-$$((i++ % $(words $(PROTO_BATCHES)))).c; done && \
		rm -rf $(B)/gen && mv $(B)/gen.new $(B)/gen && touch $@

$(PROTO_HEADERS) $(PROTO_BATCHES:%=$(B)/gen/batch-%.c): $(B)/gen/.stamp ;

# Generated code: our warnings do not apply, and its debug information would outweigh everything else.
$(B)/obj/gen/%.c.o: $(B)/gen/%.c
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(CPPFLAGS) $(filter-out $(WARN) $(CWARN) -g,$(CFLAGS)) -w -c -o $@ $<
