/* Users' rows as Feast stores them: cells of protobuf, see features/storage/value_encoding.py.
 *
 * A cell is a message with one field, a list in it a message with the one field 1. What is encoded in another way that
 * protobuf allows is left to the caller: kernels return False. A missing cell, None or without bytes, is an empty list. */
#include "texts.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { INT64 = 4 << 3, DOUBLE = 5 << 3 | 1, FLOAT = 6 << 3 | 5, TEXTS = 12 << 3 | 2, INT64S = 14 << 3 | 2, FLOATS = 16 << 3 | 2 };
enum { MOST_WEIGHTS = 512 };     /* of a row, which are inserted one by one */
enum { VALUES = 1 << 3 | 2 };    /* the field of a list: each text, or all numbers */

typedef struct {
    const unsigned char *at, *end;
} Bytes;

/* Read a number of 7 bits a byte; 0 where it does not end. */
static int read_varint(Bytes *from, uint64_t *number) {
    *number = 0;
    for (int shift = 0; shift < 64 && from->at < from->end; shift += 7) {
        unsigned char byte = *from->at++;
        *number |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) return 1;
    }
    return 0;
}

/* Read a tag and the number of bytes that follow, which become `part`; 0 where it is another tag or too long. */
static int read_part(Bytes *from, uint64_t wanted, Bytes *part) {
    uint64_t tag, size;
    if (!read_varint(from, &tag) || tag != wanted || !read_varint(from, &size)) return 0;
    if (size > (uint64_t)(from->end - from->at)) return 0;
    part->at = from->at, part->end = from->at += size;
    return 1;
}

/* The bytes of cell b of a column; 0 where it is neither bytes nor None. */
static int open_cell(PyObject *column, Py_ssize_t b, Bytes *cell) {
    char *bytes = NULL;
    Py_ssize_t size = 0;
    PyObject *one = PyList_GetItem(column, b);
    if (!one || (one != Py_None && PyBytes_AsStringAndSize(one, &bytes, &size) < 0)) return 0;
    cell->at = (const unsigned char *)bytes, cell->end = cell->at + size;
    return 1;
}

/* The values of a list in cell b: texts one after another, numbers without what is around them. */
static int open_list(PyObject *column, Py_ssize_t b, uint64_t kind, Bytes *values) {
    Bytes cell;
    if (!open_cell(column, b, &cell)) return 0;
    *values = cell;
    if (cell.at == cell.end) return 1;
    if (!read_part(&cell, kind, values) || cell.at != cell.end) return 0;
    if (kind == TEXTS || values->at == values->end) return 1;
    Bytes list = *values;
    return read_part(&list, VALUES, values) && list.at == list.end;
}

static int read_int64(Bytes *values, int64_t *number) { return read_varint(values, (uint64_t *)number); }

static int read_float(Bytes *values, float *number) {
    if (values->end - values->at < 4) return 0;
    memcpy(number, values->at, 4); /* little-endian, as every processor that handsell runs on */
    values->at += 4;
    return 1;
}

/* The number of the next text, NONE for an unknown one. */
static int read_number(Bytes *values, const Texts *texts, int32_t *number) {
    Bytes text;
    return read_part(values, VALUES, &text) && find_text(texts, (const char *)text.at, text.end - text.at, number);
}

static int is_column(PyObject *column, Py_ssize_t rows) { return PyList_Check(column) && PyList_Size(column) == rows; }

/* read_cells(columns: list of F lists of B cells, out (B, F) f64): numbers, NaN where there is none. */
PyObject *read_cells(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[1];
    if (expect(count == 2 && PyList_Check(args[0]), "a list and an array") < 0 || read_arrays(args + 1, "D", v) < 0) return NULL;
    Py_ssize_t columns = PyList_Size(args[0]), rows = columns ? length(&v[0]) / columns : 0;
    int good = 1;
    for (Py_ssize_t f = 0; good && f < columns; f++) {
        PyObject *column = PyList_GetItem(args[0], f);
        good = is_column(column, rows);
        for (Py_ssize_t b = 0; good && b < rows; b++) {
            Bytes cell;
            uint64_t tag;
            int64_t whole;
            float single;
            double *out = (double *)v[0].buf + b * columns + f;
            *out = NAN;
            good = open_cell(column, b, &cell);
            if (!good || cell.at == cell.end) continue;
            good = read_varint(&cell, &tag);
            if (!good) continue;
            if (tag == INT64) {
                if ((good = read_int64(&cell, &whole))) *out = (double)whole;
            } else if (tag == FLOAT) {
                if ((good = read_float(&cell, &single))) *out = single;
            } else if (tag == DOUBLE && cell.end - cell.at == 8) {
                memcpy(out, cell.at, 8);
                cell.at += 8;
            } else {
                good = 0;
            }
            good = good && cell.at == cell.end;
        }
    }
    release_arrays(v, 1);
    PyErr_Clear();
    return PyBool_FromLong(good);
}

/* read_histories(items, types, times, weights: lists of B cells, texts of items (5 arrays), texts of types (5 arrays),
 *                item (B, T) i32, type (B, T) i8, time (B, T) i64, weight (B, T) f32)
 * The T latest events of known items, left padded. Returns whether all histories were in order of time. */
PyObject *read_histories(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[14];
    if (expect(count == 18 && PyList_Check(args[0]), "4 lists and 14 arrays") < 0 || read_arrays(args + 4, "iiiibiiiibIBLF", v) < 0)
        return NULL;
    Texts items, types;
    Py_ssize_t rows = PyList_Size(args[0]), most = rows ? length(&v[10]) / rows : 0;
    int good = open_texts(v, &items) && open_texts(v + 5, &types);
    for (int n = 0; n < 4; n++) good = good && is_column(args[n], rows) && length(&v[10 + n]) == rows * most;
    for (Py_ssize_t b = 0; good && b < rows; b++) {
        int32_t *item = (int32_t *)v[10].buf + b * most, code, *own;
        signed char *type = (signed char *)v[11].buf + b * most;
        int64_t *time = (int64_t *)v[12].buf + b * most, at, last = INT64_MIN;
        float *weight = (float *)v[13].buf + b * most, value;
        Py_ssize_t n = 0, known = 0;
        Bytes part[4];
        good = open_list(args[0], b, TEXTS, &part[0]) && open_list(args[1], b, TEXTS, &part[1]) &&
               open_list(args[2], b, INT64S, &part[2]) && open_list(args[3], b, FLOATS, &part[3]) &&
               (own = malloc(sizeof *own * (size_t)((part[0].end - part[0].at) / 2 + 1)));
        if (!good) break;
        while (good && part[0].at < part[0].end) {
            good = read_number(&part[0], &items, &own[n]);
            known += good && own[n++] != NONE;
        }
        Py_ssize_t column = most - known;
        for (Py_ssize_t t = 0; t < column; t++) item[t] = NONE, type[t] = NONE, time[t] = 0, weight[t] = 0;
        for (Py_ssize_t i = 0; good && i < n; i++) {
            good = read_number(&part[1], &types, &code) && read_int64(&part[2], &at) && read_float(&part[3], &value) && at >= last;
            if (!good || own[i] == NONE) continue;
            last = at;
            if (column >= 0) item[column] = own[i], type[column] = (signed char)code, time[column] = at, weight[column] = value;
            column++;
        }
        for (int k = 1; k < 4; k++) good = good && part[k].at == part[k].end;
        free(own);
    }
    release_arrays(v, 14);
    PyErr_Clear();
    return PyBool_FromLong(good);
}

/* read_seen(items, times: lists of B cells, texts of items (5 arrays), item (N,) i32, time (N,) i64, offsets (B + 1,) i64)
 * The known items of each row. Returns whether they ascend, and there were no more than N. */
PyObject *read_seen(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[8];
    if (expect(count == 10 && PyList_Check(args[0]), "2 lists and 8 arrays") < 0 || read_arrays(args + 2, "iiiibILL", v) < 0) return NULL;
    Texts items;
    Py_ssize_t rows = PyList_Size(args[0]), n = 0, most = length(&v[5]);
    int good = open_texts(v, &items) && is_column(args[1], rows) && length(&v[6]) == most && length(&v[7]) == rows + 1;
    int32_t *item = v[5].buf;
    int64_t *time = v[6].buf, *offsets = v[7].buf;
    if (good) offsets[0] = 0;
    for (Py_ssize_t b = 0; good && b < rows; b++) {
        Bytes ids, times;
        int32_t own;
        int64_t at;
        good = open_list(args[0], b, TEXTS, &ids) && open_list(args[1], b, INT64S, &times);
        while (good && ids.at < ids.end) {
            good = read_number(&ids, &items, &own) && read_int64(&times, &at);
            if (!good || own == NONE) continue;
            good = n < most && (n == offsets[b] || own > item[n - 1]);
            if (good) item[n] = own, time[n++] = at;
        }
        good = good && times.at == times.end;
        if (good) offsets[b + 1] = n;
    }
    release_arrays(v, 8);
    PyErr_Clear();
    return PyBool_FromLong(good);
}

/* read_weights(ids, weights: lists of B cells, texts of ids (5 arrays), key (N,) i32, weight (N,) f64, offsets (B + 1,) i64)
 * The weights of the known ids of each row, by key. Returns whether no id was there twice, and there were few. */
PyObject *read_weights(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[8];
    if (expect(count == 10 && PyList_Check(args[0]), "2 lists and 8 arrays") < 0 || read_arrays(args + 2, "iiiibIDL", v) < 0) return NULL;
    Texts names;
    Py_ssize_t rows = PyList_Size(args[0]), n = 0, most = length(&v[5]);
    int good = open_texts(v, &names) && is_column(args[1], rows) && length(&v[6]) == most && length(&v[7]) == rows + 1;
    int32_t *key = v[5].buf;
    double *weight = v[6].buf;
    int64_t *offsets = v[7].buf;
    if (good) offsets[0] = 0;
    for (Py_ssize_t b = 0; good && b < rows; b++) {
        Bytes ids, weights;
        int32_t own;
        float value;
        good = open_list(args[0], b, TEXTS, &ids) && open_list(args[1], b, FLOATS, &weights);
        while (good && ids.at < ids.end) {
            good = read_number(&ids, &names, &own) && read_float(&weights, &value);
            if (!good || own == NONE) continue;
            if (!(good = n < most && n - offsets[b] < MOST_WEIGHTS)) break;
            Py_ssize_t place = n++;
            for (; place > offsets[b] && key[place - 1] >= own; place--) {
                good = good && key[place - 1] != own;
                key[place] = key[place - 1], weight[place] = weight[place - 1];
            }
            key[place] = own, weight[place] = value;
        }
        good = good && weights.at == weights.end;
        if (good) offsets[b + 1] = n;
    }
    release_arrays(v, 8);
    PyErr_Clear();
    return PyBool_FromLong(good);
}

/* rank_weights(key (N,) i32, weight (N,) f64, offsets (B + 1,) i64, keys (B, A) i32, weights (B, A) f32)
 * Each row by descending weight, then key. Returns whether all weights are numbers, and no row has more than A. */
PyObject *rank_weights(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[5];
    if (expect(count == 5, "5 arrays") < 0 || read_arrays(args, "idlIF", v) < 0) return NULL;
    Py_ssize_t rows = length(&v[2]) - 1, most = rows > 0 ? length(&v[3]) / rows : 0;
    const int32_t *key = v[0].buf;
    const double *weight = v[1].buf;
    const int64_t *offsets = v[2].buf;
    int good = length(&v[1]) == length(&v[0]) && length(&v[4]) == length(&v[3]);
    double *sorted = malloc(sizeof *sorted * (size_t)(most + 1));
    for (Py_ssize_t b = 0; good && sorted && b < rows; b++) {
        int32_t *keys = (int32_t *)v[3].buf + b * most;
        float *weights = (float *)v[4].buf + b * most;
        good = has_segment(offsets, b, length(&v[0])) && offsets[b + 1] - offsets[b] <= most;
        if (!good) break;
        Py_ssize_t n = 0;
        for (int64_t i = offsets[b]; good && i < offsets[b + 1]; i++) {
            Py_ssize_t place = n++;
            good = weight[i] == weight[i];
            for (; place && (sorted[place - 1] < weight[i] || (sorted[place - 1] == weight[i] && keys[place - 1] > key[i])); place--)
                keys[place] = keys[place - 1], sorted[place] = sorted[place - 1];
            keys[place] = key[i], sorted[place] = weight[i];
        }
        for (Py_ssize_t a = 0; a < most; a++) weights[a] = a < n ? (float)sorted[a] : 0.0f;
        for (Py_ssize_t a = n; a < most; a++) keys[a] = NONE;
    }
    free(sorted);
    release_arrays(v, 5);
    return sorted ? PyBool_FromLong(good) : PyErr_NoMemory();
}
