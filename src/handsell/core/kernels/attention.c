/* The loops of the ranking transformer over candidates: embeddings of features, and attention.
 * Vectors of sixteen numbers are of the compiler, which splits them where the processor has shorter ones: the results
 * are the same. */
#include "kernels.h"
#include "wide.h"
#include <math.h>
#include <string.h>

#pragma GCC diagnostic ignored "-Wpsabi" /* vectors are passed between inlined functions only */
#define WIDTH 16

typedef float Vector __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int32_t Integers __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

/* Tables of F features: values at up to 16 `knots`, ascending and padded with infinity, the value where missing, and
 * a row that is read but not used. */
#define ROWS_OF_TABLE (WIDTH + 2)
typedef struct {
    const float *knots, *scale, *table; /* (F, 16), inverse distances to the next knot (F, 16), (F, 18, size) */
    Py_ssize_t features, size;
} Tables;

/* Number of knots <= x, which is finite or unknown. */
static inline int count_passed(float x, const float *knots) {
    int count = 0;
    for (int k = 0; k < WIDTH; k++) count += x >= knots[k];
    return count;
}

#define HEADS 2
#define NEVER -1e30f

typedef struct {
    const float *query, *key, *value, *bias; /* (N, D), (H, D / H, M), (M, D), (H, M); M is a multiple of 16 */
    const int32_t *self;                     /* (N,) the other that is the row itself; -1: none */
    Py_ssize_t rows, others, size;
} Attention;

#define TARGET
#define NAMED(X) X##_narrow
#define COUNT_PASSED count_passed
#include "attention_loops.h"
#undef TARGET
#undef NAMED
#undef COUNT_PASSED
#ifdef WIDE
#define COUNT_PASSED(X, KNOTS) \
    __builtin_popcount(_mm512_cmp_ps_mask(_mm512_set1_ps(X), _mm512_loadu_ps(KNOTS), _CMP_GE_OQ))
#define TARGET WIDE
#define NAMED(X) X##_wide
#include "attention_loops.h"
#else
#define HAS_WIDE 0
#define embed_all_wide embed_all_narrow
#define attend_all_wide attend_all_narrow
#endif

/* embed_rows(x (N, F) f32, knots (F, 16) f32, scale (F, 16) f32, table (F, 18, D) f32, bias (D,) f32, out (N, D) f32)
 * D is a multiple of 16; x is not infinite. */
PyObject *embed_rows(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[6];
    if (expect(count == 6, "6 arguments") < 0 || read_arrays(args, "fffffF", v) < 0) return NULL;
    Py_ssize_t size = length(&v[4]), rows = size ? length(&v[5]) / size : 0, features = rows ? length(&v[0]) / rows : 0;
    int good = size && size % WIDTH == 0 && rows && features && length(&v[5]) == rows * size &&
               length(&v[0]) == rows * features && length(&v[1]) == features * WIDTH && length(&v[2]) == features * WIDTH &&
               length(&v[3]) == features * ROWS_OF_TABLE * size;
    char *constant = good ? PyMem_Malloc(features) : NULL;
    float *base = good ? PyMem_Malloc(sizeof(float) * size) : NULL;
    if (good && constant && base) {
        const float *x = v[0].buf;
        Tables t = {v[1].buf, v[2].buf, v[3].buf, features, size};
        Py_BEGIN_ALLOW_THREADS
        memcpy(base, v[4].buf, sizeof(float) * size);
        for (Py_ssize_t f = 0; f < features; f++) {
            constant[f] = 1;
            for (Py_ssize_t r = 1; r < rows && constant[f]; r++)
                constant[f] = !memcmp(x + r * features + f, x + f, sizeof(float));
            if (constant[f]) add_value_narrow(t, f, x[f], base);
        }
        (HAS_WIDE ? embed_all_wide : embed_all_narrow)(t, x, constant, base, v[5].buf, rows);
        Py_END_ALLOW_THREADS
    }
    int memory = !good || (constant && base);
    PyMem_Free(constant), PyMem_Free(base);
    release_arrays(v, 6);
    if (!memory) return PyErr_NoMemory();
    return expect(good, "rows and tables of the same features, and vectors of a multiple of 16") < 0 ? NULL : Py_NewRef(Py_None);
}

/* attend(query (N, D) f32, key (H, D / H, M) f32, value (M, D) f32, bias (H, M) f32, self (N,) i32, out (N, D) f32)
 * D is a multiple of 32, M of 16; where an other does not exist, its bias is -1e30. */
PyObject *attend(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[6];
    if (expect(count == 6, "6 arguments") < 0 || read_arrays(args, "ffffiF", v) < 0) return NULL;
    Py_ssize_t rows = length(&v[4]), size = rows ? length(&v[0]) / rows : 0, others = length(&v[3]) / HEADS;
    const int32_t *self = v[4].buf;
    int good = rows && size % (HEADS * WIDTH) == 0 && others % WIDTH == 0 && length(&v[0]) == rows * size &&
               length(&v[1]) == others * size && length(&v[2]) == others * size && length(&v[5]) == rows * size;
    for (Py_ssize_t r = 0; good && r < rows; r++) good = self[r] >= -1 && self[r] < others;
    float *logit = good ? PyMem_Malloc(sizeof(float) * (others + WIDTH)) : NULL;
    if (logit) {
        Attention a = {v[0].buf, v[1].buf, v[2].buf, v[3].buf, self, rows, others, size};
        Py_BEGIN_ALLOW_THREADS
        (HAS_WIDE ? attend_all_wide : attend_all_narrow)(a, logit, v[5].buf);
        Py_END_ALLOW_THREADS
    }
    int memory = !good || logit;
    PyMem_Free(logit);
    release_arrays(v, 6);
    if (!memory) return PyErr_NoMemory();
    return expect(good, "queries, keys and values of a multiple of 32, and others of a multiple of 16") < 0
               ? NULL
               : Py_NewRef(Py_None);
}
