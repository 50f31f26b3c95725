/* ---- row -> features --------------------------------------------------------------------------------------- */

static inline void grit_features(model_token row, grit_byte *x)
{
    const int8_t *from = grit_table + (uint32_t)row * GRIT_FEATURES;
    uint32_t k;
    for (k = 0; k < GRIT_FEATURES; k++)
        x[k] = from[k];
}
