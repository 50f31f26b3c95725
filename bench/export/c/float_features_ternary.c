/* ---- hash -> features ------------------------------------------------------------------------------------------ */

static inline const float *grit_features(model_token token, float *room)
{
    grit_expand(token, room);
    return room;
}
