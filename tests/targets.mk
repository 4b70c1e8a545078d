# SPDX-License-Identifier: Apache-2.0
# Test targets other than the unit tests.
