/* Conjugate gradients of one row. descent.c includes this once for each kind of processor; NAME(x) is the name of x for
 * that kind. All kinds add in the same order, so that they give the same results. Sizes are multiples of LANES. */

static inline float NAME(sum_lanes)(Lanes lanes) {
#if LANES == 8
    union { Lanes all; Half part[2]; } bits = {lanes};
    Half sum = bits.part[0] + bits.part[1];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
#else
    return lanes;
#endif
}

/* Add Σ w_j y_j over the row's pairs j to sum (D,), with w_j = e_j (y_j · x): the pairs' part of the system times x.
 * For the residual w_j is the right side of the pair less that. Blocks of pairs are summed apart, in `part` (D,), so
 * that the rounding of a long row stays small. */
static void NAME(add_pairs)(const Pairs *row, const float *other, Py_ssize_t size, const float *x, float *sum, float *part,
                            int residual) {
    for (Py_ssize_t first = 0; first < row->count; first += GROUP) {
        Py_ssize_t many = row->count - first < GROUP ? row->count - first : GROUP;
        const float *y[GROUP];
        float weight[GROUP] = {0};
        Lanes product[GROUP] = {0};
        for (Py_ssize_t j = 0; j < GROUP; j++) y[j] = other + row->column[first + (j < many ? j : 0)] * size;
        for (Py_ssize_t j = first + GROUP; j < first + 2 * GROUP && j < row->count; j++)
            for (Py_ssize_t d = 0; d < size; d += LINE) FETCH(other + row->column[j] * size + d);
        for (Py_ssize_t d = 0; d < size; d += LANES)
            for (int j = 0; j < GROUP; j++) product[j] += AT(y[j] + d) * AT(x + d);
        for (Py_ssize_t j = 0; j < many; j++) {
            float added = row->added[first + j], extra = fabsf(added), fitted = extra * NAME(sum_lanes)(product[j]);
            weight[j] = residual ? (added > 0 ? 1.0f + extra : 0.0f) - fitted : fitted;
        }
        if (first % BLOCK == 0) memset(part, 0, (size_t)size * sizeof(float));
        for (Py_ssize_t d = 0; d < size; d += LANES) {
            Lanes partial = AT(part + d);
            for (int j = 0; j < GROUP; j++) partial += weight[j] * AT(y[j] + d);
            AT(part + d) = partial;
        }
        if ((first + GROUP) % BLOCK == 0 || first + GROUP >= row->count)
            for (Py_ssize_t d = 0; d < size; d += LANES) AT(sum + d) += AT(part + d);
    }
}

/* Improve x (D,) by at most `steps` steps. `scratch` has SCRATCH x D numbers. */
static void NAME(improve)(const Pairs *row, const float *other, Py_ssize_t size, const float *values, float penalty,
                          Py_ssize_t steps, float *x, float *scratch) {
    float *ridge = scratch, *residual = ridge + size, *direction = residual + size, *image = direction + size, *part = image + size;
    Lanes sum = {0};
    for (Py_ssize_t d = 0; d < size; d += LANES) {
        AT(ridge + d) = AT(values + d) + penalty;
        AT(residual + d) = -(AT(ridge + d) * AT(x + d));
    }
    NAME(add_pairs)(row, other, size, x, residual, part, 1);
    for (Py_ssize_t d = 0; d < size; d += LANES) {
        AT(direction + d) = AT(residual + d) / AT(ridge + d);
        sum += AT(residual + d) * AT(direction + d);
    }
    float before = NAME(sum_lanes)(sum);
    for (Py_ssize_t step = 0; step < steps; step++) {
        Lanes curvature = {0}, rest = {0};
        for (Py_ssize_t d = 0; d < size; d += LANES) AT(image + d) = AT(ridge + d) * AT(direction + d);
        NAME(add_pairs)(row, other, size, direction, image, part, 0);
        for (Py_ssize_t d = 0; d < size; d += LANES) curvature += AT(direction + d) * AT(image + d);
        float bend = NAME(sum_lanes)(curvature);
        if (!(before > 0 && bend > 0)) return; /* x is the minimum */
        float reach = before / bend;
        for (Py_ssize_t d = 0; d < size; d += LANES) {
            AT(x + d) += reach * AT(direction + d);
            AT(residual + d) -= reach * AT(image + d);
            AT(image + d) = AT(residual + d) / AT(ridge + d);
            rest += AT(residual + d) * AT(image + d);
        }
        float after = NAME(sum_lanes)(rest), kept = after / before;
        for (Py_ssize_t d = 0; d < size; d += LANES) AT(direction + d) = AT(image + d) + kept * AT(direction + d);
        before = after;
    }
}
