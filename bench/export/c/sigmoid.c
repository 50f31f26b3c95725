/* ---- the sigmoid: 64 segments of 32 cells, in Q15 over pre-activations in Q8 ---------------------------
 * It is tanh as well: of the same index read in Q9, less a half.
 */

#if defined(GRIT_NEON) || defined(GRIT_AVX2)
/* Vectors hold an index in 16 bits, four of them fraction: saturating to 16 bits is saturating the index to -2048..2047.
 * A multiplication serves 256 cells: ``base`` - 16384 of each segment is moved to where its octet of segments begins.
 */
#endif

#if defined(GRIT_NEON)

typedef struct {
    uint8x16x4_t low, high, slope;
} grit_sigmoid_table;

static inline uint8x16x4_t grit_quarters(const uint8_t *t)
{
    const uint8x16x4_t q = {{vld1q_u8(t), vld1q_u8(t + 16), vld1q_u8(t + 32), vld1q_u8(t + 48)}};
    return q;
}

static inline grit_sigmoid_table grit_sigmoid_load(void)
{
    const grit_sigmoid_table table = {grit_quarters(grit_base_low), grit_quarters(grit_base_high), grit_quarters(grit_slope)};
    return table;
}

/* P >> shift as indices of the above kind. */
#if GRIT_SHIFT >= 5 && GRIT_SHIFT <= 19
#define grit_index(low, high, shift) vqshrn_high_n_s32(vqshrn_n_s32(low, (shift) - 4), high, (shift) - 4)
#else
static inline int16x8_t grit_index(int32x4_t low, int32x4_t high, int shift)
{
    const int32x4_t by = vdupq_n_s32(4 - shift);
    return vcombine_s16(vqmovn_s32(vqshlq_s32(low, by)), vqmovn_s32(vqshlq_s32(high, by)));
}
#endif

/* indices -> sigmoid - 1/2 in Q15, which is tanh in Q14. */
static inline void grit_sigmoid(const grit_sigmoid_table *table, int16x8_t *a, int16x8_t *b)
{
    const int16x8_t sign_a = vshrq_n_s16(*a, 15), sign_b = vshrq_n_s16(*b, 15);
    const uint16x8_t j_a = vreinterpretq_u16_s16(veorq_s16(*a, sign_a)), j_b = vreinterpretq_u16_s16(veorq_s16(*b, sign_b));
    const uint8x16_t tops = vuzp2q_u8(vreinterpretq_u8_u16(j_a), vreinterpretq_u8_u16(j_b));
    const uint8x16_t k = vshrq_n_u8(tops, 1), cell = vshrn_high_n_u16(vshrn_n_u16(j_a, 4), j_b, 4);
    const uint8x16_t low = vqtbl4q_u8(table->low, k), high = vqtbl4q_u8(table->high, k), slope = vqtbl4q_u8(table->slope, k);
    uint16x8_t s_a = vreinterpretq_u16_u8(vzip1q_u8(low, high)), s_b = vreinterpretq_u16_u8(vzip2q_u8(low, high));
    s_a = vsraq_n_u16(s_a, vmull_u8(vget_low_u8(slope), vget_low_u8(cell)), 3);
    s_b = vsraq_n_u16(s_b, vmull_high_u8(slope, cell), 3);
    *a = vsubq_s16(veorq_s16(vreinterpretq_s16_u16(s_a), sign_a), sign_a);
    *b = vsubq_s16(veorq_s16(vreinterpretq_s16_u16(s_b), sign_b), sign_b);
}

#elif defined(GRIT_AVX2)

/* P >> shift as indices of the above kind; each half of the result holds four of ``low``, then four of ``high``. */
static inline __m256i grit_index(__m256i low, __m256i high, int shift)
{
#if GRIT_SHIFT >= 4
    return _mm256_packs_epi32(_mm256_srai_epi32(low, shift - 4), _mm256_srai_epi32(high, shift - 4));
#else
    const __m256i most = _mm256_set1_epi32(1 << 16), least = _mm256_set1_epi32(-(1 << 16)); /* so that no bit is lost */
    low = _mm256_slli_epi32(_mm256_max_epi32(_mm256_min_epi32(low, most), least), 4);
    high = _mm256_slli_epi32(_mm256_max_epi32(_mm256_min_epi32(high, most), least), 4);
    return _mm256_packs_epi32(_mm256_srai_epi32(low, shift), _mm256_srai_epi32(high, shift));
#endif
}

/* 32 entries of a table of 64; quarter[q] is the index where it lies in quarter q, and at least 0x80 elsewhere. */
static inline __m256i grit_lookup(const uint8_t *table, const __m256i *quarter)
{
    __m256i found = _mm256_setzero_si256();
    int q;
    for (q = 0; q < 4; q++) {
        const __m256i part = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(table + 16 * q)));
        found = _mm256_or_si256(found, _mm256_shuffle_epi8(part, quarter[q]));
    }
    return found;
}

/* indices -> sigmoid - 1/2 in Q15, which is tanh in Q14. */
static inline void grit_sigmoid(__m256i *a, __m256i *b)
{
    const __m256i sign_a = _mm256_srai_epi16(*a, 15), sign_b = _mm256_srai_epi16(*b, 15), zero = _mm256_setzero_si256();
    const __m256i j_a = _mm256_xor_si256(*a, sign_a), j_b = _mm256_xor_si256(*b, sign_b), byte = _mm256_set1_epi16(255);
    const __m256i k = _mm256_packus_epi16(_mm256_srli_epi16(j_a, 9), _mm256_srli_epi16(j_b, 9));
    const __m256i cell_a = _mm256_and_si256(_mm256_srli_epi16(j_a, 4), byte);
    const __m256i cell_b = _mm256_and_si256(_mm256_srli_epi16(j_b, 4), byte);
    __m256i quarter[4], low, high, slope, s_a, s_b;
    int q;
    for (q = 0; q < 4; q++)
        quarter[q] = _mm256_adds_epu8(_mm256_sub_epi8(k, _mm256_set1_epi8((char)(16 * q))), _mm256_set1_epi8(0x70));
    low = grit_lookup(grit_base_low, quarter);
    high = grit_lookup(grit_base_high, quarter);
    slope = grit_lookup(grit_slope, quarter);
    s_a = _mm256_srli_epi16(_mm256_mullo_epi16(_mm256_unpacklo_epi8(slope, zero), cell_a), 3);
    s_b = _mm256_srli_epi16(_mm256_mullo_epi16(_mm256_unpackhi_epi8(slope, zero), cell_b), 3);
    s_a = _mm256_add_epi16(s_a, _mm256_unpacklo_epi8(low, high));
    s_b = _mm256_add_epi16(s_b, _mm256_unpackhi_epi8(low, high));
    *a = _mm256_sub_epi16(_mm256_xor_si256(s_a, sign_a), sign_a);
    *b = _mm256_sub_epi16(_mm256_xor_si256(s_b, sign_b), sign_b);
}

#elif defined(GRIT_SMALL)

typedef int grit_sigmoid_table; /* not needed */

static inline int grit_sigmoid_load(void)
{
    return 0;
}

/* Sigmoid less a half in Q15, which is tanh in Q14. */
static inline int32_t grit_sigmoid(int table, int32_t i)
{
    const int32_t sign = i < 0 ? -1 : 0, j = (i ^ sign) < 2047 ? i ^ sign : 2047, k = j >> 5;
    const int32_t right = grit_base[k] - 16384 + (grit_slope[k] * (j & 31) >> 3);
    (void)table;
    return (right ^ sign) - sign;
}

#else

typedef const int16_t *grit_sigmoid_table; /* the middle of grit_cells */

static inline grit_sigmoid_table grit_sigmoid_load(void)
{
    grit_sigmoid_table middle = grit_cells + 2048;
#if defined(GRIT_SMLAD)
    __asm__("" : "+r"(middle)); /* keep it in a register */
#endif
    return middle;
}

/* Sigmoid less a half in Q15, which is tanh in Q14. */
static inline int32_t grit_sigmoid(grit_sigmoid_table middle, int32_t i)
{
#if defined(GRIT_SMLAD)
    return middle[__ssat(i, 12)];
#else
    return middle[grit_between(i, -2048, 2047)];
#endif
}

#endif
