/* ---- int8 layers: multiplier * (weight . x) + bias ----------------------------------------------------
 * Weights lie in panels of 8 rows, up to 4 panels side by side in a chunk. Within a chunk they are ordered by
 * inputs, four at a time: [chunk][inputs / 4][panel][8 rows][4 inputs]. Rows and inputs are padded with zeros.
 * Sums are of integers and stay below 2^31, so each core may add in its own order: the result is the same.
 */

typedef struct {
    const int8_t *weight;
    const int16_t *multiplier; /* [rows] */
    const int32_t *bias;       /* [rows] */
    uint32_t rows, groups;     /* a multiple of 8; inputs / 4 */
} grit_layer;

/* Where the panel that begins at ``row`` begins, and how far its groups lie apart in bytes. */
static const int8_t *grit_panel(const grit_layer *layer, uint32_t row, uint32_t *step)
{
    uint32_t chunk = row & ~31u, rows = layer->rows - chunk < 32 ? layer->rows - chunk : 32;
    *step = 4 * rows;
    return layer->weight + 4 * (chunk * layer->groups + row - chunk);
}

#if defined(GRIT_NEON)

/* Four inputs, four times. The compiler must not know that both halves are alike: it would not use SMULL2. */
static inline int8x16_t grit_repeat(const int8_t *x)
{
    int8x16_t four = vreinterpretq_s8_s32(vld1q_dup_s32((const int32_t *)(const void *)x));
    __asm__("" : "+w"(four));
    return four;
}

#if defined(GRIT_SDOT)

/* sums[2p], sums[2p + 1]: the 8 rows of panel p of ``panels`` (a constant) that lie side by side. */
GRIT_INLINE void grit_dot(int panels, const int8_t *w, uint32_t step, const int8_t *x, uint32_t groups, int32x4_t *sums)
{
    int v;
    GRIT_UNROLLED
    for (v = 0; v < 2 * panels; v++)
        sums[v] = vdupq_n_s32(0);
    for (; groups >= 4; groups -= 4, x += 16, w += 4 * step) {
        const int8x16_t four = vld1q_s8(x);
        GRIT_UNROLLED
        for (v = 0; v < 2 * panels; v++)
            sums[v] = vdotq_laneq_s32(sums[v], vld1q_s8(w + 16 * v), four, 0);
        GRIT_UNROLLED
        for (v = 0; v < 2 * panels; v++)
            sums[v] = vdotq_laneq_s32(sums[v], vld1q_s8(w + step + 16 * v), four, 1);
        GRIT_UNROLLED
        for (v = 0; v < 2 * panels; v++)
            sums[v] = vdotq_laneq_s32(sums[v], vld1q_s8(w + 2 * step + 16 * v), four, 2);
        GRIT_UNROLLED
        for (v = 0; v < 2 * panels; v++)
            sums[v] = vdotq_laneq_s32(sums[v], vld1q_s8(w + 3 * step + 16 * v), four, 3);
    }
    for (; groups; groups--, x += 4, w += step) {
        const int8x16_t one = grit_repeat(x);
        GRIT_UNROLLED
        for (v = 0; v < 2 * panels; v++)
            sums[v] = vdotq_s32(sums[v], vld1q_s8(w + 16 * v), one);
    }
}

#else

GRIT_INLINE void grit_dot(int panels, const int8_t *w, uint32_t step, const int8_t *x, uint32_t groups, int32x4_t *sums)
{
    int32x4_t part[16]; /* two sums a row, two rows a vector */
    int v;
    GRIT_UNROLLED
    for (v = 0; v < 4 * panels; v++)
        part[v] = vdupq_n_s32(0);
    for (; groups >= 2; groups -= 2, x += 8, w += 2 * step) { /* two products fit 16 bits: 2 * 127 * 128 < 2^15 */
        int8x16_t x0 = grit_repeat(x), x1 = grit_repeat(x + 4);
        GRIT_UNROLLED
        for (v = 0; v < 2 * panels; v++) {
            const int8x16_t w0 = vld1q_s8(w + 16 * v), w1 = vld1q_s8(w + step + 16 * v);
            const int16x8_t low = vmull_s8(vget_low_s8(w0), vget_low_s8(x0)), high = vmull_high_s8(w0, x0);
            part[2 * v] = vpadalq_s16(part[2 * v], vmlal_s8(low, vget_low_s8(w1), vget_low_s8(x1)));
            part[2 * v + 1] = vpadalq_s16(part[2 * v + 1], vmlal_high_s8(high, w1, x1));
            if (v & 1 && v > 1) /* the registers hold 16 sums and the products of 4 of these turns, no more */
                __asm__("" : "+w"(x0), "+w"(x1) : "w"(part[2 * v - 4]), "w"(part[2 * v - 3]));
        }
    }
    if (groups) {
        const int8x16_t x0 = grit_repeat(x);
        GRIT_UNROLLED
        for (v = 0; v < 2 * panels; v++) {
            const int8x16_t w0 = vld1q_s8(w + 16 * v);
            part[2 * v] = vpadalq_s16(part[2 * v], vmull_s8(vget_low_s8(w0), vget_low_s8(x0)));
            part[2 * v + 1] = vpadalq_s16(part[2 * v + 1], vmull_high_s8(w0, x0));
        }
    }
    GRIT_UNROLLED
    for (v = 0; v < 2 * panels; v++)
        sums[v] = vpaddq_s32(part[2 * v], part[2 * v + 1]);
}

#endif

GRIT_INLINE void grit_store(const grit_layer *layer, uint32_t row, const int32x4_t *sums, int32_t *out)
{
    const int16x8_t m = vld1q_s16(layer->multiplier + row);
    vst1q_s32(out, vmlaq_s32(vld1q_s32(layer->bias + row), sums[0], vmovl_s16(vget_low_s16(m))));
    vst1q_s32(out + 4, vmlaq_s32(vld1q_s32(layer->bias + row + 4), sums[1], vmovl_high_s16(m)));
}

#if defined(GRIT_SDOT)

/* out[token][row] = multiplier (weight . x[token]) + bias for GRIT_TOKENS tokens, ``stride`` bytes apart. */
static void grit_product(const grit_layer *layer, const grit_byte *x, uint32_t stride, uint32_t *pairs, int32_t *out)
{
    uint32_t row, step, groups;
    int t;
    (void)pairs;
    for (row = 0; row < layer->rows; row += 8) {
        const int8_t *w = grit_panel(layer, row, &step), *x_ = x;
        int32x4_t sums[GRIT_TOKENS][2];
        GRIT_UNROLLED
        for (t = 0; t < GRIT_TOKENS; t++)
            sums[t][0] = sums[t][1] = vdupq_n_s32(0);
        for (groups = layer->groups; groups >= 4; groups -= 4, x_ += 16) {
            int8x16_t four[GRIT_TOKENS];
            GRIT_UNROLLED
            for (t = 0; t < GRIT_TOKENS; t++)
                four[t] = vld1q_s8(x_ + t * stride);
#define GRIT_LANE(lane)                                                          \
    {                                                                            \
        const int8x16_t w0 = vld1q_s8(w), w1 = vld1q_s8(w + 16);                 \
        GRIT_UNROLLED                                                            \
        for (t = 0; t < GRIT_TOKENS; t++) {                                      \
            sums[t][0] = vdotq_laneq_s32(sums[t][0], w0, four[t], lane);         \
            sums[t][1] = vdotq_laneq_s32(sums[t][1], w1, four[t], lane);         \
        }                                                                        \
        w += step;                                                               \
    }
            GRIT_LANE(0) GRIT_LANE(1) GRIT_LANE(2) GRIT_LANE(3)
        }
        for (; groups; groups--, x_ += 4, w += step)
            GRIT_UNROLLED
            for (t = 0; t < GRIT_TOKENS; t++) {
                const int8x16_t one = grit_repeat(x_ + t * stride);
                sums[t][0] = vdotq_s32(sums[t][0], vld1q_s8(w), one);
                sums[t][1] = vdotq_s32(sums[t][1], vld1q_s8(w + 16), one);
            }
        GRIT_UNROLLED
        for (t = 0; t < GRIT_TOKENS; t++)
            grit_store(layer, row, sums[t], out + t * layer->rows + row);
    }
}

#else

static void grit_product(const grit_layer *layer, const grit_byte *x, uint32_t stride, uint32_t *pairs, int32_t *out)
{
    int32x4_t sums[8];
    uint32_t row, step, t;
    int k;
    (void)pairs;
    for (row = 0; row + 32 <= layer->rows; row += 32) {
        const int8_t *w = grit_panel(layer, row, &step);
        for (t = 0; t < GRIT_TOKENS; t++) {
            grit_dot(4, w, 128, x + t * stride, layer->groups, sums);
            GRIT_UNROLLED
            for (k = 0; k < 4; k++)
                grit_store(layer, row + 8 * k, sums + 2 * k, out + t * layer->rows + row + 8 * k);
        }
    }
    for (; row < layer->rows; row += 8) {
        const int8_t *w = grit_panel(layer, row, &step);
        for (t = 0; t < GRIT_TOKENS; t++) {
            grit_dot(1, w, step, x + t * stride, layer->groups, sums);
            grit_store(layer, row, sums, out + t * layer->rows + row);
        }
    }
}

#endif

#elif defined(GRIT_SMLAD)

/* Winograd's inner product (1968): w0 x0 + w1 x1 = (w0 + x1)(w1 + x0) - w0 w1 - x0 x1. One SMLAD does four products,
 * and the additions widen the bytes on the way. The w0 w1 are part of the biases in this file's SMLAD variant.
 */
typedef uint32_t __attribute__((may_alias)) grit_word;

/* pairs[2g], pairs[2g + 1]: of inputs 4g.. the odd and the even ones in 16 bits; returns -(x0 x1 + x2 x3 + ...). */
static int32_t grit_spread(const int8_t *x, uint32_t groups, uint32_t *pairs)
{
    int32_t sum = 0;
    for (; groups; groups--, x += 4, pairs += 2) {
        const uint32_t word = *(const grit_word *)x;
        pairs[0] = __sxtb16(__ror(word, 8));
        pairs[1] = __sxtb16(word);
        sum = __smlad(pairs[0], pairs[1], sum);
    }
    return -sum;
}

/* Four inputs times four rows, at w + ``at`` and the word behind, w + at + far and the word behind. In assembly: compilers
 * split the double loads and push sums out of the 14 registers.
 */
#define GRIT_QUAD(at)                                    \
    "ldrd %[odd], %[even], [%[x]], #8\n\t"               \
    "ldrd %[w0], %[w1], [%[w], #" at "]\n\t"             \
    "sxtab16 %[both], %[odd], %[w0]\n\t"                 \
    "sxtab16 %[w0], %[even], %[w0], ror #8\n\t"          \
    "smlad %[s0], %[both], %[w0], %[s0]\n\t"             \
    "sxtab16 %[both], %[odd], %[w1]\n\t"                 \
    "sxtab16 %[w1], %[even], %[w1], ror #8\n\t"          \
    "smlad %[s1], %[both], %[w1], %[s1]\n\t"             \
    "ldrd %[w0], %[w1], [%[w], #" at "+%c[far]]\n\t"     \
    "sxtab16 %[both], %[odd], %[w0]\n\t"                 \
    "sxtab16 %[w0], %[even], %[w0], ror #8\n\t"          \
    "smlad %[s2], %[both], %[w0], %[s2]\n\t"             \
    "sxtab16 %[both], %[odd], %[w1]\n\t"                 \
    "sxtab16 %[w1], %[even], %[w1], ror #8\n\t"          \
    "smlad %[s3], %[both], %[w1], %[s3]\n\t"
#define GRIT_QUAD_OPERANDS                                                                                          \
    [s0] "+&r"(s0), [s1] "+&r"(s1), [s2] "+&r"(s2), [s3] "+&r"(s3), [x] "+&r"(pairs), [w] "+&r"(w), [odd] "=&r"(odd), \
        [even] "=&r"(even), [w0] "=&r"(w0), [w1] "=&r"(w1), [both] "=&r"(both)

/* Four rows, beginning at w, w + 4, w + far and w + far + 4 (far is a constant); ``start``: what grit_spread returned. */
GRIT_INLINE void grit_four(const int8_t *w, const int far, uint32_t step, const uint32_t *pairs, uint32_t groups,
                           int32_t start, int32_t *sums)
{
    int32_t s0 = start, s1 = start, s2 = start, s3 = start;
    uint32_t odd, even, w0, w1, both;
    const uint32_t *fours = pairs + 2 * (groups & ~3u), *end = pairs + 2 * groups;
    if (step == 128 && groups >= 4)
        __asm__ volatile("1:\n\t" GRIT_QUAD("0") GRIT_QUAD("128") GRIT_QUAD("256") GRIT_QUAD("384")
                         "add %[w], %[w], #512\n\t"
                         "cmp %[x], %[fours]\n\t"
                         "bne 1b"
                         : GRIT_QUAD_OPERANDS
                         : [far] "i"(far), [fours] "r"(fours)
                         : "memory", "cc");
    for (; pairs != end; w += step)
        __asm__ volatile(GRIT_QUAD("0") : GRIT_QUAD_OPERANDS : [far] "i"(far) : "memory");
    sums[0] = s0, sums[1] = s1, sums[2] = s2, sums[3] = s3;
}

static void grit_product(const grit_layer *layer, const grit_byte *x, uint32_t stride, uint32_t *pairs, int32_t *out)
{
    const int32_t start = grit_spread(x, layer->groups, pairs), *bias = layer->bias;
    const int16_t *m = layer->multiplier;
    const int8_t *w = layer->weight;
    uint32_t row, rest, rows;
    (void)stride;
    for (row = 0; row < layer->rows; row += rows, w += 4 * rows * (layer->groups - 1)) {
        rows = layer->rows - row < 32 ? layer->rows - row : 32;
        for (rest = rows; rest; rest -= 4, w += 16, m += 4, bias += 4, out += 4) {
            int32_t sums[4];
            if (rows == 32)
                grit_four(w, 8, 128, pairs, layer->groups, start, sums);
            else
                grit_four(w, 8, 4 * rows, pairs, layer->groups, start, sums);
            out[0] = m[0] * sums[0] + bias[0];
            out[1] = m[1] * sums[1] + bias[1];
            out[2] = m[2] * sums[2] + bias[2];
            out[3] = m[3] * sums[3] + bias[3];
        }
    }
}

#elif defined(GRIT_AVX2)

typedef int32_t __attribute__((may_alias)) grit_word;
typedef int64_t __attribute__((may_alias)) grit_long;

/* Eight and eight numbers of 16 bits. */
static inline __m256i grit_load16(const int16_t *a, const int16_t *b)
{
    const __m256i low = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)a));
    return _mm256_inserti128_si256(low, _mm_loadu_si128((const __m128i *)b), 1);
}

static inline void grit_store16(__m256i both, int16_t *a, int16_t *b)
{
    _mm_storeu_si128((__m128i *)a, _mm256_castsi256_si128(both));
    _mm_storeu_si128((__m128i *)b, _mm256_extracti128_si256(both, 1));
}

/* The same, limited to 8 bits. */
static inline void grit_store_inputs(__m256i both, grit_byte *a, grit_byte *b)
{
#if defined(GRIT_VNNI)
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
    _mm_storel_epi64((__m128i *)a, bytes);
    _mm_storel_epi64((__m128i *)b, _mm_unpackhi_epi64(bytes, bytes));
#else
    both = _mm256_max_epi16(_mm256_min_epi16(both, _mm256_set1_epi16(127)), _mm256_set1_epi16(-128));
    grit_store16(both, a, b);
#endif
}

/* The 8 rows of ``panels`` panels side by side, times ``texts`` inputs (constants; their product is at most 4):
 * sums[panel * texts + text].
 */
GRIT_INLINE void grit_dot(int panels, int texts, const int8_t *w, uint32_t step, const grit_byte *const *x, uint32_t groups,
                          __m256i *sums)
{
    int p, t;
    uint32_t g;
    __asm__("" : "+r"(groups)); /* a loop unrolled as a whole is scheduled for more registers than there are */
#if defined(GRIT_VNNI) /* x + 128 is unsigned; 128 times the weights are taken off in the biases */
    const __m256i sign = _mm256_set1_epi8(-128);
    __m256i part[4];
    GRIT_UNROLLED
    for (p = 0; p < panels * texts; p++)
        part[p] = _mm256_setzero_si256();
    for (g = 0; g < groups; g++, w += step)
        GRIT_UNROLLED
        for (p = 0; p < panels; p++) {
            const __m256i weights = _mm256_loadu_si256((const __m256i *)(w + 32 * p));
            GRIT_UNROLLED
            for (t = 0; t < texts; t++) {
                const __m256i raised = _mm256_xor_si256(_mm256_set1_epi32(*(const grit_word *)(x[t] + 4 * g)), sign);
                part[p * texts + t] = GRIT_DPBUSD(part[p * texts + t], raised, weights);
            }
        }
    GRIT_UNROLLED
    for (p = 0; p < panels * texts; p++)
        sums[p] = part[p];
#else /* in 16 bits: two sums a row, four rows a vector */
    __m256i part[8];
    GRIT_UNROLLED
    for (p = 0; p < 2 * panels * texts; p++)
        part[p] = _mm256_setzero_si256();
    for (g = 0; g < groups; g++, w += step)
        GRIT_UNROLLED
        for (p = 0; p < 2 * panels; p++) {
            const __m256i weights = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(w + 16 * p)));
            GRIT_UNROLLED
            for (t = 0; t < texts; t++) {
                const __m256i four = _mm256_set1_epi64x(*(const grit_long *)(x[t] + 4 * g));
                part[p * texts + t] = _mm256_add_epi32(part[p * texts + t], _mm256_madd_epi16(weights, four));
            }
        }
    GRIT_UNROLLED
    for (p = 0; p < panels; p++)
        GRIT_UNROLLED
        for (t = 0; t < texts; t++) {
            const __m256i both = _mm256_hadd_epi32(part[2 * p * texts + t], part[(2 * p + 1) * texts + t]);
            sums[p * texts + t] = _mm256_permute4x64_epi64(both, 0xD8);
        }
#endif
}

static void grit_product(const grit_layer *layer, const grit_byte *x, uint32_t stride, uint32_t *pairs, int32_t *out)
{
    uint32_t row, step, t;
    const grit_byte *each[GRIT_TOKENS];
    (void)pairs;
    for (t = 0; t < GRIT_TOKENS; t++)
        each[t] = x + t * stride;
    for (row = 0; row < layer->rows; row += 8) {
        const int8_t *w = grit_panel(layer, row, &step);
        const __m256i m = _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(layer->multiplier + row)));
        const __m256i b = _mm256_loadu_si256((const __m256i *)(layer->bias + row));
        __m256i sums[GRIT_TOKENS];
        grit_dot(1, GRIT_TOKENS, w, step, each, layer->groups, sums);
        GRIT_UNROLLED
        for (t = 0; t < GRIT_TOKENS; t++)
            _mm256_storeu_si256((__m256i *)(out + t * layer->rows + row), _mm256_add_epi32(_mm256_mullo_epi32(sums[t], m), b));
    }
}

#else /* plain C: what all the others must equal */

static void grit_product(const grit_layer *layer, const grit_byte *x, uint32_t stride, uint32_t *pairs, int32_t *out)
{
    uint32_t row, r, t, g, step;
    (void)pairs;
    for (row = 0; row < layer->rows; row += 8)
        GRIT_UNROLLED
        for (t = 0; t < GRIT_TOKENS; t++) {
            const int8_t *w = grit_panel(layer, row, &step);
            const grit_byte *x_ = x + t * stride;
            int32_t sums[8] = {0};
            for (g = 0; g < layer->groups; g++, w += step, x_ += 4)
                for (r = 0; r < 8; r++)
                    sums[r] += w[4 * r] * x_[0] + w[4 * r + 1] * x_[1] + w[4 * r + 2] * x_[2] + w[4 * r + 3] * x_[3];
            for (r = 0; r < 8; r++)
                out[t * layer->rows + row + r] = layer->multiplier[row + r] * sums[r] + layer->bias[row + r];
        }
}

#endif
