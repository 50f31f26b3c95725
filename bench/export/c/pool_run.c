/* ---- tokens -> logits ------------------------------------------------------------------------------------ */

void model_run(const model_token *tokens, uint32_t n, model_logit *logits, model_scratch *scratch)
{
    uint32_t k, row, r;
    int16_t *state = scratch->state;
    if (n > MODEL_MAX_TOKENS)
        n = MODEL_MAX_TOKENS;
    grit_maps(tokens, n, scratch);
    for (k = 0; k < GRIT_KERNELS; k++)
        for (row = 0; row < grit_kernels[k].channels; row += 32) {
            const uint32_t rows = grit_kernels[k].value.rows - row < 32 ? grit_kernels[k].value.rows - row : 32;
            grit_outputs(&grit_kernels[k], row, n, scratch);
            for (r = 0; r < rows && row + r < grit_kernels[k].channels; r++)
                *state++ = grit_pooled(scratch->value + r, scratch->index + r, rows, n);
        }
    grit_head(scratch->state, logits);
}
