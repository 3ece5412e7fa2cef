/* Steps of a half sweep of alternating least squares, row by row; als_blocks.py describes the problem. */
#include "kernels.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define GROUP 8   /* pairs of a row that are added at once */
#define LINE 16   /* numbers of a cache line */
#define BLOCK 512 /* pairs of a row that are summed apart; a multiple of GROUP */
#define SCRATCH 5 /* vectors of the size of a row */
#define SIZES 8   /* a size is a multiple of it */

typedef struct {
    const int32_t *column;
    const float *added;
    Py_ssize_t count;
} Pairs;

typedef void (*Improve)(const Pairs *, const float *, Py_ssize_t, const float *, float, Py_ssize_t, float *, float *);

#ifdef __GNUC__
#define LANES 8
typedef float Lanes __attribute__((vector_size(32), aligned(4), may_alias));
typedef float Half __attribute__((vector_size(16)));
#define FETCH(address) __builtin_prefetch(address)
#else
#define LANES 1
typedef float Lanes;
#define FETCH(address) (void)(address)
#endif
#define AT(address) (*(Lanes *)(address))

#define NAME(x) x##_plainly
#include "descent.h"
#undef NAME
#if defined(__x86_64__) && defined(__GNUC__) && !defined(HANDSELL_NARROW)
#define HAS_AVX2 (__builtin_cpu_supports("avx2") != 0)
#define NAME(x) x##_with_avx2
#pragma GCC push_options
#pragma GCC target("avx2")
#include "descent.h"
#pragma GCC pop_options
#else
#define HAS_AVX2 0
#define improve_with_avx2 improve_plainly
#endif

/* improve_rows(offsets (b + 1,) i64, columns (N,) i32, added (N,) f32, other (J, D) f32, values (D,) f32,
 *              penalties (b,) f32, x (b, D) f32, steps)
 * Conjugate gradient steps for rows of ALS, in place in x: as `_improve_stacks` of als_blocks.py. Row r has the pairs
 * offsets[r] … offsets[r + 1] - 1; without pairs it becomes zero. D is a multiple of 8. */
PyObject *improve_rows(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[7];
    if (expect(count == 8, "8 arguments") < 0) return NULL;
    Py_ssize_t steps = PyLong_AsSsize_t(args[7]);
    if (PyErr_Occurred() || read_arrays(args, "liffffF", v) < 0) return NULL;
    const int64_t *offset = v[0].buf;
    const int32_t *column = v[1].buf;
    const float *penalty = v[5].buf;
    float *x = v[6].buf;
    Py_ssize_t size = length(&v[4]), rows = length(&v[5]), pairs = length(&v[1]), others = size ? length(&v[3]) / size : 0;
    int good = size > 0 && size % SIZES == 0 && length(&v[0]) == rows + 1 && length(&v[2]) == pairs &&
               length(&v[3]) == others * size && length(&v[6]) == rows * size && offset[0] >= 0 && offset[rows] <= pairs;
    for (Py_ssize_t r = 0; good && r < rows; r++) good = offset[r] <= offset[r + 1];
    for (Py_ssize_t n = good ? offset[0] : 0; good && n < offset[rows]; n++) good = column[n] >= 0 && column[n] < others;
    float *scratch = good ? malloc(SCRATCH * (size_t)size * sizeof(float)) : NULL;
    if (scratch) {
        Py_BEGIN_ALLOW_THREADS
        Improve improve = HAS_AVX2 ? improve_with_avx2 : improve_plainly;
        for (Py_ssize_t r = 0; r < rows; r++, x += size) {
            Pairs row = {column + offset[r], (const float *)v[2].buf + offset[r], offset[r + 1] - offset[r]};
            if (row.count) improve(&row, v[3].buf, size, v[4].buf, penalty[r], steps, x, scratch);
            else memset(x, 0, (size_t)size * sizeof(float));
        }
        Py_END_ALLOW_THREADS
    }
    free(scratch);
    release_arrays(v, 7);
    if (good && !scratch) return PyErr_NoMemory();
    return expect(good, "rows of pairs, factors of a multiple of 8 numbers, and a penalty for each row") < 0
               ? NULL
               : Py_NewRef(Py_None);
}
