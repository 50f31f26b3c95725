/* ---- one token through the FastGRNN cell; h and h_next differ --------------------------------------------------- */

GRIT_INLINE void grit_units(int panels, const float *drive, const float *h, uint32_t unit, float *h_next)
{
    grit_vec p[4 * GRIT_VECS];
    int v;
    grit_dot(panels, grit_state_weight + GRIT_UNITS * unit, 8 * panels, h, GRIT_UNITS, p);
    GRIT_UNROLLED
    for (v = 0; v < GRIT_VECS * panels; v++) {
        const uint32_t at = unit + GRIT_LANES * v;
        const grit_vec sum = grit_add(p[v], grit_load(drive + at)); /* with the bias of the update */
        const grit_vec z = grit_sigmoid(grit_add(sum, grit_load(grit_gate_offset + at))), c = grit_tanh(sum);
        const grit_vec share = grit_fma(grit_all(GRIT_ZETA), grit_sub(grit_all(1.0f), z), grit_all(GRIT_NU));
        grit_store(h_next + at, grit_fma(z, grit_load(h + at), grit_mul(share, c)));
    }
}

static void grit_step(const float *drive, const float *h, float *h_next)
{
    uint32_t unit;
    for (unit = 0; unit + 32 <= GRIT_PADDED; unit += 32)
        grit_units(4, drive, h, unit, h_next);
#if GRIT_PADDED % 32
    grit_units(GRIT_PADDED % 32 / 8, drive, h, unit, h_next);
#endif
}
