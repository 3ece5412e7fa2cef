/* Sums over lists of items. */
#include "kernels.h"
#include <string.h>

/* sum_lists(item (T,) i32, weight (T,) f32, begin (I + 1,) i32, listed (N,) i32, strength (N,) f32, total (I,) f32)
 * total[j]: the sum of weight × strength of j in the lists of the items, in their order; -1 is no item. */
PyObject *sum_lists(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[6];
    if (expect(count == 6, "6 arguments") < 0 || read_arrays(args, "ifiifF", v) < 0) return NULL;
    Py_ssize_t n = length(&v[5]), most = length(&v[3]);
    const int32_t *item = v[0].buf, *begin = v[2].buf, *listed = v[3].buf;
    const float *weight = v[1].buf, *strength = v[4].buf;
    float *total = v[5].buf;
    int good = length(&v[1]) == length(&v[0]) && length(&v[2]) == n + 1 && length(&v[4]) == most;
    if (good) memset(total, 0, (size_t)n * sizeof(float));
    for (Py_ssize_t t = 0; good && t < length(&v[0]); t++) {
        if (item[t] == NONE) continue;
        good = item[t] >= 0 && item[t] < n;
        if (!good) break;
        int32_t first = begin[item[t]], last = begin[item[t] + 1];
        good = first >= 0 && first <= last && last <= most;
        for (int32_t at = first; good && at < last; at++) {
            good = listed[at] >= 0 && listed[at] < n;
            if (good) total[listed[at]] += weight[t] * strength[at];
        }
    }
    release_arrays(v, 6);
    return expect(good, "a list of known items for each item") < 0 ? NULL : Py_NewRef(Py_None);
}
