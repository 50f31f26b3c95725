/* ---- tokens -> logits ------------------------------------------------------------------------------------------- */

void model_run(const model_token *tokens, uint32_t n, model_logit *logits, model_scratch *scratch)
{
    uint32_t t, k;
    if (n > MODEL_MAX_TOKENS)
        n = MODEL_MAX_TOKENS;
    for (k = 0; k < GRIT_STATE; k++)
        scratch->sum[k] = 128 * (int32_t)n;
    for (t = 0; t < n; t++) {
        grit_features(tokens[t], scratch->x);
        for (k = 0; k < GRIT_STATE; k++)
            scratch->sum[k] += scratch->x[k];
    }
    for (k = 0; k < GRIT_STATE; k++)
        scratch->state[k] = grit_mean(scratch->sum[k], n);
    grit_head(scratch->state, logits);
}
