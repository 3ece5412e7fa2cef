/* Which items a request may show. */
#include "kernels.h"

/* flag_available(items (B, K) i32, published (I,) i64, expires (I,) i64, available (I,) bool, time (B,) i64,
 *                flags (B, K) bool)
 * flags: whether the item is published, not expired and available at the row's time; false for -1. */
PyObject *flag_available(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[6];
    if (expect(count == 6, "6 arguments") < 0 || read_arrays(args, "ill?lQ", v) < 0) return NULL;
    Py_ssize_t rows = length(&v[4]), width = rows ? length(&v[0]) / rows : 0, n = length(&v[1]);
    const int32_t *items = v[0].buf;
    const int64_t *published = v[1].buf, *expires = v[2].buf, *time = v[4].buf;
    const char *available = v[3].buf;
    char *flags = v[5].buf;
    int good = length(&v[2]) == n && length(&v[3]) == n && length(&v[0]) == rows * width && length(&v[5]) == rows * width;
    for (Py_ssize_t b = 0; good && b < rows; b++)
        for (Py_ssize_t k = b * width; good && k < (b + 1) * width; k++) {
            int32_t item = items[k];
            good = item >= NONE && item < n;
            flags[k] = good && item != NONE && published[item] <= time[b] && time[b] < expires[item] && available[item];
        }
    release_arrays(v, 6);
    return expect(good, "known items, and a flag for each") < 0 ? NULL : Py_NewRef(Py_None);
}

/* clear_listed(flags (B, W) bool, items (B, W) i32 or empty, listed (N,) i32, begin (B + 1,) i64, seen (N,) i64 or empty,
 *              now (B,) i64, after (B,) i64)
 * Clears the flags of each row's listed items: of the columns of these numbers, or of those with these `items`. With
 * `seen`, only items whose time there is less than `after` before `now`. */
PyObject *clear_listed(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[7];
    if (expect(count == 7, "7 arguments") < 0 || read_arrays(args, "Qiillll", v) < 0) return NULL;
    Py_ssize_t rows = length(&v[3]) - 1, width = rows > 0 ? length(&v[0]) / rows : 0, most = length(&v[2]);
    const int32_t *items = v[1].buf, *listed = v[2].buf;
    const int64_t *begin = v[3].buf, *seen = v[4].buf, *now = v[5].buf, *after = v[6].buf;
    char *flags = v[0].buf;
    int by_item = length(&v[1]) > 0, by_time = length(&v[4]) > 0;
    int good = rows >= 0 && length(&v[0]) == rows * width && (!by_item || length(&v[1]) == rows * width) &&
               (!by_time || (length(&v[4]) == most && length(&v[5]) == rows && length(&v[6]) == rows));
    Table table = {NULL, NULL, 0};
    int made = !by_item || table_make(&table, width) == 0;
    for (Py_ssize_t b = 0; good && made && b < rows; b++) {
        good = has_segment(begin, b, most);
        if (!good || begin[b] == begin[b + 1]) continue;
        if (by_item) {
            table_clear(&table);
            for (Py_ssize_t k = b * width; k < (b + 1) * width; k++) {
                if (items[k] == NONE) continue;
                uint32_t at = table_place(&table, items[k]);
                table.key[at] = items[k], table.value[at] = 0;
            }
        }
        for (int64_t m = begin[b]; m < begin[b + 1]; m++) {
            if (by_time && (int64_t)((uint64_t)now[b] - (uint64_t)seen[m]) >= after[b]) continue;
            if (!by_item && listed[m] >= 0 && listed[m] < width) flags[b * width + listed[m]] = 0;
            if (by_item && listed[m] != NONE) table.value[table_place(&table, listed[m])] = 1;
        }
        for (Py_ssize_t k = b * width; by_item && k < (b + 1) * width; k++)
            if (items[k] != NONE && table.value[table_place(&table, items[k])]) flags[k] = 0;
    }
    table_free(&table);
    release_arrays(v, 7);
    if (!made) return PyErr_NoMemory();
    return expect(good, "a list of items for each row of flags") < 0 ? NULL : Py_NewRef(Py_None);
}
