/* ---- projected attention: token maps, kernels over them, a mean over time weighted by 2^attention ----------- */

typedef struct {
    grit_layer value, attention;
    uint32_t channels, width; /* width: tokens that it reads */
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

/* x: features of GRIT_TOKENS tokens -> their two maps. */
static void grit_map(const grit_byte *x, uint32_t *pairs, int32_t *sums, grit_byte *values, grit_byte *attentions)
{
    uint32_t k, r;
    grit_product(&grit_value, x, GRIT_STRIDE, pairs, sums);
    for (k = 0; k < GRIT_TOKENS; k++)
        for (r = 0; r < GRIT_VALUES; r++)
            values[k * GRIT_VALUES_STRIDE + r] =
                (grit_byte)grit_between(sums[k * GRIT_VALUES_ROWS + r] >> GRIT_VALUE_SHIFT, GRIT_VALUE_LOW, 127);
    grit_product(&grit_attention, x, GRIT_STRIDE, pairs, sums);
    for (k = 0; k < GRIT_TOKENS; k++)
        for (r = 0; r < GRIT_ATTENTIONS; r++)
            attentions[k * GRIT_ATTENTIONS_STRIDE + r] =
                (grit_byte)grit_between(sums[k * GRIT_ATTENTIONS_ROWS + r] >> GRIT_ATTENTION_SHIFT, GRIT_ATTENTION_LOW, 127);
}

/* The weighted mean in Q7 of values less 128: sum of weight times value, sum of weights. */
static inline int16_t grit_weighted(uint32_t sum, uint32_t total)
{
    const uint32_t whole = grit_quotient(sum, total), rest = sum - whole * total;
    return (int16_t)((int32_t)((whole << 7) + grit_quotient(rest << 7, total)) - 16384);
}
