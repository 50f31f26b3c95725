/* ---- projected attention ------------------------------------------------------------------------------------------ */

typedef struct {
    grit_layer value, attention;
    uint32_t channels, width; /* width: tokens that it reads */
} grit_kernel;

static const grit_kernel grit_kernels[GRIT_KERNELS]; /* below */

/* e^x for x <= 0: 2^n e^r, and for e^r a polynomial fitted to a relative error of 3.3e-9. */
static inline float grit_exp(float x)
{
    union {
        uint32_t bits;
        float value;
    } power;
    float n, r, e;
    if (x < -87.0f)
        return 0.0f;
    n = (float)(int32_t)(x * 1.44269504f - 0.5f); /* x <= 0: to nearest */
    r = grit_fma_one(n, -0.693145752f, x);
    r = grit_fma_one(n, -1.42860677e-6f, r);
    e = 0.0013813130790367723f;
    e = grit_fma_one(e, r, 0.008369413204491138f);
    e = grit_fma_one(e, r, 0.04166845604777336f);
    e = grit_fma_one(e, r, 0.16666515171527863f);
    e = grit_fma_one(e, r, 0.4999999403953552f);
    e = grit_fma_one(e, r, 1.0f);
    e = grit_fma_one(e, r, 1.0f);
    power.bits = (uint32_t)((int32_t)n + 127) << 23;
    return e * power.value;
}

/* Up to 32 rows of a layer. */
static inline grit_layer grit_rows(const grit_layer *layer, uint32_t row)
{
    const uint32_t rows = layer->rows - row < 32 ? layer->rows - row : 32;
    const grit_layer part = {layer->weight + row * layer->inputs, layer->bias + row, rows, layer->inputs};
    return part;
}

static void grit_map(const grit_layer *layer, const float *const *x, float *sums, float *map, uint32_t features, int relu)
{
    uint32_t k, r;
    grit_product(layer, x, sums);
    for (k = 0; k < GRIT_TOKENS; k++)
        for (r = 0; r < features; r++)
            map[k * features + r] = relu && sums[k * layer->rows + r] < 0.0f ? 0.0f : sums[k * layer->rows + r];
}

/* Outputs of up to 32 channels of a layer for the windows of all tokens; ``features`` are one token's. */
static void grit_outputs(const grit_layer *layer, const float *map, uint32_t features, uint32_t n, float *out)
{
    uint32_t t, k;
    for (t = 0; t < n; t += GRIT_TOKENS) {
        const float *x[GRIT_TOKENS];
        for (k = 0; k < GRIT_TOKENS; k++)
            x[k] = map + (t + k) * features;
        grit_product(layer, x, out + t * layer->rows);
    }
}

/* The softmax mean over n tokens of one channel of ``rows``. */
static float grit_pooled(const float *value, const float *logit, uint32_t rows, uint32_t n)
{
    float top = logit[0], total = 0.0f, sum = 0.0f;
    uint32_t t;
    for (t = 1; t < n; t++)
        if (logit[t * rows] > top)
            top = logit[t * rows];
    for (t = 0; t < n; t++) {
        const float share = grit_exp(logit[t * rows] - top);
        total += share;
        sum = grit_fma_one(share, value[t * rows], sum);
    }
    return sum / total;
}
