/* ---- tokens -> their mean -> logits ------------------------------------------------------------------------------ */

void model_run(const model_token *tokens, uint32_t n, model_logit *logits, model_scratch *scratch)
{
    uint32_t t, k;
    if (n > MODEL_MAX_TOKENS)
        n = MODEL_MAX_TOKENS;
    for (k = 0; k < GRIT_STATE; k++)
        scratch->state[k] = 0.0f;
    for (t = 0; t < n; t++) {
        const float *x = grit_features(tokens[t], scratch->x);
        for (k = 0; k < GRIT_STATE; k++)
            scratch->state[k] += x[k];
    }
    for (k = 0; k < GRIT_STATE; k++)
        scratch->state[k] /= (float)n;
    grit_head(scratch->state, logits);
}
