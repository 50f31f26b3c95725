/* ---- tokens -> logits ------------------------------------------------------------------------------------------- */

/* The maps of a text's tokens, and zeros behind the last. */
static void grit_maps(const model_token *tokens, uint32_t n, model_scratch *scratch)
{
    uint32_t t, k;
    for (t = 0; t < n; t += GRIT_TOKENS) {
        for (k = 0; k < GRIT_TOKENS && t + k < n; k++)
            grit_features(tokens[t + k], scratch->x + k * GRIT_STRIDE);
        grit_map(scratch->x, scratch->pairs, scratch->sums, scratch->values + t * GRIT_VALUES_STRIDE,
                 scratch->attentions + t * GRIT_ATTENTIONS_STRIDE);
    }
    for (k = n * GRIT_VALUES_STRIDE; k < (n + GRIT_BEYOND) * GRIT_VALUES_STRIDE; k++)
        scratch->values[k] = 0;
    for (k = n * GRIT_ATTENTIONS_STRIDE; k < (n + GRIT_BEYOND) * GRIT_ATTENTIONS_STRIDE; k++)
        scratch->attentions[k] = 0;
}

/* Outputs of up to 32 channels of a kernel at every token: values + 128, and attention with 64 steps to an octave. */
static void grit_outputs(const grit_kernel *kernel, uint32_t row, uint32_t n, model_scratch *scratch)
{
    const grit_layer value = grit_rows(&kernel->value, row), attention = grit_rows(&kernel->attention, row);
    uint32_t t, k;
    for (t = 0; t < n; t += GRIT_TOKENS) {
        grit_product(&value, scratch->values + t * GRIT_VALUES_STRIDE, GRIT_VALUES_STRIDE, scratch->pairs, scratch->sums);
        for (k = 0; k < GRIT_TOKENS * value.rows; k++)
            scratch->value[t * value.rows + k] =
                (uint8_t)(128 + grit_between(scratch->sums[k] >> kernel->value_shift, kernel->value_low, 127));
        grit_product(&attention, scratch->attentions + t * GRIT_ATTENTIONS_STRIDE, GRIT_ATTENTIONS_STRIDE, scratch->pairs,
                     scratch->sums);
        for (k = 0; k < GRIT_TOKENS * attention.rows; k++)
            scratch->index[t * attention.rows + k] =
                (int16_t)grit_between(scratch->sums[k] >> kernel->attention_shift, kernel->attention_low, 6143);
    }
}

/* The weighted mean over n tokens of one channel of ``rows``. */
static int16_t grit_pooled(const uint8_t *value, const int16_t *index, uint32_t rows, uint32_t n)
{
    int32_t top = -96;
    uint32_t total = 0, sum = 0, t;
    for (t = 0; t < n; t++)
        if (index[t * rows] >> 6 > top)
            top = index[t * rows] >> 6;
    for (t = 0; t < n; t++) {
        const int32_t i = index[t * rows], down = top - (i >> 6);
        const uint32_t weight = down > 31 ? 0 : grit_power[i & 63] >> down;
        total += weight;
        sum += weight * value[t * rows];
    }
    return grit_weighted(sum, total);
}

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
