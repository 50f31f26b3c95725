/* ---- hash -> features ------------------------------------------------------------------------------------------ */

static inline void grit_features(model_token token, grit_byte *x)
{
    grit_expand(token, x);
}
