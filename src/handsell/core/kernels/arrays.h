/* Arrays as arguments of kernels: contiguous buffers of a known element type. */
#ifndef HANDSELL_ARRAYS_H
#define HANDSELL_ARRAYS_H
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

#define NONE (-1)

/* Read arguments into views; `kinds` has one letter per argument:
 *   ? bool   b int8   i int32   l int64   f float32   d float64   (an upper-case letter: the array is written to; Q: bool)
 * Returns 0, or -1 with an exception and no view held. */
int read_arrays(PyObject *const *args, const char *kinds, Py_buffer *views);
void release_arrays(Py_buffer *views, Py_ssize_t count);

/* Number of elements. */
static inline Py_ssize_t length(const Py_buffer *view) { return view->itemsize ? view->len / view->itemsize : 0; }

/* Return 0, or -1 with a ValueError that names what does not fit. */
int expect(int holds, const char *what);

/* Whether segment n, values[begin[n]:begin[n + 1]], lies within `count` values. */
static inline int has_segment(const int64_t *begin, Py_ssize_t n, Py_ssize_t count) {
    return begin[n] >= 0 && begin[n] <= begin[n + 1] && begin[n + 1] <= count;
}

/* Open addressing from int32 keys to int32 values; key NONE is no key. */
typedef struct {
    int32_t *key, *value;
    uint32_t mask;
} Table;

int table_make(Table *table, Py_ssize_t most); /* 0, or -1 without memory */
void table_clear(Table *table);
void table_free(Table *table);
static inline uint32_t table_place(const Table *table, int32_t key) {
    uint32_t at = ((uint32_t)key * 2654435769u) >> 7 & table->mask;
    while (table->key[at] != key && table->key[at] != NONE) at = (at + 1) & table->mask;
    return at;
}

/* Order n positions by key, ascending and stable: `order` holds them before and after. Needs n elements of scratch. */
void sort_by_key32(const uint32_t *key, int32_t *order, int32_t *scratch, Py_ssize_t n);
void sort_by_key64(const uint64_t *key, int32_t *order, int32_t *scratch, Py_ssize_t n);

/* Keys whose ascending order is the descending order of finite numbers; -0 and 0 are equal. */
static inline uint32_t descending32(float value) {
    union { float f; uint32_t u; } bits = {value + 0.0f};
    return bits.u & 0x80000000u ? bits.u : ~bits.u & 0x7fffffffu;
}
static inline uint64_t descending64(double value) {
    union { double d; uint64_t u; } bits = {value + 0.0};
    return bits.u & 0x8000000000000000u ? bits.u : ~bits.u & 0x7fffffffffffffffu;
}
#endif
