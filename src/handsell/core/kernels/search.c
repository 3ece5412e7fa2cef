/* The best items of a query, and the neighbors of a history. */
#include "kernels.h"
#include "wide.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define AHEAD 8 /* vectors that are fetched before they are needed */
#define LINE 16 /* numbers of a cache line */
#define BUCKETS 2048
#define HIGH 21 /* bits below the first digit of a key */
#define LOW 10  /* bits below the second */

#ifdef HAS_WIDE
/* The inner product in the order of additions of NumPy's einsum. */
__attribute__((target("sse3"))) static float product(const float *a, const float *b, Py_ssize_t n) {
    __m128 sum = _mm_setzero_ps();
    Py_ssize_t d = 0;
    for (; d + 16 <= n; d += 16)
        for (int part = 12; part >= 0; part -= 4)
            sum = _mm_add_ps(_mm_mul_ps(_mm_loadu_ps(a + d + part), _mm_loadu_ps(b + d + part)), sum);
    for (; d + 4 <= n; d += 4) sum = _mm_add_ps(_mm_mul_ps(_mm_loadu_ps(a + d), _mm_loadu_ps(b + d)), sum);
    if (d < n) {
        float left[8] = {0};
        memcpy(left, a + d, (size_t)(n - d) * sizeof(float));
        memcpy(left + 4, b + d, (size_t)(n - d) * sizeof(float));
        sum = _mm_add_ps(_mm_mul_ps(_mm_loadu_ps(left), _mm_loadu_ps(left + 4)), sum);
    }
    sum = _mm_hadd_ps(sum, sum);
    return _mm_cvtss_f32(_mm_hadd_ps(sum, sum));
}
#else
static float product(const float *a, const float *b, Py_ssize_t n) {
    float sum = 0.0f;
    for (Py_ssize_t d = 0; d < n; d++) sum += a[d] * b[d];
    return sum;
}
#endif

/* products(vectors (I, D) f32, items (K,) i64, query (D,) f32, out (K,) f32) */
PyObject *products(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[4];
    if (expect(count == 4, "4 arguments") < 0 || read_arrays(args, "flfF", v) < 0) return NULL;
    Py_ssize_t size = length(&v[2]), items = size ? length(&v[0]) / size : 0, k = length(&v[1]);
    int good = length(&v[3]) == k;
    for (Py_ssize_t i = 0; good && i < k; i++) {
        int64_t item = ((const int64_t *)v[1].buf)[i];
        good = item >= 0 && item < items;
        if (good) ((float *)v[3].buf)[i] = product((const float *)v[0].buf + item * size, v[2].buf, size);
    }
    release_arrays(v, 4);
    return expect(good, "items that have a vector, and as many outputs") < 0 ? NULL : Py_NewRef(Py_None);
}

/* A bound that at least k of the allowed scores reach, close to the k-th largest; -INFINITY if there are fewer. */
static float find_bound(const float *score, const char *allowed, Py_ssize_t n, Py_ssize_t k) {
    uint32_t count[BUCKETS] = {0}, fine[BUCKETS] = {0};
    for (Py_ssize_t i = 0; i < n; i++) count[descending32(score[i]) >> HIGH] += allowed[i] != 0;
    Py_ssize_t before = 0, bucket = 0;
    for (; bucket < BUCKETS && before + (Py_ssize_t)count[bucket] < k; bucket++) before += count[bucket];
    if (bucket == BUCKETS) return -INFINITY;
    for (Py_ssize_t i = 0; i < n; i++) {
        uint32_t key = descending32(score[i]);
        if (key >> HIGH == (uint32_t)bucket) fine[key >> LOW & (BUCKETS - 1)] += allowed[i] != 0;
    }
    uint32_t next = 0;
    for (; next < BUCKETS - 1 && before + (Py_ssize_t)fine[next] < k; next++) before += fine[next];
    union { uint32_t u; float f; } bits;
    bits.u = (uint32_t)bucket << HIGH | next << LOW | ((1u << LOW) - 1); /* the largest key: the least score */
    bits.u = bits.u & 0x80000000u ? bits.u : ~bits.u & 0x7fffffffu;
    return bits.f;
}

typedef struct {
    int32_t *item, *order, *scratch;
    float *score;
    uint32_t *key;
} Best;

static int make_best(Best *best, Py_ssize_t most) {
    best->item = malloc((size_t)(most + 1) * (3 * sizeof(int32_t) + sizeof(float) + sizeof(uint32_t)));
    if (!best->item) return -1;
    best->order = best->item + most, best->scratch = best->order + most;
    best->score = (float *)(best->scratch + most), best->key = (uint32_t *)(best->score + most);
    return 0;
}

/* Write the k best of n items, given in ascending order; ties keep that order, and the rest is padding. */
static void write_best(Best *best, Py_ssize_t n, Py_ssize_t k, int32_t *items, float *scores) {
    for (Py_ssize_t i = 0; i < n; i++) best->key[i] = descending32(best->score[i]), best->order[i] = (int32_t)i;
    sort_by_key32(best->key, best->order, best->scratch, n);
    for (Py_ssize_t i = 0; i < k; i++) {
        items[i] = i < n ? best->item[best->order[i]] : NONE;
        scores[i] = i < n ? best->score[best->order[i]] : NAN;
    }
}

/* Write the k best allowed items of one query by exact product; rough products are within `slack` / 2 of these. */
static void select_row(Best *best, const float *vectors, Py_ssize_t n, const float *query, Py_ssize_t size,
                       const float *rough, const char *allowed, float slack, Py_ssize_t k, int32_t *items, float *scores) {
    Py_ssize_t used = 0, found = 0;
    while (used < size && query[used] == 0.0f) used++;
    if (used < size && k > 0) { /* a query of zeros finds nothing */
        float bound = find_bound(rough, allowed, n, k) - slack;
        for (Py_ssize_t i = 0; i < n; i++) {
            best->item[found] = (int32_t)i;
            found += (rough[i] >= bound) & (allowed[i] != 0);
        }
    }
    for (Py_ssize_t f = 0; f < found; f++) {
        if (f + AHEAD < found) {
            const float *later = vectors + (Py_ssize_t)best->item[f + AHEAD] * size;
            for (Py_ssize_t d = 0; d < size; d += LINE) __builtin_prefetch(later + d);
        }
        best->score[f] = product(vectors + (Py_ssize_t)best->item[f] * size, query, size);
    }
    write_best(best, found, k, items, scores);
}

/* select_nearest(vectors (I, D) f32, queries (B, D) f32, rough (B, I) f32, allowed (B, I) bool, slack (B,) f32,
 *                items (B, k) i32, scores (B, k) f32) */
PyObject *select_nearest(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[7];
    if (expect(count == 7, "7 arguments") < 0 || read_arrays(args, "fff?fIF", v) < 0) return NULL;
    Py_ssize_t rows = length(&v[4]), size = rows ? length(&v[1]) / rows : 0, n = rows ? length(&v[2]) / rows : 0;
    Py_ssize_t k = rows ? length(&v[5]) / rows : 0;
    int good = length(&v[3]) == length(&v[2]) && length(&v[5]) == length(&v[6]) && length(&v[0]) == n * size;
    Best best;
    int made = good && make_best(&best, n) == 0;
    if (made) {
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t b = 0; b < rows; b++)
            select_row(&best, v[0].buf, n, (const float *)v[1].buf + b * size, size, (const float *)v[2].buf + b * n,
                       (const char *)v[3].buf + b * n, ((const float *)v[4].buf)[b], k, (int32_t *)v[5].buf + b * k,
                       (float *)v[6].buf + b * k);
        Py_END_ALLOW_THREADS
        free(best.item);
    }
    release_arrays(v, 7);
    if (good && !made) return PyErr_NoMemory();
    return expect(good, "a score and a flag of each item for each query") < 0 ? NULL : Py_NewRef(Py_None);
}

#ifdef HAS_WIDE
/* Products of int8 vectors with a query, times the scale of each vector: blocks (N, width, LANES) hold LANES vectors
 * side by side, so that no sum runs across a register. width is a multiple of 4. */
WIDE static void multiply_coarse(const int8_t *blocks, const float *scale, Py_ssize_t count, Py_ssize_t width,
                                 const float *query, float *out) {
    for (Py_ssize_t i = 0; i < count; i++) {
        const int8_t *block = blocks + i * width * LANES;
        __m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
        for (Py_ssize_t d = 0; d < width; d += 4)
            for (int part = 0; part < 4; part++) {
                __m512i numbers = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(block + (d + part) * LANES)));
                sum[part] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(numbers), _mm512_set1_ps(query[d + part]), sum[part]);
            }
        __m512 all = _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3]));
        _mm512_storeu_ps(out + i * LANES, _mm512_mul_ps(all, _mm512_loadu_ps(scale + i * LANES)));
    }
}

/* select_nearest_coarse(vectors (I, D) f32, queries (B, W) f32, coarse (N, W, 16) i8, scale (N, 16) f32,
 *                       allowed (B, I) bool, slack (B,) f32, items (B, k) i32, scores (B, k) f32)
 * The same with int8 vectors for the rough products: a quarter of the memory is read. Zeros fill the last of the N
 * blocks of 16 items, and W, which is D rounded up to 16. */
PyObject *select_nearest_coarse(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[8];
    if (expect(count == 8, "8 arguments") < 0 || read_arrays(args, "ffbf?fIF", v) < 0) return NULL;
    Py_ssize_t rows = length(&v[5]), width = rows ? length(&v[1]) / rows : 0, n = rows ? length(&v[4]) / rows : 0;
    Py_ssize_t blocks = (n + LANES - 1) / LANES, k = rows ? length(&v[6]) / rows : 0, size = n ? length(&v[0]) / n : 0;
    int good = length(&v[4]) == rows * n && length(&v[6]) == length(&v[7]) && length(&v[0]) == n * size && size <= width &&
               length(&v[3]) == blocks * LANES && length(&v[2]) == blocks * LANES * width && width % LANES == 0 && HAS_WIDE;
    Best best;
    float *rough = good ? malloc((size_t)(blocks * LANES + 1) * sizeof(float)) : NULL;
    int made = rough && make_best(&best, n) == 0;
    if (made) {
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t b = 0; b < rows; b++) {
            const float *query = (const float *)v[1].buf + b * width;
            multiply_coarse(v[2].buf, v[3].buf, blocks, width, query, rough);
            select_row(&best, v[0].buf, n, query, size, rough, (const char *)v[4].buf + b * n,
                       ((const float *)v[5].buf)[b], k, (int32_t *)v[6].buf + b * k, (float *)v[7].buf + b * k);
        }
        Py_END_ALLOW_THREADS
        free(best.item);
    }
    free(rough);
    release_arrays(v, 8);
    if (good && !made) return PyErr_NoMemory();
    return expect(good, "a processor with AVX-512, and a vector of each item") < 0 ? NULL : Py_NewRef(Py_None);
}
#else
PyObject *select_nearest_coarse(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    return expect(0, "a processor with AVX-512") < 0 ? NULL : NULL;
}
#endif

/* select_neighbors(item (B, T) i32, weight (B, T) f32, data (N,) f32, indices (N,) i32, begin (I + 1,) i64,
 *                  eligible (B, I) bool, items (B, k) i32, scores (B, k) f32, rows)
 * The k best of the sums over a history of weight × similarity, which a dislike lowers at its own item, above 0. */
PyObject *select_neighbors(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[8];
    if (expect(count == 9, "9 arguments") < 0) return NULL;
    Py_ssize_t rows = PyLong_AsSsize_t(args[8]);
    if (PyErr_Occurred() || read_arrays(args, "iffil?IF", v) < 0) return NULL;
    Py_ssize_t past = rows ? length(&v[0]) / rows : 0, n = length(&v[4]) - 1, k = rows ? length(&v[6]) / rows : 0;
    const int32_t *item = v[0].buf, *indices = v[3].buf;
    const float *weight = v[1].buf, *data = v[2].buf;
    const int64_t *begin = v[4].buf;
    int good = length(&v[1]) == length(&v[0]) && length(&v[2]) == length(&v[3]) && length(&v[5]) == rows * n &&
               length(&v[6]) == length(&v[7]);
    Py_ssize_t most = 0;
    for (Py_ssize_t b = 0; good && b < rows; b++) {
        Py_ssize_t own = past;
        for (Py_ssize_t t = b * past; good && t < (b + 1) * past; t++) {
            if (item[t] == NONE) continue;
            good = item[t] >= 0 && item[t] < n && has_segment(begin, item[t], length(&v[2]));
            if (good) own += begin[item[t] + 1] - begin[item[t]];
        }
        most = own > most ? own : most;
    }
    Best best;
    Table table = {NULL, NULL, 0};
    int made = good && make_best(&best, most) == 0;
    if (made && table_make(&table, most) < 0) {
        free(best.item);
        made = 0;
    }
    for (Py_ssize_t b = 0; made && good && b < rows; b++) {
        const char *eligible = (const char *)v[5].buf + b * n;
        Py_ssize_t found = 0, kept = 0;
        table_clear(&table);
#define ADD(KEY, VALUE)                                                                                     \
    do {                                                                                                    \
        uint32_t at = table_place(&table, KEY);                                                             \
        if (table.key[at] == NONE) {                                                                        \
            table.key[at] = KEY, table.value[at] = (int32_t)found;                                          \
            best.item[found] = KEY, best.score[found++] = 0.0f;                                             \
        }                                                                                                   \
        best.score[table.value[at]] += VALUE;                                                               \
    } while (0)
        for (Py_ssize_t t = b * past; t < (b + 1) * past; t++) {
            if (item[t] == NONE) continue;
            for (int64_t m = begin[item[t]]; good && m < begin[item[t] + 1]; m++) {
                good = indices[m] >= 0 && indices[m] < n;
                if (good) ADD(indices[m], weight[t] * data[m]);
            }
        }
        for (Py_ssize_t t = b * past; t < (b + 1) * past; t++)
            if (item[t] != NONE && weight[t] < 0) ADD(item[t], weight[t]);
        for (Py_ssize_t f = 0; f < found; f++) {
            best.item[kept] = best.item[f], best.score[kept] = best.score[f];
            kept += eligible[best.item[f]] && best.score[f] > 0;
        }
        for (Py_ssize_t i = 0; i < kept; i++) best.key[i] = (uint32_t)best.item[i], best.order[i] = (int32_t)i;
        sort_by_key32(best.key, best.order, best.scratch, kept); /* ties in the order of items */
        for (Py_ssize_t i = 0; i < kept; i++) best.key[i] = descending32(best.score[i]);
        sort_by_key32(best.key, best.order, best.scratch, kept);
        for (Py_ssize_t i = 0; i < k; i++) {
            ((int32_t *)v[6].buf)[b * k + i] = i < kept ? best.item[best.order[i]] : NONE;
            ((float *)v[7].buf)[b * k + i] = i < kept ? best.score[best.order[i]] : NAN;
        }
    }
    if (made) {
        free(best.item);
        table_free(&table);
    }
    release_arrays(v, 8);
    if (good && !made) return PyErr_NoMemory();
    return expect(good, "rows of neighbors of each item of the histories") < 0 ? NULL : Py_NewRef(Py_None);
}
