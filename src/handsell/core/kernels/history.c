/* Weights of the items of a history. */
#include "kernels.h"
#include <math.h>
#include <stdlib.h>

/* The sum in NumPy's order of additions: pairwise beyond 128, eight at a time from 8 on. */
#define DEFINE_SUM(NAME, NUMBER)                                                                                      \
    static NUMBER NAME(const NUMBER *a, Py_ssize_t n) {                                                               \
        if (n > 128) {                                                                                                \
            Py_ssize_t half = n / 2 - n / 2 % 8;                                                                      \
            return NAME(a, half) + NAME(a + half, n - half);                                                          \
        }                                                                                                             \
        NUMBER sum = 0, r[8];                                                                                         \
        Py_ssize_t i = 0;                                                                                             \
        if (n >= 8) {                                                                                                 \
            for (int j = 0; j < 8; j++) r[j] = a[j];                                                                  \
            for (i = 8; i < n - n % 8; i += 8)                                                                        \
                for (int j = 0; j < 8; j++) r[j] += a[i + j];                                                         \
            sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));                                  \
        }                                                                                                             \
        for (; i < n; i++) sum += a[i];                                                                               \
        return sum;                                                                                                   \
    }

DEFINE_SUM(sum_pairwise, float)
DEFINE_SUM(sum_pairwise64, double)

/* weigh(item (B, T) i32, time (B, T) i64, weight (B, T) f32, now (B,) i64, items (B, T) i32, weights (B, T) f32,
 *       n_items, half_life_us, half_life_events, dislikes)
 * As `weigh_history` with the exponent 1; half_life_events 0: later likes do not count. */
PyObject *weigh(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[6];
    if (expect(count == 10, "10 arguments") < 0) return NULL;
    Py_ssize_t n_items = PyLong_AsSsize_t(args[6]);
    double half_life = PyFloat_AsDouble(args[7]), events = PyFloat_AsDouble(args[8]), dislikes = PyFloat_AsDouble(args[9]);
    if (PyErr_Occurred() || read_arrays(args, "ilflIF", v) < 0) return NULL;
    Py_ssize_t rows = length(&v[3]), n = rows ? length(&v[0]) / rows : 0;
    int good = length(&v[1]) == rows * n && length(&v[2]) == rows * n && length(&v[4]) == rows * n && length(&v[5]) == rows * n;
    uint32_t *key = malloc((size_t)(n + 1) * (sizeof(uint32_t) + 2 * sizeof(int32_t) + 2 * sizeof(float)));
    int32_t *order = (int32_t *)(key + n), *scratch = order + n;
    float *own = (float *)(scratch + n), *sorted = own + n;
    for (Py_ssize_t b = 0; good && key && b < rows; b++) {
        const int32_t *item = (const int32_t *)v[0].buf + b * n;
        const int64_t *time = (const int64_t *)v[1].buf + b * n, now = ((const int64_t *)v[3].buf)[b];
        const float *weight = (const float *)v[2].buf + b * n;
        int64_t newest = INT64_MIN, later = 0;
        for (Py_ssize_t t = 0; t < n; t++) {
            int valid = item[t] >= 0 && item[t] < n_items && time[t] < now && weight[t] != 0;
            key[t] = valid ? (uint32_t)item[t] + 1 : 0;
            if (valid && time[t] > newest) newest = time[t];
        }
        for (Py_ssize_t t = n - 1; t >= 0; t--) {
            order[t] = (int32_t)t, own[t] = 0.0f;
            if (!key[t]) continue;
            double factor = exp2(-(double)(newest - time[t]) / half_life);
            if (events > 0) factor *= exp2(-(double)later / events);
            double one = weight[t] < 0 && dislikes != 1 ? dislikes * weight[t] : weight[t];
            own[t] = (float)(one * factor);
            later += weight[t] > 0;
        }
        sort_by_key32(key, order, scratch, n);
        for (Py_ssize_t t = 0; t < n; t++) sorted[t] = own[order[t]];
        int32_t *items = (int32_t *)v[4].buf + b * n;
        float *weights = (float *)v[5].buf + b * n;
        for (Py_ssize_t t = 0, end; t < n; t = end) {
            for (end = t + 1; end < n && key[order[end]] == key[order[t]]; end++) items[end] = NONE, weights[end] = 0.0f;
            items[t] = (int32_t)key[order[t]] - 1;
            weights[t] = end > t + 1 ? sorted[t] + sum_pairwise(sorted + t + 1, end - t - 1) : sorted[t];
        }
    }
    free(key);
    release_arrays(v, 6);
    if (!key) return PyErr_NoMemory();
    return expect(good, "one item, time and weight of each event") < 0 ? NULL : Py_NewRef(Py_None);
}

/* pool_history(item (B, T) i32, time (B, T) i64, weight (B, T) f32, now (B,) i64, items (B, T) i64, pools (B, 3, T) f32,
 *              valid (B,) i64, n_items, half_life_us, half_life_events)
 * As `build_user_inputs` of two_tower.py; valid: the number of events that count. */
PyObject *pool_history(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[7];
    if (expect(count == 10, "10 arguments") < 0) return NULL;
    Py_ssize_t n_items = PyLong_AsSsize_t(args[7]);
    double half_life = PyFloat_AsDouble(args[8]), events = PyFloat_AsDouble(args[9]);
    if (PyErr_Occurred() || read_arrays(args, "ilflLFL", v) < 0) return NULL;
    Py_ssize_t rows = length(&v[3]), n = rows ? length(&v[0]) / rows : 0;
    int good = length(&v[1]) == rows * n && length(&v[2]) == rows * n && length(&v[4]) == rows * n &&
               length(&v[5]) == 3 * rows * n && length(&v[6]) == rows;
    double *pool = malloc((size_t)(3 * n + 1) * sizeof(double));
    for (Py_ssize_t b = 0; good && pool && b < rows; b++) {
        const int32_t *item = (const int32_t *)v[0].buf + b * n;
        const int64_t *time = (const int64_t *)v[1].buf + b * n, now = ((const int64_t *)v[3].buf)[b];
        const float *weight = (const float *)v[2].buf + b * n;
        int64_t *items = (int64_t *)v[4].buf + b * n, newest = INT64_MIN, later = 0, valid = 0;
        for (Py_ssize_t t = 0; t < n; t++) {
            int use = item[t] >= 0 && item[t] < n_items && time[t] < now && weight[t] != 0;
            items[t] = use ? item[t] : -1, valid += use;
            if (use && time[t] > newest) newest = time[t];
        }
        for (Py_ssize_t t = n - 1; t >= 0; t--) {
            double liked = items[t] >= 0 && weight[t] > 0 ? weight[t] : 0.0;
            double age = items[t] >= 0 ? (double)(newest - time[t]) : 0.0;
            pool[t] = liked > 0 ? liked * exp2(-age / half_life) : 0.0;
            pool[n + t] = liked > 0 ? liked * exp2(-(double)later / events) : 0.0;
            pool[2 * n + t] = items[t] >= 0 && weight[t] < 0 ? -weight[t] : 0.0;
            later += liked > 0;
            if (items[t] < 0) items[t] = 0;
        }
        float *out = (float *)v[5].buf + 3 * b * n;
        for (int p = 0; p < 3; p++) {
            double total = sum_pairwise64(pool + p * n, n);
            for (Py_ssize_t t = 0; t < n; t++) out[p * n + t] = (float)(pool[p * n + t] / (total > 0 ? total : 1.0));
        }
        ((int64_t *)v[6].buf)[b] = valid;
    }
    free(pool);
    release_arrays(v, 7);
    if (!pool) return PyErr_NoMemory();
    return expect(good, "one item, time and weight of each event, and three pools") < 0 ? NULL : Py_NewRef(Py_None);
}
