/* ---- tokens -> logits ------------------------------------------------------------------------------------------- */

void model_run(const model_token *tokens, uint32_t n, model_logit *logits, model_scratch *scratch)
{
    uint32_t t, k, row, r;
    float *state = scratch->state;
    if (n > MODEL_MAX_TOKENS)
        n = MODEL_MAX_TOKENS;
    for (t = 0; t < n; t += GRIT_TOKENS) {
        const float *x[GRIT_TOKENS];
        for (k = 0; k < GRIT_TOKENS; k++) /* what is beyond the end is computed in vain */
            x[k] = grit_features(tokens[t + k < n ? t + k : t], scratch->x + k * GRIT_STRIDE);
        grit_map(&grit_value, x, scratch->sums, scratch->values + t * GRIT_VALUES, GRIT_VALUES, GRIT_VALUE_RELU);
        grit_map(&grit_attention, x, scratch->sums, scratch->attentions + t * GRIT_ATTENTIONS, GRIT_ATTENTIONS,
                 GRIT_ATTENTION_RELU);
    }
    for (k = n * GRIT_VALUES; k < (n + GRIT_BEYOND) * GRIT_VALUES; k++)
        scratch->values[k] = 0.0f;
    for (k = n * GRIT_ATTENTIONS; k < (n + GRIT_BEYOND) * GRIT_ATTENTIONS; k++)
        scratch->attentions[k] = 0.0f;
    for (k = 0; k < GRIT_KERNELS; k++)
        for (row = 0; row < grit_kernels[k].channels; row += 32) {
            const grit_layer value = grit_rows(&grit_kernels[k].value, row);
            const grit_layer attention = grit_rows(&grit_kernels[k].attention, row);
            grit_outputs(&value, scratch->values, GRIT_VALUES, n, scratch->value);
            grit_outputs(&attention, scratch->attentions, GRIT_ATTENTIONS, n, scratch->logit);
            for (r = 0; r < value.rows && row + r < grit_kernels[k].channels; r++)
                *state++ = grit_pooled(scratch->value + r, scratch->logit + r, value.rows, n);
        }
    grit_head(scratch->state, logits);
}
