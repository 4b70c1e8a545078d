# SPDX-License-Identifier: Apache-2.0
# gRPC core, what only it uses, and the C++ library are linked statically: a process with one channel has 9.5 MB resident
# against 12.6 with shared libraries (8.8 if OpenSSL were static too, which would tie its security updates to our releases).
# OpenSSL, zlib and c-ares stay shared. The set comes from pkg-config; libraries refer to each other both ways.
GRPC_ALL := $(sort $(filter -l%,$(shell $(PKG_CONFIG) --static --libs-only-l grpc 2>/dev/null)))
GRPC_OWN := $(filter -lgrpc -laddress_sorting -lre2 -lupb -lgpr -labsl_%,$(GRPC_ALL))
GRPC_LIBS := -Wl,--start-group -Wl,-Bstatic $(GRPC_OWN) -Wl,-Bdynamic -Wl,--end-group -lssl -lcrypto -lcares -lz -ldl -lrt -latomic \
	$(if $(SAN),,-static-libstdc++ -static-libgcc)

$(call module,lib/grpc,lib/event lib/base,$(GRPC_LIBS))
