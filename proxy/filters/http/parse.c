// SPDX-License-Identifier: Apache-2.0
#include "proxy/filters/http/parse.h"

struct fraction parse_fraction(const Envoy__Type__V3__FractionalPercent *m)
{
    static const uint32_t denominators[] = { 100, 10000, 1000000 };
    struct fraction f = { .numerator = 0, .denominator = 100 };
    if (m) {
        f.numerator = m->numerator;
        f.denominator = (unsigned)m->denominator < 3 ? denominators[m->denominator] : 100;
    }
    return f;
}
