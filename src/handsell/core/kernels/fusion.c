/* Reciprocal rank fusion of the results of several sources. */
#include "kernels.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SOURCES 64
#define RANK0 61.0 /* K0 + 1 of fusion.py */

typedef struct {
    Py_buffer item[SOURCES], score[SOURCES];
    Py_ssize_t width[SOURCES], count, widest; /* widest: columns of all sources together */
} Found;

static void release_found(Found *found) {
    release_arrays(found->item, found->count);
    release_arrays(found->score, found->count);
}

/* Read a list of (items (B, k) i32, scores (B, k) f32). */
static int read_found(PyObject *list, Py_ssize_t rows, Found *found) {
    Py_ssize_t sources = PyList_Size(list);
    found->count = found->widest = 0;
    if (sources < 0 || expect(sources <= SOURCES && rows > 0, "at most 64 sources and at least one row") < 0) return -1;
    for (Py_ssize_t s = 0; s < sources; s++) {
        PyObject *pair = PyList_GetItem(list, s), *args[2];
        if (!pair || !PyTuple_Check(pair) || PyTuple_Size(pair) != 2) {
            release_found(found);
            return expect(0, "pairs of items and scores");
        }
        args[0] = PyTuple_GetItem(pair, 0), args[1] = PyTuple_GetItem(pair, 1);
        Py_buffer views[2];
        if (read_arrays(args, "if", views) < 0) {
            release_found(found);
            return -1;
        }
        found->item[s] = views[0], found->score[s] = views[1], found->count++;
        found->width[s] = length(&views[0]) / rows;
        found->widest += found->width[s];
        if (length(&views[0]) != length(&views[1]) || found->width[s] * rows != length(&views[0])) {
            release_found(found);
            return expect(0, "as many scores as items");
        }
    }
    return 0;
}

typedef struct {
    Table table;
    int32_t *item, *order, *scratch;
    double *gain;
    uint64_t *key;
    uint32_t *by_item;
} Space;

static int make_space(Space *space, Py_ssize_t most) {
    size_t each = 4 * sizeof(int32_t) + sizeof(double) + sizeof(uint64_t);
    memset(space, 0, sizeof *space);
    if (table_make(&space->table, most) < 0) return -1;
    space->gain = malloc((size_t)(most + 1) * each);
    if (!space->gain) {
        table_free(&space->table);
        return -1;
    }
    space->key = (uint64_t *)(space->gain + most);
    space->item = (int32_t *)(space->key + most);
    space->order = space->item + most, space->scratch = space->order + most;
    space->by_item = (uint32_t *)(space->scratch + most);
    return 0;
}

/* Sum the gains of one row's distinct items, and order them: best first, ties by item. Returns their number. */
static Py_ssize_t fuse_row(const Found *found, Py_ssize_t b, const double *weight, Space *space) {
    Py_ssize_t n = 0;
    table_clear(&space->table);
    for (Py_ssize_t s = 0; s < found->count; s++) {
        const int32_t *items = (const int32_t *)found->item[s].buf + b * found->width[s];
        for (Py_ssize_t rank = 0; rank < found->width[s]; rank++) {
            int32_t item = items[rank];
            if (item == NONE) continue;
            uint32_t at = table_place(&space->table, item);
            if (space->table.key[at] == NONE) {
                space->table.key[at] = item, space->table.value[at] = (int32_t)n;
                space->item[n] = item, space->gain[n++] = 0.0;
            }
            space->gain[space->table.value[at]] += weight[s] / (RANK0 + (double)rank);
        }
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        space->key[i] = descending64(space->gain[i]);
        space->by_item[i] = (uint32_t)space->item[i];
        space->order[i] = (int32_t)i;
    }
    sort_by_key32(space->by_item, space->order, space->scratch, n);
    sort_by_key64(space->key, space->order, space->scratch, n);
    return n;
}

/* rank_fused(found, weights (S,) f64, items (B, W) i32, fused (B, W) f32, count (B,) i64)
 * The W best items of each row by fused score, padded with -1 and 0, and how many distinct items the row has. */
PyObject *rank_fused(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[4];
    Found found;
    Space space;
    if (expect(count == 5, "5 arguments") < 0 || read_arrays(args + 1, "dIFL", v) < 0) return NULL;
    Py_ssize_t rows = length(&v[3]), width = rows ? length(&v[1]) / rows : 0;
    if (read_found(args[0], rows, &found) < 0) {
        release_arrays(v, 4);
        return NULL;
    }
    int good = length(&v[0]) >= found.count && length(&v[1]) == length(&v[2]);
    int made = good && make_space(&space, found.widest) == 0;
    if (made) {
        int32_t *items = v[1].buf;
        float *fused = v[2].buf;
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t b = 0; b < rows; b++) {
            Py_ssize_t n = fuse_row(&found, b, v[0].buf, &space);
            ((int64_t *)v[3].buf)[b] = n;
            for (Py_ssize_t k = 0; k < width; k++) {
                int32_t at = k < n ? space.order[k] : 0;
                items[b * width + k] = k < n ? space.item[at] : NONE;
                fused[b * width + k] = k < n ? (float)space.gain[at] : 0.0f;
            }
        }
        Py_END_ALLOW_THREADS
        table_free(&space.table);
        free(space.gain);
    }
    release_found(&found);
    release_arrays(v, 4);
    if (good && !made) return PyErr_NoMemory();
    return expect(good, "a weight of each source, and items and scores of one shape") < 0 ? NULL : Py_NewRef(Py_None);
}

/* place_sources(found, item (B, K) i32, score (B, K, S) f32, rank (B, K, S) f32, rows)
 * The score and rank that each source gave to the items; NaN where it did not return one. */
PyObject *place_sources(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[3];
    Found found;
    Table table;
    if (expect(count == 5, "5 arguments") < 0) return NULL;
    Py_ssize_t rows = PyLong_AsSsize_t(args[4]);
    if (PyErr_Occurred() || read_arrays(args + 1, "iFF", v) < 0) return NULL;
    if (read_found(args[0], rows, &found) < 0) {
        release_arrays(v, 3);
        return NULL;
    }
    Py_ssize_t width = length(&v[0]) / rows, cells = length(&v[1]), sources = found.count;
    int good = width * rows == length(&v[0]) && cells == length(&v[0]) * sources && cells == length(&v[2]);
    int made = good && table_make(&table, width) == 0;
    if (made) {
        float *score = v[1].buf, *rank = v[2].buf;
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t c = 0; c < cells; c++) score[c] = rank[c] = NAN;
        for (Py_ssize_t b = 0; b < rows; b++) {
            const int32_t *item = (const int32_t *)v[0].buf + b * width;
            table_clear(&table);
            for (Py_ssize_t k = 0; k < width; k++) {
                if (item[k] == NONE) continue;
                uint32_t at = table_place(&table, item[k]);
                table.key[at] = item[k], table.value[at] = (int32_t)k;
            }
            for (Py_ssize_t s = 0; s < sources; s++) {
                const int32_t *items = (const int32_t *)found.item[s].buf + b * found.width[s];
                const float *scores = (const float *)found.score[s].buf + b * found.width[s];
                for (Py_ssize_t r = 0; r < found.width[s]; r++) {
                    if (items[r] == NONE) continue;
                    uint32_t at = table_place(&table, items[r]);
                    if (table.key[at] == NONE) continue;
                    Py_ssize_t cell = (b * width + table.value[at]) * sources + s;
                    score[cell] = scores[r], rank[cell] = (float)r;
                }
            }
        }
        Py_END_ALLOW_THREADS
        table_free(&table);
    }
    release_found(&found);
    release_arrays(v, 3);
    if (good && !made) return PyErr_NoMemory();
    return expect(good, "a column of each source") < 0 ? NULL : Py_NewRef(Py_None);
}
