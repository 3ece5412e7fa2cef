/* What the items of a slate have in common with their user, and relevance. */
#include "kernels.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* scale_scores(score (B, K) f64, use (B, K) bool, out (B, K) f64, rows)
 * Scores scaled to 0..1 over the finite ones in use of a row; 0 for the others. */
PyObject *scale_scores(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[3];
    if (expect(count == 4, "4 arguments") < 0) return NULL;
    Py_ssize_t rows = PyLong_AsSsize_t(args[3]);
    if (PyErr_Occurred() || read_arrays(args, "d?D", v) < 0) return NULL;
    Py_ssize_t width = rows ? length(&v[0]) / rows : 0;
    int good = length(&v[1]) == length(&v[0]) && length(&v[2]) == length(&v[0]);
    for (Py_ssize_t b = 0; good && b < rows; b++) {
        const double *score = (const double *)v[0].buf + b * width;
        const char *use = (const char *)v[1].buf + b * width;
        double *out = (double *)v[2].buf + b * width, low = INFINITY, high = -INFINITY;
        for (Py_ssize_t k = 0; k < width; k++) {
            if (!use[k] || !isfinite(score[k])) continue;
            if (score[k] < low) low = score[k];
            if (score[k] > high) high = score[k];
        }
        double spread = high > low ? high - low : 1.0;
        for (Py_ssize_t k = 0; k < width; k++) out[k] = use[k] && isfinite(score[k]) ? (score[k] - low) / spread : 0.0;
    }
    release_arrays(v, 3);
    return expect(good, "scores and marks of one shape") < 0 ? NULL : Py_NewRef(Py_None);
}

enum { ITEM, SOURCE, SIMILARITY, PAST, WEIGHT, NOW, CREATOR_KEY, CREATOR_WEIGHT, TAG_KEY, TAG_WEIGHT, AVAILABLE, CREATOR,
       BEGIN, TAGS, PUBLISHED, BITS, SETTINGS, REASON, NAMED };
enum { PERSONAL, CONTENT, POPULARITY };
enum { LIKED, LEAST, NEW_US, ALWAYS, TASTE };

typedef struct {
    const int32_t *past, *creator_key, *tag_key, *creator, *tag;
    const float *weight, *creator_weight, *tag_weight;
    const int64_t *begin, *published;
    const char *available;
    Py_ssize_t events, creators, tags;
} Reader;

/* The latest of the most similar nameable events of at least this weight (above 0 for `above`), or -1. */
static Py_ssize_t find_similar(const Reader *user, const float *similarity, float least, int above, float *best) {
    Py_ssize_t found = -1;
    *best = -1.0f;
    for (Py_ssize_t t = user->events - 1; t >= 0; t--) {
        int use = user->past[t] != NONE && user->available[user->past[t]];
        use = use && (above ? user->weight[t] > least : user->weight[t] >= least);
        if (use && similarity[t] > *best) *best = similarity[t], found = t;
    }
    return found;
}

static int plays_creator(const Reader *user, int32_t item) {
    int32_t own = user->creator[item];
    for (Py_ssize_t a = 0; own != NONE && a < user->creators; a++)
        if (user->creator_weight[a] > 0 && user->creator_key[a] == own) return 1;
    return 0;
}

static int has_favorite_tag(const Reader *user, int32_t item, Py_ssize_t most) {
    for (int64_t m = user->begin[item]; m < user->begin[item + 1]; m++)
        for (Py_ssize_t a = 0; a < user->tags && a < most; a++)
            if (user->tag_weight[a] > 0 && user->tag_key[a] == user->tag[m]) return 1;
    return 0;
}

static int is_only(uint32_t source, uint32_t wanted) { return (source & wanted) && !(source & ~wanted); }

/* Number of the reason of one item in REASONS of reasons.py, and the item that it names. */
static int choose(const Reader *user, int32_t item, uint32_t source, const float *similarity, int64_t now,
                  const uint32_t *bits, const double *set, int32_t *named) {
    float best, least = (float)set[LEAST];
    *named = NONE;
    for (Py_ssize_t t = 0; t < user->events; t++)
        if (user->past[t] == item) return 1;
    for (int above = 0; (source & bits[PERSONAL]) && above < 2; above++) {
        Py_ssize_t t = find_similar(user, similarity, above ? 0.0f : (float)set[LIKED], above, &best);
        if (!(best >= least)) continue;
        *named = user->past[t];
        return 2 + above;
    }
    if (plays_creator(user, item)) return 4;
    int64_t published = user->published[item];
    int is_new = published != (int64_t)set[ALWAYS] && published >= now - (int64_t)set[NEW_US] && published <= now;
    if (is_new && is_only(source, bits[CONTENT])) return 5;
    if ((source & bits[PERSONAL]) && has_favorite_tag(user, item, (Py_ssize_t)set[TASTE])) return 6;
    return is_only(source, bits[POPULARITY]) ? 7 : 0;
}

/* choose_reasons(item (B, n) i32, source (B, n) i64, similarity (B, n, T) f32, past (B, T) i32, weight (B, T) f32,
 *                now (B,) i64, creator (B, A) i32, weight (B, A) f32, tag (B, A) i32, weight (B, A) f32,
 *                available (I,) bool, creator_of (I,) i32, begin (I + 1,) i64, tags (M,) i32, published (I,) i64,
 *                bits (3,) i64, settings (5,) f64, reason (B, n) i8, named (B, n) i32)
 * bits: of personal sources, of content, of popularity. settings: as numbered above. */
PyObject *choose_reasons(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[19];
    if (expect(count == 19, "19 arguments") < 0 || read_arrays(args, "ilfiflififqililldBI", v) < 0) return NULL;
    Py_ssize_t rows = length(&v[NOW]), n = rows ? length(&v[ITEM]) / rows : 0, items = length(&v[CREATOR]);
    Reader user = {.creator = v[CREATOR].buf, .tag = v[TAGS].buf, .begin = v[BEGIN].buf, .published = v[PUBLISHED].buf,
                   .available = v[AVAILABLE].buf, .events = rows ? length(&v[PAST]) / rows : 0,
                   .creators = rows ? length(&v[CREATOR_KEY]) / rows : 0, .tags = rows ? length(&v[TAG_KEY]) / rows : 0};
    int good = length(&v[SOURCE]) == length(&v[ITEM]) && length(&v[REASON]) == length(&v[ITEM]) &&
               length(&v[NAMED]) == length(&v[ITEM]) && length(&v[SIMILARITY]) == length(&v[ITEM]) * user.events &&
               length(&v[WEIGHT]) == length(&v[PAST]) && length(&v[CREATOR_WEIGHT]) == length(&v[CREATOR_KEY]) &&
               length(&v[TAG_WEIGHT]) == length(&v[TAG_KEY]) && length(&v[AVAILABLE]) == items &&
               length(&v[BEGIN]) == items + 1 && length(&v[PUBLISHED]) == items && length(&v[BITS]) == 3 &&
               length(&v[SETTINGS]) == 5;
    uint32_t bits[3];
    for (int m = 0; good && m < 3; m++) bits[m] = (uint32_t)((const int64_t *)v[BITS].buf)[m];
    for (Py_ssize_t b = 0; good && b < rows; b++) {
        user.past = (const int32_t *)v[PAST].buf + b * user.events;
        user.weight = (const float *)v[WEIGHT].buf + b * user.events;
        user.creator_key = (const int32_t *)v[CREATOR_KEY].buf + b * user.creators;
        user.creator_weight = (const float *)v[CREATOR_WEIGHT].buf + b * user.creators;
        user.tag_key = (const int32_t *)v[TAG_KEY].buf + b * user.tags;
        user.tag_weight = (const float *)v[TAG_WEIGHT].buf + b * user.tags;
        for (Py_ssize_t t = 0; good && t < user.events; t++) good = user.past[t] >= NONE && user.past[t] < items;
        for (Py_ssize_t c = b * n; good && c < (b + 1) * n; c++) {
            int32_t item = ((const int32_t *)v[ITEM].buf)[c], *named = (int32_t *)v[NAMED].buf + c;
            good = item == NONE || (item >= 0 && item < items && has_segment(user.begin, item, length(&v[TAGS])));
            *named = NONE, ((signed char *)v[REASON].buf)[c] = 0;
            if (item == NONE || !good) continue;
            ((signed char *)v[REASON].buf)[c] = (signed char)choose(
                &user, item, (uint32_t)((const int64_t *)v[SOURCE].buf)[c], (const float *)v[SIMILARITY].buf + c * user.events,
                ((const int64_t *)v[NOW].buf)[b], bits, v[SETTINGS].buf, named);
        }
    }
    release_arrays(v, 19);
    return expect(good, "one value of each item and event, and items of the catalog") < 0 ? NULL : Py_NewRef(Py_None);
}

static int compare_keys(const void *a, const void *b) {
    int32_t left = *(const int32_t *)a, right = *(const int32_t *)b;
    return (left > right) - (left < right);
}

typedef struct {
    const int64_t *begin;
    const int32_t *tag;
    Table table;
    int32_t *seen;
} Tags;

/* Number the distinct tags of some items, ascending; returns their count. */
static Py_ssize_t number_tags(Tags *tags, const int32_t *items, Py_ssize_t width) {
    Py_ssize_t count = 0;
    table_clear(&tags->table);
    for (Py_ssize_t m = 0; m < width; m++) {
        for (int64_t t = items[m] < 0 ? 0 : tags->begin[items[m]]; items[m] >= 0 && t < tags->begin[items[m] + 1]; t++) {
            uint32_t at = table_place(&tags->table, tags->tag[t]);
            if (tags->table.key[at] != NONE || tags->tag[t] == NONE) continue;
            tags->table.key[at] = tags->seen[count++] = tags->tag[t];
        }
    }
    qsort(tags->seen, (size_t)count, sizeof(int32_t), compare_keys);
    for (Py_ssize_t u = 0; u < count; u++) tags->table.value[table_place(&tags->table, tags->seen[u])] = (int32_t)u;
    return count;
}

/* build_tag_vectors(items (B, M) i32, begin (I + 1,) i64, tags (N,) i32, rows)
 * Returns float32 unit vectors (B, M, U) as bytes, and U: at least 1, the most distinct tags of a row. */
PyObject *build_tag_vectors(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[3];
    if (expect(count == 4, "4 arguments") < 0) return NULL;
    Py_ssize_t rows = PyLong_AsSsize_t(args[3]);
    if (PyErr_Occurred() || read_arrays(args, "ili", v) < 0) return NULL;
    Py_ssize_t width = rows ? length(&v[0]) / rows : 0, places = length(&v[1]) - 1, most = 0, columns = 1;
    const int32_t *items = v[0].buf;
    Tags tags = {.begin = v[1].buf, .tag = v[2].buf};
    int good = 1, made = 0;
    for (Py_ssize_t b = 0; good && b < rows; b++) {
        Py_ssize_t all = 0;
        for (Py_ssize_t m = b * width; good && m < (b + 1) * width; m++) {
            good = items[m] < 0 || (items[m] < places && has_segment(tags.begin, items[m], length(&v[2])));
            if (good && items[m] >= 0) all += (Py_ssize_t)(tags.begin[items[m] + 1] - tags.begin[items[m]]);
        }
        most = all > most ? all : most;
    }
    tags.seen = good ? malloc((size_t)(most + 1) * sizeof(int32_t)) : NULL;
    if (tags.seen) made = table_make(&tags.table, most) == 0;
    for (Py_ssize_t b = 0; made && b < rows; b++) {
        Py_ssize_t own = number_tags(&tags, items + b * width, width);
        columns = own > columns ? own : columns;
    }
    PyObject *vectors = made ? PyBytes_FromStringAndSize(NULL, rows * width * columns * (Py_ssize_t)sizeof(float)) : NULL;
    if (vectors) {
        float *out = (float *)PyBytes_AsString(vectors);
        memset(out, 0, (size_t)(rows * width * columns) * sizeof(float));
        for (Py_ssize_t b = 0; b < rows; b++) {
            if (rows > 1) number_tags(&tags, items + b * width, width);
            for (Py_ssize_t m = b * width; m < (b + 1) * width; m++) {
                int64_t from = items[m] < 0 ? 0 : tags.begin[items[m]], to = items[m] < 0 ? 0 : tags.begin[items[m] + 1];
                float weight = to > from ? (float)(1 / sqrt((double)(to - from))) : 0.0f;
                for (int64_t t = from; t < to; t++)
                    if (tags.tag[t] != NONE) out[m * columns + tags.table.value[table_place(&tags.table, tags.tag[t])]] = weight;
            }
        }
    }
    if (made) table_free(&tags.table);
    free(tags.seen);
    release_arrays(v, 3);
    if (expect(good, "items of the catalog") < 0) return NULL;
    if (!made) return PyErr_NoMemory();
    return vectors ? Py_BuildValue("(Nn)", vectors, columns) : NULL;
}
