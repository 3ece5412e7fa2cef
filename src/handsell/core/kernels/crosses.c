/* Relations of candidates to a user's past, and features of the sources. */
#include "kernels.h"
#include <math.h>
#include <stdlib.h>

/* count_occurrences(past (B, T) i32, past_time (B, T) i64, wanted (B, K) i32, count (B, K) i64, latest (B, K) i64, rows)
 * How often each wanted key is in the row's past, and the time of the last of these; 0 where it is not. */
PyObject *count_occurrences(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[5];
    Table table;
    if (expect(count == 6, "6 arguments") < 0) return NULL;
    Py_ssize_t rows = PyLong_AsSsize_t(args[5]);
    if (PyErr_Occurred() || read_arrays(args, "iliLL", v) < 0) return NULL;
    Py_ssize_t length_of_past = rows ? length(&v[0]) / rows : 0, width = rows ? length(&v[2]) / rows : 0;
    int good = length(&v[1]) == length(&v[0]) && length(&v[3]) == length(&v[2]) && length(&v[4]) == length(&v[2]);
    int made = good && table_make(&table, length_of_past) == 0;
    if (made) {
        int64_t *often = v[3].buf, *latest = v[4].buf;
        int32_t *times = malloc((size_t)(length_of_past + 1) * sizeof(int32_t));
        for (Py_ssize_t b = 0; times && b < rows; b++) {
            const int32_t *past = (const int32_t *)v[0].buf + b * length_of_past;
            const int64_t *when = (const int64_t *)v[1].buf + b * length_of_past;
            table_clear(&table);
            for (Py_ssize_t t = 0; t < length_of_past; t++) {
                times[t] = 0;
                if (past[t] == NONE) continue;
                uint32_t at = table_place(&table, past[t]);
                times[t] = table.key[at] == NONE ? 1 : times[table.value[at]] + 1;
                table.key[at] = past[t], table.value[at] = (int32_t)t;
            }
            for (Py_ssize_t k = b * width; k < (b + 1) * width; k++) {
                int32_t wanted = ((const int32_t *)v[2].buf)[k];
                uint32_t at = table_place(&table, wanted);
                int found = wanted != NONE && table.key[at] == wanted;
                often[k] = found ? times[table.value[at]] : 0;
                latest[k] = found ? when[table.value[at]] : 0;
            }
        }
        made = times != NULL;
        free(times);
        table_free(&table);
    }
    release_arrays(v, 5);
    if (good && !made) return PyErr_NoMemory();
    return expect(good, "times of each event, and outputs of each candidate") < 0 ? NULL : Py_NewRef(Py_None);
}

static void index_keys(Table *table, const int32_t *keys, Py_ssize_t n) {
    table_clear(table);
    for (Py_ssize_t a = 0; a < n; a++) {
        if (keys[a] == NONE) continue;
        uint32_t at = table_place(table, keys[a]);
        table->key[at] = keys[a], table->value[at] = (int32_t)a;
    }
}

/* sum_weights(keys (B, A) i32, weights (B, A) f64, begin (N,) i64, values (M,) i32, place (B, K) i64, out (B, K) f64, rows)
 * out: the sum of the weights of a candidate's values, values[begin[place]:begin[place + 1]], in their row's keys. */
PyObject *sum_weights(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[6];
    Table table;
    if (expect(count == 7, "7 arguments") < 0) return NULL;
    Py_ssize_t rows = PyLong_AsSsize_t(args[6]);
    if (PyErr_Occurred() || read_arrays(args, "idliiD", v) < 0) return NULL;
    Py_ssize_t many = rows ? length(&v[0]) / rows : 0, width = rows ? length(&v[4]) / rows : 0;
    Py_ssize_t places = length(&v[2]) - 1, values = length(&v[3]);
    int good = length(&v[1]) == length(&v[0]) && length(&v[5]) == length(&v[4]);
    int made = good && table_make(&table, many) == 0, inside = 1;
    if (made) {
        const int64_t *begin = v[2].buf;
        const int32_t *value = v[3].buf, *place = v[4].buf;
        for (Py_ssize_t b = 0; b < rows; b++) {
            const double *weight = (const double *)v[1].buf + b * many;
            index_keys(&table, (const int32_t *)v[0].buf + b * many, many);
            for (Py_ssize_t k = b * width; inside && k < (b + 1) * width; k++) {
                double sum = 0.0;
                inside = place[k] >= 0 && place[k] < places && has_segment(begin, place[k], values);
                for (int64_t m = inside ? begin[place[k]] : 0; inside && m < begin[place[k] + 1]; m++) {
                    if (value[m] == NONE) continue;
                    uint32_t at = table_place(&table, value[m]);
                    if (table.key[at] == value[m]) sum += weight[table.value[at]];
                }
                ((double *)v[5].buf)[k] = sum;
            }
        }
        table_free(&table);
    }
    release_arrays(v, 6);
    if (good && !made) return PyErr_NoMemory();
    return expect(good && inside, "weights of each key, and places within the segments") < 0 ? NULL : Py_NewRef(Py_None);
}

/* compare_tags(other (B,) i32, begin (N,) i64, values (M,) i32, place (B, K) i32, out (B, K) f64)
 * out: common values of the segments of the row's other item and of place, by the root of the product of their sizes. */
PyObject *compare_tags(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[5];
    if (expect(count == 5, "5 arguments") < 0 || read_arrays(args, "iliiD", v) < 0) return NULL;
    Py_ssize_t rows = length(&v[0]), width = rows ? length(&v[3]) / rows : 0, places = length(&v[1]) - 1;
    const int64_t *begin = v[1].buf;
    const int32_t *value = v[2].buf, *other = v[0].buf, *place = v[3].buf;
    int good = length(&v[4]) == length(&v[3]);
    for (Py_ssize_t c = 0; good && c < rows * width; c++) {
        int32_t own = other[c / width];
        good = own < places && (own < 0 || has_segment(begin, own, length(&v[2]))) && place[c] >= 0 && place[c] < places &&
               has_segment(begin, place[c], length(&v[2]));
        if (!good) break;
        int64_t from = own >= 0 ? begin[own] : 0, to = own >= 0 ? begin[own + 1] : 0;
        int64_t first = begin[place[c]], last = begin[place[c] + 1], common = 0;
        for (int64_t m = first; m < last; m++) {
            int held = 0;
            for (int64_t n = from; n < to; n++) held |= value[n] == value[m];
            common += held && value[m] != NONE;
        }
        double size = (double)((last - first) * (to - from));
        ((double *)v[4].buf)[c] = (double)common / sqrt(size > 1 ? size : 1);
    }
    release_arrays(v, 5);
    return expect(good, "items within the segments") < 0 ? NULL : Py_NewRef(Py_None);
}

/* look_up(keys (B, A) i32, weights (B, A) f64, wanted (B, K) i32, out (B, K) f64, rows)
 * out: the weight of the wanted key in its row; 0 where it is none of the keys. */
PyObject *look_up(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[4];
    Table table;
    if (expect(count == 5, "5 arguments") < 0) return NULL;
    Py_ssize_t rows = PyLong_AsSsize_t(args[4]);
    if (PyErr_Occurred() || read_arrays(args, "idiD", v) < 0) return NULL;
    Py_ssize_t many = rows ? length(&v[0]) / rows : 0, width = rows ? length(&v[2]) / rows : 0;
    int good = length(&v[1]) == length(&v[0]) && length(&v[3]) == length(&v[2]);
    int made = good && table_make(&table, many) == 0;
    if (made) {
        const int32_t *wanted = v[2].buf;
        for (Py_ssize_t b = 0; b < rows; b++) {
            index_keys(&table, (const int32_t *)v[0].buf + b * many, many);
            for (Py_ssize_t k = b * width; k < (b + 1) * width; k++) {
                uint32_t at = table_place(&table, wanted[k]);
                int found = wanted[k] != NONE && table.key[at] == wanted[k];
                ((double *)v[3].buf)[k] = found ? ((const double *)v[1].buf)[b * many + table.value[at]] : 0.0;
            }
        }
        table_free(&table);
    }
    release_arrays(v, 4);
    if (good && !made) return PyErr_NoMemory();
    return expect(good, "weights of each key, and outputs of each candidate") < 0 ? NULL : Py_NewRef(Py_None);
}

/* write_sources(score (B, K, S) f32, rank (B, K, S) f32, fused (B, K) f32, out (B, K, F) f32, rows)
 * The first 2 S + 2 columns of out: ranks, standardized scores, number of sources, fused score. */
PyObject *write_sources(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[4];
    if (expect(count == 5, "5 arguments") < 0) return NULL;
    Py_ssize_t rows = PyLong_AsSsize_t(args[4]);
    if (PyErr_Occurred() || read_arrays(args, "fffF", v) < 0) return NULL;
    Py_ssize_t cells = length(&v[2]), sources = cells ? length(&v[0]) / cells : 0;
    Py_ssize_t width = rows ? cells / rows : 0, columns = cells ? length(&v[3]) / cells : 0;
    int good = length(&v[1]) == length(&v[0]) && (!cells || columns >= 2 * sources + 2);
    for (Py_ssize_t b = 0; good && b < rows; b++) {
        const float *score = (const float *)v[0].buf + b * width * sources;
        const float *rank = (const float *)v[1].buf + b * width * sources, *fused = (const float *)v[2].buf + b * width;
        float *out = (float *)v[3].buf + b * width * columns;
        for (Py_ssize_t s = 0; s < sources; s++) {
            double sum = 0.0, squares = 0.0;
            Py_ssize_t known = 0;
            for (Py_ssize_t k = 0; k < width; k++) {
                double one = score[k * sources + s];
                if (isfinite(one)) sum += one, known++;
            }
            double many = known ? (double)known : 1.0, mean = sum / many;
            for (Py_ssize_t k = 0; k < width; k++) {
                double off = score[k * sources + s] - mean;
                if (isfinite(score[k * sources + s])) squares += off * off;
            }
            double deviation = sqrt(squares / many);
            if (!(deviation > 0)) deviation = 1.0;
            for (Py_ssize_t k = 0; k < width; k++) {
                double one = score[k * sources + s];
                out[k * columns + s] = rank[k * sources + s];
                out[k * columns + sources + s] = isfinite(one) ? (float)((one - mean) / deviation) : NAN;
            }
        }
        for (Py_ssize_t k = 0; k < width; k++) {
            int returned = 0;
            for (Py_ssize_t s = 0; s < sources; s++) returned += isfinite(rank[k * sources + s]) != 0;
            out[k * columns + 2 * sources] = (float)returned;
            out[k * columns + 2 * sources + 1] = fused[k];
        }
    }
    release_arrays(v, 4);
    return expect(good, "ranks and scores of one shape, and columns for them") < 0 ? NULL : Py_NewRef(Py_None);
}
