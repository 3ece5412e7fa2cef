/* The columns of the feature matrix besides those of the sources. */
#include "kernels.h"
#include <math.h>
#include <stdlib.h>

#define HOUR_US 3.6e9
#define DAY_US 8.64e10

/* write_values(user (B, U) f32, values (I, V) f32, items (B, K) i32, context (B, C) f32, out (B, K, F) f32,
 *              user_at, values_at, context_at)
 * The columns of out from each of these places on; the values of item -1 are NaN. */
PyObject *write_values(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[5];
    Py_ssize_t at[3];
    if (expect(count == 8, "8 arguments") < 0) return NULL;
    for (int n = 0; n < 3; n++) at[n] = PyLong_AsSsize_t(args[5 + n]);
    if (PyErr_Occurred() || read_arrays(args, "ffifF", v) < 0) return NULL;
    Py_ssize_t cells = length(&v[2]), columns = cells ? length(&v[4]) / cells : 0;
    Py_ssize_t rows = v[2].ndim ? v[2].shape[0] : 0, items = v[1].ndim ? v[1].shape[0] : 0;
    Py_ssize_t user = rows ? length(&v[0]) / rows : 0, context = rows ? length(&v[3]) / rows : 0;
    Py_ssize_t values = v[1].ndim > 1 ? v[1].shape[1] : 0, width = rows ? cells / rows : 0;
    int good = length(&v[4]) == cells * columns && (!cells || (at[0] >= 0 && at[0] + user <= columns && at[1] >= 0 &&
               at[1] + values <= columns && at[2] >= 0 && at[2] + context <= columns));
    for (Py_ssize_t c = 0; good && c < cells; c++) {
        float *out = (float *)v[4].buf + c * columns;
        int32_t item = ((const int32_t *)v[2].buf)[c];
        const float *own = (const float *)v[0].buf + c / width * user;
        const float *around = (const float *)v[3].buf + c / width * context;
        good = item < items;
        for (Py_ssize_t n = 0; n < user; n++) out[at[0] + n] = own[n];
        for (Py_ssize_t n = 0; good && n < values; n++)
            out[at[1] + n] = item < 0 ? NAN : ((const float *)v[1].buf)[item * values + n];
        for (Py_ssize_t n = 0; n < context; n++) out[at[2] + n] = around[n];
    }
    release_arrays(v, 5);
    return expect(good, "columns for all values, and items that have some") < 0 ? NULL : Py_NewRef(Py_None);
}

typedef struct {
    const int32_t *item, *creator, *tag; /* (T,), (I,), (M,) */
    const int64_t *time, *begin, *published;
    Py_ssize_t past, items, keys;
    Table by_item, by_creator, creators, tags;
    int32_t *item_times, *creator_times; /* (T,) how often up to here */
    int32_t *item_place;                 /* (T,) distinct items after the last occurrence of one */
} User;

static void count_past(Table *table, int32_t *times, int32_t key, Py_ssize_t t) {
    times[t] = 0;
    if (key == NONE) return;
    uint32_t at = table_place(table, key);
    times[t] = table->key[at] == NONE ? 1 : times[table->value[at]] + 1;
    table->key[at] = key, table->value[at] = (int32_t)t;
}

/* Distinct items of the past that come after the last occurrence of each one. */
static void place_items(User *user) {
    int32_t place = 0;
    for (Py_ssize_t t = user->past - 1; t >= 0; t--) {
        int32_t item = user->item[t];
        if (item < 0 || user->by_item.value[table_place(&user->by_item, item)] != t) continue;
        user->item_place[t] = place++;
    }
}

static void index_weights(Table *table, const int32_t *keys, Py_ssize_t n) {
    table_clear(table);
    for (Py_ssize_t a = 0; a < n; a++) {
        if (keys[a] == NONE) continue;
        uint32_t at = table_place(table, keys[a]);
        table->key[at] = keys[a], table->value[at] = (int32_t)a;
    }
}

/* Place of a key, or -1. */
static int32_t find_key(const Table *table, int32_t key) {
    uint32_t at = table_place(table, key);
    return key != NONE && table->key[at] == key ? table->value[at] : -1;
}

static float count_hours(int32_t last, const int64_t *time, int64_t now, double most) {
    if (last < 0) return NAN;
    double hours = (double)(now - time[last]) / HOUR_US;
    return (float)(hours < most ? hours : most);
}

static double compare_with_last(const User *user, int32_t item) {
    int32_t last = user->past ? user->item[user->past - 1] : NONE;
    int64_t from = last >= 0 ? user->begin[last] : 0, to = last >= 0 ? user->begin[last + 1] : 0, common = 0;
    for (int64_t m = user->begin[item]; m < user->begin[item + 1]; m++) {
        int held = 0;
        for (int64_t n = from; n < to; n++) held |= user->tag[n] == user->tag[m];
        common += held && user->tag[m] != NONE;
    }
    double size = (double)((user->begin[item + 1] - user->begin[item]) * (to - from));
    return (double)common / sqrt(size > 1 ? size : 1);
}

/* One candidate's features, in the order of `COMPILED` of crosses.py. */
static void cross(const User *user, int32_t item, int64_t now, const float *creator_weight, const float *tag_weight,
                  int64_t events, double most, int64_t always, float *out) {
    int32_t creator = user->creator[item], found = find_key(&user->creators, creator);
    int64_t tags = user->begin[item + 1] - user->begin[item];
    double sum = 0.0;
    for (int64_t m = user->begin[item]; m < user->begin[item + 1]; m++) {
        int32_t known = find_key(&user->tags, user->tag[m]);
        if (known >= 0) sum += tag_weight[known];
    }
    int32_t same = find_key(&user->by_item, item), related = find_key(&user->by_creator, creator);
    out[0] = found < 0 ? 0.0f : creator_weight[found];
    out[1] = (float)(sum / (double)(tags > 1 ? tags : 1));
    out[2] = same < 0 ? 0.0f : (float)user->item_times[same];
    out[3] = count_hours(same, user->time, now, most);
    out[4] = same < 0 ? NAN : (float)user->item_place[same];
    out[5] = count_hours(related, user->time, now, most);
    out[6] = (float)((related < 0 ? 0.0 : (double)user->creator_times[related]) / (double)(events > 1 ? events : 1));
    out[7] = (float)compare_with_last(user, item);
    out[8] = user->published[item] == always ? NAN : (float)((double)(now - user->published[item]) / DAY_US);
}

enum { ITEM, PAST, TIME, NOW, CREATOR_KEY, CREATOR_WEIGHT, TAG_KEY, TAG_WEIGHT, CREATOR, BEGIN, TAGS, PUBLISHED, OUT };
#define FEATURES 9

/* write_crosses(item (B, K) i32, past (B, T) i32, past_time (B, T) i64, now (B,) i64, creator (B, A) i32, weight (B, A) f32,
 *               tag (B, A) i32, weight (B, A) f32, creator_of (I,) i32, begin (I + 1,) i64, tags (M,) i32,
 *               published (I,) i64, out (B, K, F) f32, column, most_hours, always)
 * Nine columns of out from `column` on; NaN for item -1. */
PyObject *write_crosses(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[13];
    if (expect(count == 16, "16 arguments") < 0) return NULL;
    Py_ssize_t column = PyLong_AsSsize_t(args[13]);
    double most = PyFloat_AsDouble(args[14]);
    int64_t always = PyLong_AsLongLong(args[15]);
    if (PyErr_Occurred() || read_arrays(args, "iillififililF", v) < 0) return NULL;
    Py_ssize_t rows = length(&v[NOW]), width = rows ? length(&v[ITEM]) / rows : 0;
    Py_ssize_t columns = length(&v[ITEM]) ? length(&v[OUT]) / length(&v[ITEM]) : 0;
    Py_ssize_t creators = rows ? length(&v[CREATOR_KEY]) / rows : 0, tags = rows ? length(&v[TAG_KEY]) / rows : 0;
    User user = {.creator = v[CREATOR].buf, .tag = v[TAGS].buf, .begin = v[BEGIN].buf, .published = v[PUBLISHED].buf,
                 .past = rows ? length(&v[PAST]) / rows : 0, .items = length(&v[CREATOR])};
    int good = length(&v[TIME]) == length(&v[PAST]) && length(&v[CREATOR_WEIGHT]) == length(&v[CREATOR_KEY]) &&
               length(&v[TAG_WEIGHT]) == length(&v[TAG_KEY]) && length(&v[BEGIN]) == user.items + 1 &&
               length(&v[PUBLISHED]) == user.items && (!length(&v[ITEM]) || (column >= 0 && column + FEATURES <= columns));
    user.item_times = good ? malloc((size_t)(3 * user.past + 3) * sizeof(int32_t)) : NULL;
    int made = 0;
    if (user.item_times) {
        user.creator_times = user.item_times + user.past + 1;
        user.item_place = user.creator_times + user.past + 1;
        made += made == 0 && table_make(&user.by_item, user.past) == 0;
        made += made == 1 && table_make(&user.by_creator, user.past) == 0;
        made += made == 2 && table_make(&user.creators, creators) == 0;
        made += made == 3 && table_make(&user.tags, tags) == 0;
    }
    for (Py_ssize_t b = 0; good && made == 4 && b < rows; b++) {
        user.item = (const int32_t *)v[PAST].buf + b * user.past, user.time = (const int64_t *)v[TIME].buf + b * user.past;
        int64_t now = ((const int64_t *)v[NOW].buf)[b], events = 0;
        table_clear(&user.by_item), table_clear(&user.by_creator);
        for (Py_ssize_t t = 0; good && t < user.past; t++) {
            good = user.item[t] < user.items;
            int real = good && user.item[t] >= 0;
            count_past(&user.by_item, user.item_times, real ? user.item[t] : NONE, t);
            count_past(&user.by_creator, user.creator_times, real ? user.creator[user.item[t]] : NONE, t);
            events += real;
        }
        if (good) place_items(&user);
        int32_t last = good && user.past ? user.item[user.past - 1] : NONE;
        good = good && (last < 0 || has_segment(user.begin, last, length(&v[TAGS])));
        index_weights(&user.creators, (const int32_t *)v[CREATOR_KEY].buf + b * creators, creators);
        index_weights(&user.tags, (const int32_t *)v[TAG_KEY].buf + b * tags, tags);
        for (Py_ssize_t c = b * width; good && c < (b + 1) * width; c++) {
            int32_t item = ((const int32_t *)v[ITEM].buf)[c];
            float *out = (float *)v[OUT].buf + c * columns + column;
            good = item < user.items && (item < 0 || has_segment(user.begin, item, length(&v[TAGS])));
            if (item >= 0 && good)
                cross(&user, item, now, (const float *)v[CREATOR_WEIGHT].buf + b * creators,
                      (const float *)v[TAG_WEIGHT].buf + b * tags, events, most, always, out);
            for (int f = 0; item < 0 && f < FEATURES; f++) out[f] = NAN;
        }
    }
    Table *tables[] = {&user.by_item, &user.by_creator, &user.creators, &user.tags};
    for (int n = 0; n < made; n++) table_free(tables[n]);
    free(user.item_times);
    release_arrays(v, 13);
    if (good && made < 4) return PyErr_NoMemory();
    return expect(good, "one key, time and weight of each other, and items of the catalog") < 0 ? NULL : Py_NewRef(Py_None);
}
