/* ---- rows of tokens -> state -> logits ----------------------------------------------------------------- */

void model_run(const model_token *tokens, uint32_t n, model_logit *logits, model_scratch *scratch)
{
    uint32_t t, k, turn = 0;
    for (k = 0; k < GRIT_PADDED; k++) {
        scratch->h[0][k] = scratch->h[1][k] = 0;
        scratch->state[k] = 0;
#if defined(GRIT_LSTM)
        scratch->c[k] = 0;
#endif
    }
    if (n > MODEL_MAX_TOKENS)
        n = MODEL_MAX_TOKENS;
    for (t = 0; t < n; t += GRIT_TOKENS) {
        const uint32_t more = n - t < GRIT_TOKENS ? n - t : GRIT_TOKENS;
        for (k = 0; k < more; k++)
            grit_features(tokens[t + k], scratch->x + k * GRIT_STRIDE);
        grit_product(&grit_input, scratch->x, GRIT_STRIDE, scratch->pairs, scratch->drive);
        for (k = 0; k < more; k++, turn ^= 1) {
            const int32_t *drive = scratch->drive + k * GRIT_ROWS_INPUT;
#if defined(GRIT_LSTM)
            grit_step(drive, scratch->h[turn], scratch->pairs, scratch->h[turn ^ 1], scratch->c, scratch->state);
#else
            grit_step(drive, scratch->h[turn], scratch->pairs, scratch->h[turn ^ 1], scratch->state);
#endif
        }
    }
    grit_head(scratch->state, logits);
}
