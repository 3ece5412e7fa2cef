#include "arrays.h"
#include <stdlib.h>
#include <string.h>

static int fits(const Py_buffer *view, char kind) {
    const char *format = view->format ? view->format : "B";
    switch (kind) {
        case '?':
        case 'q': return format[0] == '?';
        case 'b': return format[0] == 'b';
        case 'i': return (format[0] == 'i' || format[0] == 'l') && view->itemsize == 4;
        case 'l': return (format[0] == 'l' || format[0] == 'q') && view->itemsize == 8;
        case 'f': return format[0] == 'f';
        case 'd': return format[0] == 'd';
    }
    return 0;
}

int read_arrays(PyObject *const *args, const char *kinds, Py_buffer *views) {
    for (Py_ssize_t n = 0; kinds[n]; n++) {
        int writes = kinds[n] >= 'A' && kinds[n] <= 'Z';
        char kind = writes ? (char)(kinds[n] - 'A' + 'a') : kinds[n];
        int flags = PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writes ? PyBUF_WRITABLE : 0);
        if (PyObject_GetBuffer(args[n], &views[n], flags) < 0) {
            release_arrays(views, n);
            return -1;
        }
        if (!fits(&views[n], kind)) {
            PyErr_Format(PyExc_TypeError, "argument %zd: expected elements of kind '%c', got '%s'", n + 1, kind,
                         views[n].format ? views[n].format : "B");
            release_arrays(views, n + 1);
            return -1;
        }
    }
    return 0;
}

void release_arrays(Py_buffer *views, Py_ssize_t count) {
    for (Py_ssize_t n = 0; n < count; n++) PyBuffer_Release(&views[n]);
}

int expect(int holds, const char *what) {
    if (holds) return 0;
    PyErr_Format(PyExc_ValueError, "expected %s", what);
    return -1;
}

int table_make(Table *table, Py_ssize_t most) {
    uint32_t size = 16;
    if (most > INT32_MAX / 2) return -1;
    while (size < 2 * (uint64_t)most) size *= 2;
    table->mask = size - 1;
    table->key = malloc(2 * (size_t)size * sizeof(int32_t));
    if (!table->key) return -1;
    table->value = table->key + size;
    table_clear(table);
    return 0;
}

void table_clear(Table *table) { memset(table->key, 0xff, ((size_t)table->mask + 1) * sizeof(int32_t)); }

void table_free(Table *table) { free(table->key); }

#define DIGIT 11
#define BUCKETS (1 << DIGIT)
#define FEW 24

/* Least significant digit first, from digit FIRST on; digits in which all keys agree are skipped, and few keys are
 * inserted one by one. */
#define DEFINE_SORT(NAME, KEY, FIRST, DIGITS)                                                                       \
    static void NAME(const KEY *key, int32_t *order, int32_t *scratch, Py_ssize_t n) {                              \
        if (n <= FEW) {                                                                                             \
            for (Py_ssize_t i = 1; i < n; i++) {                                                                    \
                int32_t moved = order[i];                                                                           \
                Py_ssize_t j = i;                                                                                   \
                for (; j > 0 && key[order[j - 1]] > key[moved]; j--) order[j] = order[j - 1];                       \
                order[j] = moved;                                                                                   \
            }                                                                                                       \
            return;                                                                                                 \
        }                                                                                                           \
        KEY any = 0, all = ~(KEY)0;                                                                                 \
        for (Py_ssize_t i = 0; i < n; i++) any |= key[order[i]], all &= key[order[i]];                              \
        int32_t *from = order, *to = scratch, count[BUCKETS];                                                       \
        for (int digit = FIRST; digit < DIGITS; digit++) {                                                            \
            int shift = DIGIT * digit;                                                                              \
            if (!((any ^ all) >> shift & (BUCKETS - 1))) continue;                                                  \
            memset(count, 0, sizeof count);                                                                         \
            for (Py_ssize_t i = 0; i < n; i++) count[key[from[i]] >> shift & (BUCKETS - 1)]++;                      \
            int32_t before = 0;                                                                                     \
            for (int bucket = 0; bucket < BUCKETS; bucket++) {                                                      \
                int32_t own = count[bucket];                                                                        \
                count[bucket] = before;                                                                             \
                before += own;                                                                                      \
            }                                                                                                       \
            for (Py_ssize_t i = 0; i < n; i++) to[count[key[from[i]] >> shift & (BUCKETS - 1)]++] = from[i];        \
            int32_t *swapped = from;                                                                                \
            from = to;                                                                                              \
            to = swapped;                                                                                           \
        }                                                                                                           \
        if (from != order) memcpy(order, from, (size_t)n * sizeof(int32_t));                                        \
    }

DEFINE_SORT(sort_narrow, uint32_t, 0, 3)
DEFINE_SORT(sort_wide, uint64_t, 0, 6)
DEFINE_SORT(sort_upper, uint64_t, 3, 6)

void sort_by_key32(const uint32_t *key, int32_t *order, int32_t *scratch, Py_ssize_t n) {
    sort_narrow(key, order, scratch, n);
}

/* The upper digits decide nearly always: where they agree in a few keys one after another, these are inserted. */
void sort_by_key64(const uint64_t *key, int32_t *order, int32_t *scratch, Py_ssize_t n) {
    sort_upper(key, order, scratch, n);
    for (Py_ssize_t i = 1, first = 0; i < n; i++) {
        if (key[order[i]] >> 3 * DIGIT != key[order[first]] >> 3 * DIGIT) {
            first = i;
        } else if (i - first == FEW) {
            sort_wide(key, order, scratch, n);
            return;
        }
        int32_t moved = order[i];
        Py_ssize_t j = i;
        for (; j > first && key[order[j - 1]] > key[moved]; j--) order[j] = order[j - 1];
        order[j] = moved;
    }
}
