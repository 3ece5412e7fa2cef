/* The current session of a history, and the best items of sums over lists of items. */
#include "kernels.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* find_sessions(item (B, T) i32, time (B, T) i64, weight (B, T) f32, now (B,) i64, out (B, T) i32, n_items, gap_us,
 *               least)
 * As `find_current_sessions`: distinct items of each last session, newest first, padded with -1. */
PyObject *find_sessions(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[5];
    if (expect(count == 8, "8 arguments") < 0) return NULL;
    Py_ssize_t n_items = PyLong_AsSsize_t(args[5]);
    double gap = PyFloat_AsDouble(args[6]);
    float least = (float)PyFloat_AsDouble(args[7]);
    if (PyErr_Occurred() || read_arrays(args, "ilflI", v) < 0) return NULL;
    Py_ssize_t rows = length(&v[3]), n = rows ? length(&v[0]) / rows : 0;
    int good = length(&v[0]) == rows * n && length(&v[1]) == rows * n && length(&v[2]) == rows * n && length(&v[4]) == rows * n;
    Table table;
    int made = good && table_make(&table, n) == 0;
    for (Py_ssize_t b = 0; made && b < rows; b++) {
        const int32_t *item = (const int32_t *)v[0].buf + b * n;
        const int64_t *time = (const int64_t *)v[1].buf + b * n, now = ((const int64_t *)v[3].buf)[b];
        const float *weight = (const float *)v[2].buf + b * n;
        int32_t *out = (int32_t *)v[4].buf + b * n;
        Py_ssize_t found = 0, later = -1;
        table_clear(&table);
        for (Py_ssize_t t = n - 1; t >= 0; t--) {
            if (item[t] < 0 || item[t] >= n_items || !(weight[t] > 0) || time[t] >= now) continue;
            if (later >= 0 && (double)(time[later] - time[t]) > gap) break;
            later = t;
            uint32_t at = table_place(&table, item[t]);
            if (!(weight[t] >= least) || table.key[at] == item[t]) continue;
            table.key[at] = item[t];
            out[found++] = item[t];
        }
        for (; found < n; found++) out[found] = NONE;
    }
    if (made) table_free(&table);
    release_arrays(v, 5);
    if (good && !made) return PyErr_NoMemory();
    return expect(good, "one item, time and weight of each event") < 0 ? NULL : Py_NewRef(Py_None);
}

/* Add weight × strength of the items in one item's list to total (n,); 0 where the list does not fit. */
static int add_list(int32_t item, float weight, const Py_buffer *begins, const Py_buffer *names, const float *strength,
                    float *total) {
    Py_ssize_t n = length(begins) - 1, most = length(names);
    const int32_t *begin = begins->buf, *listed = names->buf;
    if (item < 0 || item >= n || begin[item] < 0 || begin[item] > begin[item + 1] || begin[item + 1] > most) return 0;
    for (int32_t at = begin[item]; at < begin[item + 1]; at++) {
        if (listed[at] < 0 || listed[at] >= n) return 0;
        total[listed[at]] += weight * strength[at];
    }
    return 1;
}

/* select_listed(item (B, T) i32, weight (B, T) f32, begin (I + 1,) i32, listed (N,) i32, strength (N,) f32,
 *               allowed (B, I) bool, items (B, k) i32, scores (B, k) f32)
 * The k best allowed items by the sum of weight × strength in the lists of a row's items, in their order, above 0; ties
 * by item. -1 is no item. */
PyObject *select_listed(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[8];
    if (expect(count == 8, "8 arguments") < 0 || read_arrays(args, "ifiif?IF", v) < 0) return NULL;
    Py_ssize_t n = length(&v[2]) - 1, rows = n > 0 ? length(&v[5]) / n : 0, past = rows ? length(&v[0]) / rows : 0;
    Py_ssize_t k = rows ? length(&v[6]) / rows : 0;
    int good = n >= 0 && length(&v[0]) == rows * past && length(&v[1]) == rows * past && length(&v[4]) == length(&v[3]) &&
               length(&v[5]) == rows * n && length(&v[6]) == rows * k && length(&v[7]) == rows * k;
    float *total = malloc(((size_t)n + 1) * (sizeof(float) + sizeof(uint32_t) + 3 * sizeof(int32_t)));
    for (Py_ssize_t b = 0; good && total && b < rows; b++) {
        uint32_t *key = (uint32_t *)(total + n);
        int32_t *order = (int32_t *)(key + n), *scratch = order + n, *names = scratch + n;
        const char *allowed = (const char *)v[5].buf + b * n;
        Py_ssize_t found = 0;
        memset(total, 0, (size_t)n * sizeof(float));
        for (Py_ssize_t t = b * past; good && t < (b + 1) * past; t++) {
            int32_t item = ((const int32_t *)v[0].buf)[t];
            if (item != NONE) good = add_list(item, ((const float *)v[1].buf)[t], &v[2], &v[3], v[4].buf, total);
        }
        for (Py_ssize_t i = 0; i < n; i++) {
            names[found] = (int32_t)i;
            found += (total[i] > 0) & (allowed[i] != 0);
        }
        for (Py_ssize_t f = 0; f < found; f++) key[f] = descending32(total[names[f]]), order[f] = (int32_t)f;
        sort_by_key32(key, order, scratch, found);
        for (Py_ssize_t f = 0; f < k; f++) {
            ((int32_t *)v[6].buf)[b * k + f] = f < found ? names[order[f]] : NONE;
            ((float *)v[7].buf)[b * k + f] = f < found ? total[names[order[f]]] : NAN;
        }
    }
    free(total);
    release_arrays(v, 8);
    if (!total) return PyErr_NoMemory();
    return expect(good, "a list of known items for each item") < 0 ? NULL : Py_NewRef(Py_None);
}
