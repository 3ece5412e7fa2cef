/* The order of candidates by score. */
#include "kernels.h"
#include <math.h>
#include <stdlib.h>

/* order_best(raw (B, K) f32, finite (B, K) bool, real (B, K) bool, out (B, k) i64)
 * out: columns with finite scores descending, then others, then padding; ties keep their order. */
PyObject *order_best(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[4];
    if (expect(count == 5, "5 arguments") < 0) return NULL;
    Py_ssize_t rows = PyLong_AsSsize_t(args[4]);
    if (PyErr_Occurred() || read_arrays(args, "f??L", v) < 0) return NULL;
    Py_ssize_t width = rows ? length(&v[0]) / rows : 0, kept = rows ? length(&v[3]) / rows : 0;
    const float *raw = v[0].buf;
    const char *finite = v[1].buf, *real = v[2].buf;
    int64_t *out = v[3].buf;
    int good = length(&v[1]) == length(&v[0]) && length(&v[2]) == length(&v[0]) && kept <= width;
    uint32_t *key = malloc(3 * (size_t)(width + 1) * sizeof(uint32_t));
    if (good && key) {
        int32_t *order = (int32_t *)key + width, *scratch = order + width;
        for (Py_ssize_t b = 0; b < rows; b++) {
            for (Py_ssize_t k = 0; k < width; k++) {
                Py_ssize_t at = b * width + k;
                key[k] = finite[at] ? descending32(raw[at]) : real[at] ? 0xfffffffeu : 0xffffffffu;
                order[k] = (int32_t)k;
            }
            sort_by_key32(key, order, scratch, width);
            for (Py_ssize_t k = 0; k < kept; k++) out[b * kept + k] = order[k];
        }
    }
    free(key);
    release_arrays(v, 4);
    if (!key) return PyErr_NoMemory();
    return expect(good, "arrays of one shape and at most as many columns of output") < 0 ? NULL : Py_NewRef(Py_None);
}
