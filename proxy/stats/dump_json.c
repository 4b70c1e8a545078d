// SPDX-License-Identifier: Apache-2.0
// Envoy's GET /stats?format=json: {"stats":[{"name","value"},…,{"histograms":{"supported_quantiles","computed_quantiles"}}]}.
#include "lib/base/json.h"
#include "proxy/stats/rows.h"

struct json_dump {
    struct json_writer w;
    bool histograms; // the histograms object is open
};

static void json_text(void *arg, struct str name, struct str value)
{
    struct json_writer *w = &((struct json_dump *)arg)->w;
    jw_object(w);
    jw_kv(w, "name", name);
    jw_kv(w, "value", value);
    jw_object_end(w);
}

static void json_value(void *arg, struct str name, uint64_t value)
{
    struct json_writer *w = &((struct json_dump *)arg)->w;
    jw_object(w);
    jw_kv(w, "name", name);
    jw_kv_u64(w, "value", value);
    jw_object_end(w);
}

static void histograms_begin(struct json_dump *d)
{
    struct json_writer *w = &d->w;
    d->histograms = true;
    jw_object(w);
    jw_key(w, STR("histograms"));
    jw_object(w);
    jw_key(w, STR("supported_quantiles"));
    jw_array(w);
    for (size_t i = 0; i < histogram_quantile_count; i++) {
        jw_double(w, histogram_quantiles[i]);
    }
    jw_array_end(w);
    jw_key(w, STR("computed_quantiles"));
    jw_array(w);
}

static void json_histogram(void *arg, struct str name, const struct histogram_sum *h)
{
    struct json_dump *d = arg;
    struct json_writer *w = &d->w;
    if (!d->histograms) {
        histograms_begin(d);
    }
    jw_object(w);
    jw_kv(w, "name", name);
    jw_key(w, STR("values"));
    jw_array(w);
    for (size_t i = 0; i < histogram_quantile_count; i++) {
        jw_object(w);
        jw_key(w, STR("interval"));
        jw_null(w);
        jw_key(w, STR("cumulative"));
        if (h->count) {
            jw_double(w, histogram_quantile(h, histogram_quantiles[i] / 100));
        } else {
            jw_null(w);
        }
        jw_object_end(w);
    }
    jw_array_end(w);
    jw_object_end(w);
}

void stats_dump_json(struct stats_store *s, const struct stats_dump_opts *o, struct buf *out)
{
    struct json_dump d = { .histograms = false };
    const struct stats_visitor vis = {
        .arg = &d, .text = json_text, .value = json_value, .histogram = json_histogram
    };
    jw_init(&d.w, out, 0);
    jw_object(&d.w);
    jw_key(&d.w, STR("stats"));
    jw_array(&d.w);
    stats_each(s, o, &vis);
    if (d.histograms) {
        jw_array_end(&d.w);
        jw_object_end(&d.w);
        jw_object_end(&d.w);
    }
    jw_array_end(&d.w);
    jw_object_end(&d.w);
}
