/* ---- fp32 layers: weight . x + bias ---------------------------------------------------------------------------
 * Weights lie in panels of 8 rows, up to 4 panels side by side in a chunk: [chunk][input][panel][8 rows]. Rows are
 * padded with zeros. Each row adds its products in the order of the inputs, on every core.
 */

typedef struct {
    const float *weight, *bias;
    uint32_t rows, inputs; /* rows: a multiple of 8 */
} grit_layer;

/* Where the panel that begins at ``row`` begins, and how far its inputs lie apart. */
static const float *grit_panel(const grit_layer *layer, uint32_t row, uint32_t *step)
{
    uint32_t chunk = row & ~31u;
    *step = layer->rows - chunk < 32 ? layer->rows - chunk : 32;
    return layer->weight + chunk * layer->inputs + row - chunk;
}

#if defined(GRIT_NEON)
/* sums[] += four inputs times ``vecs`` vectors of rows. */
#define GRIT_LANE(vecs, sums, w, x, lane)                                     \
    GRIT_UNROLLED                                                             \
    for (int v_ = 0; v_ < (vecs); v_++)                                       \
        (sums)[v_] = vfmaq_laneq_f32((sums)[v_], vld1q_f32((w) + 4 * v_), x, lane);
#endif

/* sums[]: ``panels`` panels (a constant) that lie side by side, times x. */
GRIT_INLINE void grit_dot(int panels, const float *w, uint32_t step, const float *x, uint32_t inputs, grit_vec *sums)
{
    int v;
    GRIT_UNROLLED
    for (v = 0; v < GRIT_VECS * panels; v++)
        sums[v] = grit_all(0.0f);
#if defined(GRIT_NEON)
    for (; inputs >= 4; inputs -= 4, x += 4, w += 4 * step) {
        const float32x4_t four = vld1q_f32(x);
        GRIT_LANE(2 * panels, sums, w, four, 0)
        GRIT_LANE(2 * panels, sums, w + step, four, 1)
        GRIT_LANE(2 * panels, sums, w + 2 * step, four, 2)
        GRIT_LANE(2 * panels, sums, w + 3 * step, four, 3)
    }
#endif
    for (; inputs; inputs--, x++, w += step) {
        const grit_vec one = grit_all(*x);
        GRIT_UNROLLED
        for (v = 0; v < GRIT_VECS * panels; v++)
            sums[v] = grit_fma(grit_load(w + GRIT_LANES * v), one, sums[v]);
    }
}

/* out[token][row] = weight . x[token] + bias for GRIT_TOKENS tokens. */
static void grit_product(const grit_layer *layer, const float *const *x, float *out)
{
    uint32_t row, step, k;
    int t, v;
    for (row = 0; row < layer->rows; row += 8) {
        const float *w = grit_panel(layer, row, &step);
        grit_vec sums[GRIT_TOKENS][GRIT_VECS];
        GRIT_UNROLLED
        for (t = 0; t < GRIT_TOKENS; t++)
            GRIT_UNROLLED
            for (v = 0; v < GRIT_VECS; v++)
                sums[t][v] = grit_all(0.0f);
        k = 0;
#if defined(GRIT_NEON)
        for (; k + 4 <= layer->inputs; k += 4, w += 4 * step) {
            float32x4_t four[GRIT_TOKENS];
            GRIT_UNROLLED
            for (t = 0; t < GRIT_TOKENS; t++)
                four[t] = vld1q_f32(x[t] + k);
            GRIT_UNROLLED
            for (t = 0; t < GRIT_TOKENS; t++)
                GRIT_LANE(2, sums[t], w, four[t], 0)
            GRIT_UNROLLED
            for (t = 0; t < GRIT_TOKENS; t++)
                GRIT_LANE(2, sums[t], w + step, four[t], 1)
            GRIT_UNROLLED
            for (t = 0; t < GRIT_TOKENS; t++)
                GRIT_LANE(2, sums[t], w + 2 * step, four[t], 2)
            GRIT_UNROLLED
            for (t = 0; t < GRIT_TOKENS; t++)
                GRIT_LANE(2, sums[t], w + 3 * step, four[t], 3)
        }
#endif
        for (; k < layer->inputs; k++, w += step)
            GRIT_UNROLLED
            for (t = 0; t < GRIT_TOKENS; t++)
                GRIT_UNROLLED
                for (v = 0; v < GRIT_VECS; v++)
                    sums[t][v] = grit_fma(grit_load(w + GRIT_LANES * v), grit_all(x[t][k]), sums[t][v]);
        GRIT_UNROLLED
        for (t = 0; t < GRIT_TOKENS; t++)
            GRIT_UNROLLED
            for (v = 0; v < GRIT_VECS; v++)
                grit_store(out + t * layer->rows + row + GRIT_LANES * v,
                           grit_add(sums[t][v], grit_load(layer->bias + row + GRIT_LANES * v)));
    }
}
