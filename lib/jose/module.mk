# SPDX-License-Identifier: Apache-2.0
$(call module,lib/jose,lib/base,-lcrypto)
