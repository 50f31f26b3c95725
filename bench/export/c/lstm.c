/* ---- one token through the LSTM -----------------------------------------------------------------------
 * Rows stand in blocks of 8 units: 8 input gates, 8 forget gates, 8 cells, 8 output gates. h and h_next differ.
 */

#if defined(GRIT_NEON)

static void grit_step(const int32_t *drive, const grit_byte *h, uint32_t *pairs, grit_byte *h_next, grit_cell *c, int16_t *state)
{
    const grit_sigmoid_table table = grit_sigmoid_load();
    const int16x8_t half = vdupq_n_s16(16384);
    uint32_t unit;
    int k;
    (void)pairs;
    for (unit = 0; unit < GRIT_PADDED; unit += 8, drive += 32) {
        int32x4_t p[8];
        int16x8_t in, forget, cell, out, next, spare;
        grit_dot(4, grit_state_weight + 16 * GRIT_STATE_GROUPS * unit, 128, h, GRIT_STATE_GROUPS, p);
        for (k = 0; k < 4; k++) {
            const int16x8_t m = vld1q_s16(grit_state_multiplier + 4 * unit + 8 * k);
            p[2 * k] = vmlaq_s32(vld1q_s32(drive + 8 * k), p[2 * k], vmovl_s16(vget_low_s16(m)));
            p[2 * k + 1] = vmlaq_s32(vld1q_s32(drive + 8 * k + 4), p[2 * k + 1], vmovl_high_s16(m));
        }
        in = grit_index(p[0], p[1], GRIT_SHIFT), forget = grit_index(p[2], p[3], GRIT_SHIFT);
        cell = grit_index(p[4], p[5], GRIT_SHIFT), out = grit_index(p[6], p[7], GRIT_SHIFT);
        grit_sigmoid(&table, &in, &forget);
        grit_sigmoid(&table, &cell, &out);
        in = vaddq_s16(in, half), forget = vaddq_s16(forget, half), out = vaddq_s16(out, half);
        cell = vshrq_n_s16(cell, 3);
        next = vld1q_s16(c + unit);
        p[0] = vmlal_s16(vmull_s16(vget_low_s16(forget), vget_low_s16(next)), vget_low_s16(in), vget_low_s16(cell));
        p[1] = vmlal_high_s16(vmull_high_s16(forget, next), in, cell);
        next = vqrshrn_high_n_s32(vqrshrn_n_s32(p[0], 15), p[1], 15);
        vst1q_s16(c + unit, next);
        next = spare = vqshlq_n_s16(next, 2);
        grit_sigmoid(&table, &next, &spare);
        next = vqdmulhq_s16(out, vshlq_n_s16(next, 1));
        vst1q_s16(state + unit, next);
        vst1_s8(h_next + unit, vqrshrn_n_s16(next, 8));
    }
}

#elif defined(GRIT_AVX2)

/* ``blocks`` (2 or 4) blocks of 8 units: p is what precedes their shift, in four panels each. Blocks may be one and the
 * same, and c_next may be c.
 */
GRIT_INLINE void grit_cells(int blocks, __m256i (*p)[4], const grit_cell *const *c, grit_cell *const *c_next,
                            grit_byte *const *h, int16_t *const *state)
{
    const __m256i half = _mm256_set1_epi16(16384), zero = _mm256_setzero_si256();
    const __m256i forget_in = _mm256_broadcastsi128_si256(_mm_setr_epi8(8, 9, 0, 1, 10, 11, 2, 3, 12, 13, 4, 5, 14, 15, 6, 7));
    __m256i next[4], out[4], t[2];
    int k;
    GRIT_UNROLLED
    for (k = 0; k < blocks; k++) {
        __m256i a = grit_index(p[k][0], p[k][1], GRIT_SHIFT), b = grit_index(p[k][2], p[k][3], GRIT_SHIFT), gates, cells;
        grit_sigmoid(&a, &b); /* of each half, a is 4 input and 4 forget gates, b 4 cells and 4 output gates */
        gates = _mm256_shuffle_epi8(_mm256_add_epi16(a, half), forget_in);
        cells = _mm256_unpacklo_epi16(zero, _mm256_srai_epi16(b, 3));
        cells = _mm256_blend_epi16(_mm256_loadu_si256((const __m256i *)c[k]), cells, 0xAA);
        next[k] = _mm256_srai_epi32(_mm256_add_epi32(_mm256_madd_epi16(gates, cells), _mm256_set1_epi32(16384)), 15);
        next[k] = _mm256_max_epi32(_mm256_min_epi32(next[k], _mm256_set1_epi32(32767)), _mm256_set1_epi32(-32768));
        out[k] = _mm256_add_epi16(b, half);
    }
    GRIT_UNROLLED
    for (k = 0; k < blocks; k++)
        _mm256_storeu_si256((__m256i *)c_next[k], next[k]);
    t[0] = t[1] = _mm256_packs_epi32(_mm256_slli_epi32(next[0], 2), _mm256_slli_epi32(next[1], 2));
    if (blocks == 4)
        t[1] = _mm256_packs_epi32(_mm256_slli_epi32(next[2], 2), _mm256_slli_epi32(next[3], 2));
    grit_sigmoid(&t[0], &t[1]);
    GRIT_UNROLLED
    for (k = 0; k < blocks; k += 2) {
        const __m256i o = _mm256_unpackhi_epi64(out[k], out[k + 1]), tau = _mm256_slli_epi16(t[k / 2], 1);
        const __m256i high = _mm256_slli_epi16(_mm256_mulhi_epi16(o, tau), 1), low = _mm256_mullo_epi16(o, tau);
        const __m256i both = _mm256_permute4x64_epi64(_mm256_or_si256(high, _mm256_srli_epi16(low, 15)), 0xD8);
        grit_store16(both, state[k], state[k + 1]);
        grit_store_inputs(_mm256_srai_epi16(_mm256_adds_epi16(both, _mm256_set1_epi16(128)), 8), h[k], h[k + 1]);
    }
}

/* sums: what the panel at ``row`` makes of h -> what precedes its shift. */
static inline __m256i grit_sum(__m256i sums, uint32_t row, const int32_t *drive)
{
    const __m256i m = _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(grit_state_multiplier + row)));
    return _mm256_add_epi32(_mm256_mullo_epi32(sums, m), _mm256_loadu_si256((const __m256i *)(drive + row)));
}

#define GRIT_BLOCKS_AT_ONCE (GRIT_PADDED % 32 ? 2 : 4)

static void grit_step(const int32_t *drive, const grit_byte *h, uint32_t *pairs, grit_byte *h_next, grit_cell *c, int16_t *state)
{
    uint32_t unit;
    int k, gate;
    (void)pairs;
    for (unit = 0; unit < GRIT_PADDED; unit += 8 * GRIT_BLOCKS_AT_ONCE) {
        __m256i p[4][4];
        grit_cell *c_[4];
        grit_byte *h_[4];
        int16_t *state_[4];
        GRIT_UNROLLED
        for (k = 0; k < GRIT_BLOCKS_AT_ONCE; k++) {
            const uint32_t at = unit + 8 * k < GRIT_PADDED ? unit + 8 * k : unit;
            grit_dot(4, 1, grit_state_weight + 16 * GRIT_STATE_GROUPS * at, 128, &h, GRIT_STATE_GROUPS, p[k]);
            GRIT_UNROLLED
            for (gate = 0; gate < 4; gate++)
                p[k][gate] = grit_sum(p[k][gate], 4 * at + 8 * gate, drive);
            c_[k] = c + at, h_[k] = h_next + at, state_[k] = state + at;
        }
        grit_cells(GRIT_BLOCKS_AT_ONCE, p, (const grit_cell *const *)c_, c_, h_, state_);
    }
}

#else

static inline void grit_unit(grit_sigmoid_table table, const int32_t *p, uint32_t unit, grit_byte *h, grit_cell *c, int16_t *state)
{
    const int32_t in = 16384 + grit_sigmoid(table, p[0] >> GRIT_SHIFT), forget = 16384 + grit_sigmoid(table, p[1] >> GRIT_SHIFT);
    const int32_t cell = grit_sigmoid(table, p[2] >> GRIT_SHIFT) >> 3, out = 16384 + grit_sigmoid(table, p[3] >> GRIT_SHIFT);
    const int32_t next = grit_limit16((forget * c[unit] + in * cell + 16384) >> 15);
    const int32_t both = out * grit_sigmoid(table, next >> 2) >> 14;
    c[unit] = (grit_cell)next;
    state[unit] = (int16_t)both;
    h[unit] = (grit_byte)grit_limit8((both + 128) >> 8);
}

static void grit_step(const int32_t *drive, const grit_byte *h, uint32_t *pairs, grit_byte *h_next, grit_cell *c, int16_t *state)
{
    const grit_sigmoid_table table = grit_sigmoid_load();
    uint32_t unit, k;
#if defined(GRIT_SMLAD)
    const int32_t start = grit_spread(h, GRIT_STATE_GROUPS, pairs);
    for (unit = 0; unit < GRIT_UNITS; unit += 2) {
        const uint32_t row = (unit & ~7u) * 4 + (unit & 7);
        const int8_t *w = grit_state_weight + (unit & ~7u) * GRIT_STATE_GROUPS * 16 + (unit & 7) * 4;
        const int16_t *m = grit_state_multiplier + row;
        int32_t sums[8]; /* in, in, forget, forget, cell, cell, out, out */
        grit_four(w, 32, 128, pairs, GRIT_STATE_GROUPS, start, sums);
        grit_four(w + 64, 32, 128, pairs, GRIT_STATE_GROUPS, start, sums + 4);
        for (k = 0; k < 2; k++) {
            const int32_t *d = drive + row + k;
            const int32_t p[4] = {d[0] + m[k] * sums[k], d[8] + m[8 + k] * sums[2 + k], d[16] + m[16 + k] * sums[4 + k],
                                  d[24] + m[24 + k] * sums[6 + k]};
            grit_unit(table, p, unit + k, h_next, c, state);
        }
    }
#else
    (void)pairs;
    for (unit = 0; unit < GRIT_UNITS; unit++) {
        const uint32_t row = (unit & ~7u) * 4 + (unit & 7);
        int32_t p[4];
        for (k = 0; k < 4; k++) {
            const int8_t *w = grit_state_weight + (unit & ~7u) * GRIT_STATE_GROUPS * 16 + (unit & 7) * 4 + 32 * k;
            const grit_byte *x = h;
            int32_t sum = 0;
            for (; x < h + 4 * GRIT_STATE_GROUPS; x += 4, w += 128)
                sum += w[0] * x[0] + w[1] * x[1] + w[2] * x[2] + w[3] * x[3];
            p[k] = drive[row + 8 * k] + grit_state_multiplier[row + 8 * k] * sum;
        }
        grit_unit(table, p, unit, h_next, c, state);
    }
#endif
}

#endif
