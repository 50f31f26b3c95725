/* ---- tokens -> logits ------------------------------------------------------------------------------------------- */

void model_run(const model_token *tokens, uint32_t n, model_logit *logits, model_scratch *scratch)
{
    uint32_t t, k, turn = 0;
    for (k = 0; k < GRIT_PADDED; k++) {
        scratch->h[0][k] = scratch->h[1][k] = 0.0f;
#if defined(GRIT_LSTM)
        scratch->c[k] = 0.0f;
#endif
    }
    if (n > MODEL_MAX_TOKENS)
        n = MODEL_MAX_TOKENS;
    for (t = 0; t < n; t += GRIT_TOKENS) {
        const uint32_t more = n - t < GRIT_TOKENS ? n - t : GRIT_TOKENS;
        const float *x[GRIT_TOKENS];
        for (k = 0; k < GRIT_TOKENS; k++) /* what is beyond the end is computed in vain */
            x[k] = grit_features(tokens[k < more ? t + k : t], scratch->x + k * GRIT_STRIDE);
        grit_product(&grit_input, x, scratch->drive);
        for (k = 0; k < more; k++, turn ^= 1) {
            const float *drive = scratch->drive + k * GRIT_ROWS_INPUT;
#if defined(GRIT_LSTM)
            grit_step(drive, scratch->h[turn], scratch->h[turn ^ 1], scratch->c);
#else
            grit_step(drive, scratch->h[turn], scratch->h[turn ^ 1]);
#endif
        }
    }
    grit_head(scratch->h[turn], logits);
}
