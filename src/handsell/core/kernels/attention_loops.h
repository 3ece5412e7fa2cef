/* The loops of attention.c. They are included twice, for processors with and without vectors of sixteen numbers: the
 * compiler splits vectors for the processor of a function before it inlines. NAMED(x) is the name, TARGET the attribute. */
/* Add the value of one feature to `out` (size). */
TARGET static void NAMED(add_value)(Tables t, Py_ssize_t f, float x, float *out) {
    const float *knots = t.knots + f * WIDTH;
    int missing = x != x, at = COUNT_PASSED(x, knots) - 1;
    at = at < 0 ? 0 : at;
    float part = (x - knots[at]) * t.scale[f * WIDTH + at];
    part = part > 0 ? part : 0; /* also where it is unknown */
    part = part > 1 ? 1 : part;
    at = missing ? WIDTH : at;
    const float *low = t.table + (f * ROWS_OF_TABLE + at) * t.size, *high = low + t.size;
    for (Py_ssize_t d = 0; d < t.size; d += WIDTH) {
        Vector a = *(const Vector *)(low + d), b = *(const Vector *)(high + d);
        *(Vector *)(out + d) += a + part * (b - a);
    }
}

/* `constant` (F): whether all rows have the value of the first. */
TARGET static void NAMED(embed_all)(Tables t, const float *x, const char *constant, const float *base, float *out, Py_ssize_t rows) {
    for (Py_ssize_t r = 0; r < rows; r++) {
        memcpy(out + r * t.size, base, sizeof(float) * t.size);
        for (Py_ssize_t f = 0; f < t.features; f++)
            if (!constant[f]) NAMED(add_value)(t, f, x[r * t.features + f], out + r * t.size);
    }
}
/* e^x for x <= 0, within 2 units of the last place; 0 below -87. */
TARGET static Vector NAMED(exponential)(Vector x) {
    Vector n = x * 1.44269504f, magic = (Vector){0} + 12582912.0f;
    n = (n + magic) - magic;
    Vector r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    Vector y = (Vector){0} + 1.9875691500e-4f;
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    Integers scale = (__builtin_convertvector(n, Integers) + 127) << 23;
    Integers usable = x > -87.0f;
    return (Vector)((Integers)(y * (Vector)scale) & usable);
}

TARGET static void NAMED(attend_all)(Attention a, float *logit, float *out) {
    Py_ssize_t part = a.size / HEADS;
    float factor = 1.0f / sqrtf((float)part);
    for (Py_ssize_t r = 0; r < a.rows; r++) {
        for (int head = 0; head < HEADS; head++) {
            const float *query = a.query + r * a.size + head * part, *key = a.key + head * part * a.others;
            Vector top = {0};
            for (Py_ssize_t m = 0; m < a.others; m += WIDTH) {
                Vector sum = {0};
                for (Py_ssize_t d = 0; d < part; d++) sum += query[d] * *(const Vector *)(key + d * a.others + m);
                *(Vector *)(logit + m) = sum * factor + *(const Vector *)(a.bias + head * a.others + m);
            }
            if (a.self[r] >= 0) logit[a.self[r]] = NEVER;
            for (Py_ssize_t m = 0; m < a.others; m += WIDTH) {
                Vector now = *(Vector *)(logit + m);
                Integers more = now > top;
                top = (Vector)(((Integers)now & more) | ((Integers)top & ~more));
            }
            float highest = 0, total = 0;
            for (int lane = 0; lane < WIDTH; lane++) highest = top[lane] > highest ? top[lane] : highest;
            Vector sums = {0}, nothing = NAMED(exponential)((Vector){0} - highest);
            for (Py_ssize_t m = 0; m < a.others; m += WIDTH) {
                Vector share = NAMED(exponential)(*(Vector *)(logit + m) - highest);
                *(Vector *)(logit + m) = share;
                sums += share;
            }
            for (int lane = 0; lane < WIDTH; lane++) total += sums[lane];
            total = 1.0f / (total + nothing[0]);
            for (Py_ssize_t d = 0; d < part; d += WIDTH) {
                Vector found = {0};
                for (Py_ssize_t m = 0; m < a.others; m++)
                    found += logit[m] * *(const Vector *)(a.value + m * a.size + head * part + d);
                *(Vector *)(out + r * a.size + head * part + d) = found * total;
            }
        }
    }
}
