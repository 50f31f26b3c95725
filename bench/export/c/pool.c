/* ---- projected attention: token maps, kernels over them, a mean over time weighted by 2^attention ----------- */

typedef struct {
    grit_layer value, attention;
    uint32_t channels;
    int value_shift, attention_shift, value_low, attention_low; /* low: 0 with a rectifier */
} grit_kernel;

static const grit_kernel grit_kernels[GRIT_KERNELS]; /* below */

/* Up to 32 rows of a layer. */
static inline grit_layer grit_rows(const grit_layer *layer, uint32_t row)
{
    const uint32_t rows = layer->rows - row < 32 ? layer->rows - row : 32;
    const grit_layer part = {layer->weight + 4 * row * layer->groups, layer->multiplier + row, layer->bias + row, rows,
                             layer->groups};
    return part;
}

/* What a text's tokens are mapped to, and zeros behind the last. */
static void grit_maps(const model_token *tokens, uint32_t n, model_scratch *scratch)
{
    uint32_t t, k, r;
    for (t = 0; t < n; t += GRIT_TOKENS) {
        for (k = 0; k < GRIT_TOKENS && t + k < n; k++)
            grit_features(tokens[t + k], scratch->x + k * GRIT_STRIDE);
        grit_product(&grit_value, scratch->x, GRIT_STRIDE, scratch->pairs, scratch->sums);
        for (k = 0; k < GRIT_TOKENS; k++)
            for (r = 0; r < GRIT_VALUES; r++)
                scratch->values[(t + k) * GRIT_VALUES_STRIDE + r] = (grit_byte)grit_between(
                    scratch->sums[k * GRIT_VALUES_ROWS + r] >> GRIT_VALUE_SHIFT, GRIT_VALUE_LOW, 127);
        grit_product(&grit_attention, scratch->x, GRIT_STRIDE, scratch->pairs, scratch->sums);
        for (k = 0; k < GRIT_TOKENS; k++)
            for (r = 0; r < GRIT_ATTENTIONS; r++)
                scratch->attentions[(t + k) * GRIT_ATTENTIONS_STRIDE + r] = (grit_byte)grit_between(
                    scratch->sums[k * GRIT_ATTENTIONS_ROWS + r] >> GRIT_ATTENTION_SHIFT, GRIT_ATTENTION_LOW, 127);
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
    return (int16_t)((int32_t)((sum / total << 7) + (sum % total << 7) / total) - 16384);
}
