// SPDX-License-Identifier: Apache-2.0
// Log-linear histograms of whole numbers with two significant digits, so that the bounds people use (1, 5, 25, 250, …) are
// bounds of buckets and the relative error stays under ten per cent without configuration.
#include <stdlib.h>

#include "lib/base/check.h"
#include "lib/base/mem.h"
#include "proxy/stats/store.h"

const double histogram_quantiles[] = { 0, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 100 };
const size_t histogram_quantile_count = array_len(histogram_quantiles);

static unsigned decade_buckets(unsigned decade)
{
    return decade == 0 ? HISTOGRAM_UNITS : HISTOGRAM_STEPS;
}

void histogram_record(struct stat_histogram *h, uint64_t value)
{
    unsigned decade = 0;
    uint64_t step = 1; // width of a bucket
    if (value >= 1000000000) {
        value = 999999999;
    }
    uint64_t v = value;
    while (v >= 100) {
        v /= 10;
        decade++;
        step *= 10;
    }
    unsigned index = (unsigned)v;
    if (v >= 10) {
        decade++;
        index = (unsigned)(v - 10);
    }
    atomic_ullong *b = atomic_load_explicit(&h->decades[decade], memory_order_relaxed);
    if (!b) {
        b = mem_zalloc(sizeof(*b) * decade_buckets(decade));
        // Pairs with the acquire in histogram_merge: readers see zeroed buckets.
        atomic_store_explicit(&h->decades[decade], b, memory_order_release);
    }
    atomic_store_explicit(&b[index], atomic_load_explicit(&b[index], memory_order_relaxed) + 1, memory_order_relaxed);
    atomic_store_explicit(&h->sum, atomic_load_explicit(&h->sum, memory_order_relaxed) + value, memory_order_relaxed);
}

void histogram_free(struct stat_histogram *h)
{
    if (h) {
        for (size_t i = 0; i < HISTOGRAM_DECADES; i++) {
            free((void *)atomic_load_explicit(&h->decades[i], memory_order_relaxed));
        }
        free(h);
    }
}

void histogram_merge(const struct stat_histogram *h, struct histogram_sum *sum)
{
    uint64_t *out = sum->buckets;
    for (unsigned d = 0; d < HISTOGRAM_DECADES; d++) {
        const atomic_ullong *b = atomic_load_explicit(&h->decades[d], memory_order_acquire);
        for (unsigned i = 0; b && i < decade_buckets(d); i++) {
            uint64_t n = atomic_load_explicit(&b[i], memory_order_relaxed);
            out[i] += n;
            sum->count += n;
        }
        out += decade_buckets(d);
    }
    sum->sum += atomic_load_explicit(&h->sum, memory_order_relaxed);
}

// Lower bound and width of a bucket. Below ten a value stands for itself; a tenth of width keeps the quantiles of many equal
// small values apart from the next one, as Envoy prints them.
static double bucket_low(unsigned i, double *ret_width)
{
    if (i < HISTOGRAM_UNITS) {
        *ret_width = i == 0 ? 0 : 0.1;
        return i;
    }
    i -= HISTOGRAM_UNITS;
    double width = 1;
    for (unsigned d = i / HISTOGRAM_STEPS; d > 0; d--) {
        width *= 10;
    }
    *ret_width = width;
    return (10 + i % HISTOGRAM_STEPS) * width;
}

double histogram_quantile(const struct histogram_sum *s, double q)
{
    double want = q * (double)s->count, seen = 0, width = 0, low = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        double n = (double)s->buckets[i];
        if (n == 0) {
            continue;
        }
        low = bucket_low(i, &width);
        if (seen + n >= want) {
            double part = (want - seen) / n;
            return low + width * (part < 0 ? 0 : part);
        }
        seen += n;
    }
    return low + width;
}

uint64_t histogram_count_below(const struct histogram_sum *s, double bound)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        double width, low = bucket_low(i, &width);
        double last = width > 1 ? low + width - 1 : low; // values are whole numbers
        if (last > bound) {
            break;
        }
        n += s->buckets[i];
    }
    return n;
}
