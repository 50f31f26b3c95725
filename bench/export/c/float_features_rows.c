/* ---- row -> features ---------------------------------------------------------------------------------------------- */

static inline const float *grit_features(model_token row, float *room)
{
    (void)room;
    return grit_table + (uint32_t)row * GRIT_FEATURES;
}
