/* The greedy selection of a slate with its usual criteria: diversity, taste, a gap between related items and a floor. */
#include "kernels.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Numbers of the criteria, in this order. */
enum { TASTE, ALPHA, TINY, ROUND, LEAST, BREAK, MOST_BREAKS, SHARE, SETTINGS };

typedef struct {
    Py_ssize_t width, tags, n, gap;
    const double *set;       /* (SETTINGS,) */
    const double *utility;   /* (K,) -inf where not allowed */
    const double *penalty;   /* (K,) or NULL */
    const double *kernel;    /* (K, K) or NULL */
    double strength;         /* of the kernel */
    const float *shares;     /* (K, U) or NULL */
    const double *wanted;    /* (U,) */
    const char *related;     /* (K, K) or NULL */
    const double *score, *leading; /* (K,) or NULL, of the floor */
    double *left, *factor;   /* (K,), (n, K) */
    double *sum, *smooth, *log_base; /* (U,) */
    double *value, *near, *cost; /* (K,), the last is the penalty at this position */
    char *gone, *tagged;     /* (K,) */
    double least, total;     /* of the wanted mix */
    Py_ssize_t count;        /* chosen items with tags */
} Row;

static void begin_row(Row *row) {
    memset(row->gone, 0, (size_t)row->width);
    row->count = 0, row->least = row->total = 0.0;
    for (Py_ssize_t k = 0; k < row->width; k++) row->left[k] = 1.0;
    for (Py_ssize_t u = 0; row->shares && u < row->tags; u++) {
        double p = row->wanted[u];
        row->sum[u] = 0.0, row->smooth[u] = p * (row->set[ALPHA] / (1 - row->set[ALPHA])) + row->set[TINY];
        row->least += p > 0 ? p * log(p) : 0.0, row->total += p;
    }
    for (Py_ssize_t k = 0; row->shares && k < row->width; k++) {
        row->tagged[k] = 0;
        for (Py_ssize_t u = 0; u < row->tags; u++) row->tagged[k] |= row->shares[k * row->tags + u] != 0;
    }
}

/* Subtract the divergence of the slate's mix of tags from the wanted one, with each candidate. */
static void subtract_taste(Row *row) {
    double many = (double)row->count + 1, held = row->count ? (double)row->count : 1.0, met = 0.0, present = 0.0;
    for (Py_ssize_t u = 0; u < row->tags; u++) {
        row->log_base[u] = log(row->sum[u] + many * row->smooth[u]);
        met += row->wanted[u] * row->log_base[u];
        present += row->wanted[u] * log((row->sum[u] + held * row->smooth[u]) * ((1 - row->set[ALPHA]) / held));
    }
    met += row->total * log((1 - row->set[ALPHA]) / many);
    for (Py_ssize_t k = 0; k < row->width; k++) {
        double gain = 0.0;
        const float *share = row->shares + k * row->tags;
        for (Py_ssize_t u = 0; !row->gone[k] && u < row->tags; u++)
            if (share[u] != 0 && row->wanted[u] != 0)
                gain += row->wanted[u] * (log(row->sum[u] + many * row->smooth[u] + share[u]) - row->log_base[u]);
        double cost = row->tagged[k] ? (row->least - met) - gain : row->least - present;
        row->value[k] -= rint(cost * row->set[TASTE] * row->set[ROUND]) / row->set[ROUND];
    }
}

static void add_chosen(Row *row, Py_ssize_t position, Py_ssize_t pick) {
    row->gone[pick] = 1;
    if (row->kernel) {
        double *own = row->factor + position * row->width, root = sqrt(row->left[pick]);
        for (Py_ssize_t k = 0; k < row->width; k++) own[k] = 0.0;
        for (Py_ssize_t p = 0; p < position; p++) {
            const double *done = row->factor + p * row->width;
            for (Py_ssize_t k = 0; k < row->width; k++) own[k] += done[pick] * done[k];
        }
        for (Py_ssize_t k = 0; k < row->width; k++) {
            own[k] = (row->kernel[pick * row->width + k] - own[k]) / root;
            row->left[k] -= own[k] * own[k];
            if (row->left[k] < row->set[LEAST]) row->left[k] = row->set[LEAST];
        }
    }
    if (row->shares) {
        for (Py_ssize_t u = 0; u < row->tags; u++) row->sum[u] += row->shares[pick * row->tags + u];
        row->count += row->tagged[pick];
    }
}

/* Pass over the candidates whose score is below a share of the best one left, among those of least penalty. */
static void pass_over_low(Row *row) {
    double least = INFINITY, best = 0.0;
    for (Py_ssize_t k = 0; k < row->width; k++)
        if (row->value[k] != -INFINITY && row->cost[k] < least) least = row->cost[k];
    for (Py_ssize_t k = 0; k < row->width; k++)
        if (row->value[k] != -INFINITY && row->cost[k] == least && row->leading[k] > best) best = row->leading[k];
    for (Py_ssize_t k = 0; best > 0.0 && k < row->width; k++)
        if (row->cost[k] == least && row->score[k] < row->set[SHARE] * best) row->value[k] = -INFINITY;
}

/* Choose the columns of one slate; the positions after the last allowed candidate stay as they are. */
static void select_slate(Row *row, int64_t *column, char *broken) {
    begin_row(row);
    for (Py_ssize_t position = 0; position < row->n && position < row->width; position++) {
        for (Py_ssize_t k = 0; k < row->width; k++) {
            row->value[k] = row->gone[k] ? -INFINITY : row->utility[k];
            if (row->kernel && position && !row->gone[k]) row->value[k] += row->strength * log(row->left[k]);
            row->near[k] = 0;
        }
        if (row->shares) subtract_taste(row);
        for (Py_ssize_t p = position > row->gap ? position - row->gap : 0; row->related && p < position; p++)
            for (Py_ssize_t k = 0; k < row->width; k++) row->near[k] += row->related[column[p] * row->width + k] != 0;
        for (Py_ssize_t k = 0; k < row->width; k++) {
            double often = row->near[k] < row->set[MOST_BREAKS] ? row->near[k] : row->set[MOST_BREAKS];
            row->cost[k] = (row->penalty ? row->penalty[k] : 0.0) + row->set[BREAK] * often;
        }
        if (row->score) pass_over_low(row);
        Py_ssize_t pick = 0;
        for (Py_ssize_t k = 0; k < row->width; k++) {
            row->value[k] -= row->cost[k];
            if (row->value[k] > row->value[pick]) pick = k;
        }
        if (row->gone[pick] || !isfinite(row->utility[pick])) return;
        column[position] = pick, broken[position] = row->near[pick] > 0;
        add_chosen(row, position, pick);
    }
}

/* select_slates(utility (B, K) f64, penalty (B, K) f64, kernel (B, K, K) f64, strength (B,) f64, shares (B, K, U) f32,
 *               wanted (B, U) f64, related (B, K, K) bool, column (B, n) i64, broken (B, n) bool, settings f64,
 *               score (B, K) f64, leading (B, K) f64, gap)
 * penalty, kernel, shares, related, and score with leading may be empty: no such criterion. */
PyObject *select_slates(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_buffer v[12];
    if (expect(count == 13, "13 arguments") < 0) return NULL;
    Py_ssize_t gap = PyLong_AsSsize_t(args[12]);
    if (PyErr_Occurred() || read_arrays(args, "ddddfd?LQddd", v) < 0) return NULL;
    Py_ssize_t rows = length(&v[3]), width = rows ? length(&v[0]) / rows : 0, n = rows ? length(&v[7]) / rows : 0;
    Py_ssize_t tags = rows ? length(&v[5]) / rows : 0, square = rows * width * width;
    int good = length(&v[0]) == rows * width && length(&v[7]) == length(&v[8]) && length(&v[9]) == SETTINGS && gap >= 0 &&
               (!length(&v[10]) || length(&v[10]) == rows * width) && length(&v[10]) == length(&v[11]) &&
               (!length(&v[1]) || length(&v[1]) == rows * width) && (!length(&v[2]) || length(&v[2]) == square) &&
               (!length(&v[4]) || length(&v[4]) == rows * width * tags) && (!length(&v[6]) || length(&v[6]) == square);
    double *space = good ? calloc((size_t)(width * (n + 4) + 3 * tags + width), sizeof(double)) : NULL;
    Row row = {.width = width, .tags = tags, .n = n, .gap = gap, .set = v[9].buf};
    if (space) {
        row.left = space, row.value = row.left + width, row.near = row.value + width;
        row.cost = row.near + width, row.sum = row.cost + width, row.smooth = row.sum + tags, row.log_base = row.smooth + tags;
        row.factor = row.log_base + tags;
        row.gone = (char *)(row.factor + n * width), row.tagged = row.gone + width;
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t b = 0; b < rows; b++) {
            row.utility = (const double *)v[0].buf + b * width;
            row.penalty = length(&v[1]) ? (const double *)v[1].buf + b * width : NULL;
            row.kernel = length(&v[2]) ? (const double *)v[2].buf + b * width * width : NULL;
            row.strength = ((const double *)v[3].buf)[b];
            row.shares = length(&v[4]) ? (const float *)v[4].buf + b * width * tags : NULL;
            row.wanted = (const double *)v[5].buf + b * tags;
            row.related = length(&v[6]) ? (const char *)v[6].buf + b * width * width : NULL;
            row.score = length(&v[10]) ? (const double *)v[10].buf + b * width : NULL;
            row.leading = row.score ? (const double *)v[11].buf + b * width : NULL;
            select_slate(&row, (int64_t *)v[7].buf + b * n, (char *)v[8].buf + b * n);
        }
        Py_END_ALLOW_THREADS
        free(space);
    }
    release_arrays(v, 12);
    if (good && !space) return PyErr_NoMemory();
    return expect(good, "criteria of each candidate") < 0 ? NULL : Py_NewRef(Py_None);
}
