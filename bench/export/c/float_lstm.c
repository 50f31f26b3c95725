/* ---- one token through the LSTM -------------------------------------------------------------------------------
 * Rows stand in blocks of 8 units: 8 input gates, 8 forget gates, 8 cells, 8 output gates. h and h_next differ.
 */

static void grit_step(const float *drive, const float *h, float *h_next, float *c)
{
    uint32_t unit;
    int v;
    for (unit = 0; unit < GRIT_PADDED; unit += 8, drive += 32) {
        grit_vec p[4 * GRIT_VECS];
        grit_dot(4, grit_state_weight + 4 * GRIT_UNITS * unit, 32, h, GRIT_UNITS, p);
        GRIT_UNROLLED
        for (v = 0; v < 4 * GRIT_VECS; v++)
            p[v] = grit_add(p[v], grit_load(drive + GRIT_LANES * v));
        GRIT_UNROLLED
        for (v = 0; v < GRIT_VECS; v++) {
            const grit_vec in = grit_sigmoid(p[v]), forget = grit_sigmoid(p[GRIT_VECS + v]);
            const grit_vec cell = grit_tanh(p[2 * GRIT_VECS + v]), out = grit_sigmoid(p[3 * GRIT_VECS + v]);
            float *at = c + unit + GRIT_LANES * v;
            const grit_vec next = grit_fma(forget, grit_load(at), grit_mul(in, cell));
            grit_store(at, next);
            grit_store(h_next + unit + GRIT_LANES * v, grit_mul(out, grit_tanh(next)));
        }
    }
}
