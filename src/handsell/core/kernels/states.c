/* Features of users. */
#include "kernels.h"
#include <math.h>

#define HOUR 3600e6 /* µs */
#define DAY 86400e6

enum { REGISTERED = 16 };

static double count_days(int64_t first, int64_t begin, int64_t end) {
    return first > 0 ? (double)(end > begin ? end - begin : 0) / DAY : NAN;
}

/* Hours between the events of a history (T,), oldest first and left padded; NaN for less than two. */
static double average_gap(const int32_t *item, const int64_t *time, Py_ssize_t n, Py_ssize_t *length) {
    int64_t oldest = INT64_MAX;
    *length = 0;
    for (Py_ssize_t t = 0; t < n; t++) {
        if (item[t] == NONE) continue;
        ++*length;
        if (time[t] < oldest) oldest = time[t];
    }
    return *length > 1 ? (double)(time[n - 1] - oldest) / HOUR / (double)(*length - 1) : NAN;
}

/* write_user(decayed (B, 2, 3) f64, signs (B, 2) f64, logs (B, 3) f64: log(1 + x) of both signs and of all seen items, trend (B,) f64,
 *            first, last and now (B,) i64, item (B, T) i32, time (B, T) i64, out (B, F) f32, most days away)
 * The first 16 columns of `features/user.py`, in the order of its COMPILED. */
PyObject *write_user(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[10];
    if (expect(count == 11, "11 arguments") < 0) return NULL;
    double most_days = PyFloat_AsDouble(args[10]);
    if (PyErr_Occurred() || read_arrays(args, "ddddlllilF", v) < 0) return NULL;
    Py_ssize_t rows = length(&v[3]), n = rows ? length(&v[7]) / rows : 0, columns = rows ? length(&v[9]) / rows : 0;
    int good = length(&v[0]) == 6 * rows && length(&v[1]) == 2 * rows && length(&v[2]) == 3 * rows && (!rows || columns >= REGISTERED) &&
               length(&v[8]) == length(&v[7]);
    for (int k = 4; k < 7; k++) good = good && length(&v[k]) == rows;
    for (Py_ssize_t b = 0; good && b < rows; b++) {
        const double *decayed = (const double *)v[0].buf + 6 * b, *sign = (const double *)v[1].buf + 2 * b;
        const double *logs = (const double *)v[2].buf + 3 * b, total = sign[0] + sign[1];
        int64_t first = ((const int64_t *)v[4].buf)[b], last = ((const int64_t *)v[5].buf)[b], now = ((const int64_t *)v[6].buf)[b];
        float *out = (float *)v[9].buf + b * columns;
        Py_ssize_t known;
        double gap = average_gap((const int32_t *)v[7].buf + b * n, (const int64_t *)v[8].buf + b * n, n, &known);
        double away = count_days(first, last, now);
        for (int k = 0; k < 6; k++) *out++ = (float)decayed[k];
        *out++ = (float)logs[0];
        *out++ = (float)logs[1];
        *out++ = (float)(total > 0 ? sign[0] / total : NAN);
        *out++ = (float)(total > 0 ? sign[1] / total : NAN);
        *out++ = (float)((const double *)v[3].buf)[b];
        *out++ = (float)count_days(first, first, last);
        *out++ = (float)(away > most_days ? most_days : away);
        *out++ = (float)known;
        *out++ = (float)logs[2];
        *out++ = (float)gap;
    }
    release_arrays(v, 10);
    return expect(good, "a state of each user, and a column of each feature") < 0 ? NULL : Py_NewRef(Py_None);
}
