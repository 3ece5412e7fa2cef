/* Gradient boosted trees: sums of leaves, added in the order of the trees in float32, as XGBoost does. */
#include "kernels.h"
#include "wide.h"
#include <math.h>

#define ROWS 64 /* of a block, whose features and one tree stay in the cache */
#define SPARE 16 /* elements after the last tree that may be read: `TreeTables` has one tree more */

/* One complete tree of 2^depth - 1 splits: the children of split n are 2 n + 1 and 2 n + 2. */
typedef struct {
    const float *threshold;
    const int32_t *feature; /* 2 x column, + 1 where missing values go left */
    const float *leaf;
    Py_ssize_t depth;
} Tree;

/* Add each row's leaf; `start` has the places of the rows in x. Groups of rows hide the latency of loads. */
#define GROUP 8
static void add_leaves(Tree tree, const float *x, const int32_t *start, float *sum) {
    for (int group = 0; group < ROWS; group += GROUP) {
        uint32_t at[GROUP] = {0};
        for (Py_ssize_t level = 0; level < tree.depth; level++) {
            for (int r = 0; r < GROUP; r++) {
                int32_t code = tree.feature[at[r]];
                float value = x[start[group + r] + (code >> 1)];
                int left = (value < tree.threshold[at[r]]) | ((value != value) & code);
                at[r] = 2 * at[r] + 2 - (uint32_t)(left & 1);
            }
        }
        for (int r = 0; r < GROUP; r++) sum[group + r] += tree.leaf[at[r] - ((1u << tree.depth) - 1)];
    }
}

#ifdef HAS_WIDE
#define GROUPS (ROWS / LANES)

WIDE static __m512i step(__m512i at, __m512i start, __m512 threshold, __m512i feature, const float *x) {
    __m512i one = _mm512_set1_epi32(1), place = _mm512_add_epi32(start, _mm512_srli_epi32(feature, 1));
    __m512 value = _mm512_i32gather_ps(place, x, 4);
    __mmask16 missing = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q) & _mm512_test_epi32_mask(feature, one);
    __mmask16 left = _mm512_cmp_ps_mask(value, threshold, _CMP_LT_OQ) | missing;
    at = _mm512_add_epi32(at, at);
    return _mm512_mask_add_epi32(at, (__mmask16)~left, at, one);
}

/* The same 16 rows at a time. Up to level 4 a level's splits fit into a register; `at` counts within the level. */
WIDE static void add_leaves_wide(Tree tree, const float *x, const int32_t *start, float *sum) {
    __m512i at[GROUPS], from[GROUPS];
    for (int g = 0; g < GROUPS; g++) at[g] = _mm512_setzero_si512(), from[g] = _mm512_loadu_si512(start + LANES * g);
    for (Py_ssize_t level = 0; level < tree.depth; level++) {
        const float *threshold = tree.threshold + (1 << level) - 1;
        const int32_t *feature = tree.feature + (1 << level) - 1;
        __m512 thresholds = _mm512_loadu_ps(threshold);
        __m512i features = _mm512_loadu_si512(feature);
        for (int g = 0; g < GROUPS; g++) {
            __m512 own = level <= 4 ? _mm512_permutexvar_ps(at[g], thresholds) : _mm512_i32gather_ps(at[g], threshold, 4);
            __m512i code = level <= 4 ? _mm512_permutexvar_epi32(at[g], features) : _mm512_i32gather_epi32(at[g], feature, 4);
            at[g] = step(at[g], from[g], own, code, x);
        }
    }
    for (int g = 0; g < GROUPS; g++) {
        __m512 leaf = _mm512_i32gather_ps(at[g], tree.leaf, 4);
        _mm512_storeu_ps(sum + LANES * g, _mm512_add_ps(_mm512_loadu_ps(sum + LANES * g), leaf));
    }
}
#else
#define HAS_WIDE 0
#define add_leaves_wide add_leaves
#endif

/* sum_trees(x (N, F) f32, use (N,) bool, threshold (T, n) f32, feature (T, n) i32, leaf (T, n + 1) f32, out (N,) f32,
 *           base, trees, depth)
 * out: base + the leaves of the first trees; NaN where `use` is false. */
PyObject *sum_trees(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[6];
    if (expect(count == 9, "9 arguments") < 0) return NULL;
    double base = PyFloat_AsDouble(args[6]);
    Py_ssize_t trees = PyLong_AsSsize_t(args[7]), depth = PyLong_AsSsize_t(args[8]);
    if (PyErr_Occurred() || read_arrays(args, "f?fifF", v) < 0) return NULL;
    Py_ssize_t rows = length(&v[1]), width = rows ? length(&v[0]) / rows : 0, known = depth >= 0 && depth < 31;
    Py_ssize_t splits = ((Py_ssize_t)1 << (known ? depth : 0)) - 1;
    const float *x = v[0].buf, *threshold = v[2].buf, *leaf = v[4].buf;
    const int32_t *feature = v[3].buf;
    const char *use = v[1].buf;
    float *out = v[5].buf;
    int good = known && trees >= 0 && length(&v[5]) == rows && length(&v[0]) < INT32_MAX && length(&v[2]) >= trees * splits + SPARE &&
               length(&v[3]) >= trees * splits + SPARE && length(&v[4]) >= trees * (splits + 1);
    for (Py_ssize_t n = 0; good && rows && n < trees * splits; n++) good = feature[n] >= 0 && feature[n] < 2 * width;
    if (good) {
        Py_BEGIN_ALLOW_THREADS
        void (*add)(Tree, const float *, const int32_t *, float *) = HAS_WIDE ? add_leaves_wide : add_leaves;
        int32_t row[ROWS], start[ROWS];
        float sum[ROWS];
        for (Py_ssize_t next = 0; next < rows;) {
            int many = 0;
            for (; next < rows && many < ROWS; next++) {
                if (use[next]) row[many++] = (int32_t)next;
                else out[next] = NAN;
            }
            for (int r = 0; r < ROWS; r++) { /* an incomplete block repeats its first row */
                start[r] = many ? (int32_t)(row[r < many ? r : 0] * width) : 0;
                sum[r] = (float)base;
            }
            for (Py_ssize_t t = 0; many && t < trees; t++) {
                Tree tree = {threshold + t * splits, feature + t * splits, leaf + t * (splits + 1), depth};
                add(tree, x, start, sum);
            }
            for (int r = 0; r < many; r++) out[row[r]] = sum[r];
        }
        Py_END_ALLOW_THREADS
    }
    release_arrays(v, 6);
    return expect(good, "trees of the given depth over the columns of x, and as many outputs as rows") < 0
               ? NULL
               : Py_NewRef(Py_None);
}
