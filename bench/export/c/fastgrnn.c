/* ---- one token through the FastGRNN cell; u is the 8-bit copy of h that the matrix sees ------------------- */

#if defined(GRIT_NEON)

GRIT_INLINE void grit_units(const grit_sigmoid_table *table, int32x4_t p0, int32x4_t p1, uint32_t unit, int16_t *h, int8_t *u)
{
    const int16x8_t old = vld1q_s16(h + unit);
    const int32x4_t z0 = vaddq_s32(p0, vld1q_s32(grit_gate_offset + unit));
    const int32x4_t z1 = vaddq_s32(p1, vld1q_s32(grit_gate_offset + unit + 4));
    int16x8_t z = grit_index(z0, z1, GRIT_SHIFT + 1), t = grit_index(p0, p1, GRIT_SHIFT), r;
    grit_sigmoid(table, &z, &t);
#if GRIT_STATE_BITS == 14
    t = vshlq_n_s16(t, 1);
#else
    t = vshlq_s16(t, vdupq_n_s16(GRIT_STATE_BITS - 13));
#endif
    r = vqdmulhq_s16(vsubq_s16(vdupq_n_s16(16384), z), vdupq_n_s16(GRIT_ZETA));
    r = vaddq_s16(r, vdupq_n_s16(GRIT_NU));
    z = vaddq_s16(z, vdupq_n_s16(16384));
    p0 = vmlal_s16(vmull_s16(vget_low_s16(z), vget_low_s16(old)), vget_low_s16(r), vget_low_s16(t));
    p1 = vmlal_high_s16(vmull_high_s16(z, old), r, t);
    t = vqrshrn_high_n_s32(vqrshrn_n_s32(p0, 15), p1, 15);
    vst1q_s16(h + unit, t);
    vst1_s8(u + unit, vqmovn_s16(vqrdmulhq_s16(t, vdupq_n_s16(GRIT_COPY))));
}

GRIT_INLINE void grit_rows(int panels, const grit_sigmoid_table *table, const int32_t *drive, const int8_t *u, uint32_t unit,
                           int16_t *h, int8_t *u_next)
{
    int32x4_t p[8];
    int k;
    grit_dot(panels, grit_state_weight + 4 * GRIT_STATE_GROUPS * unit, 32 * panels, u, GRIT_STATE_GROUPS, p);
    for (k = 0; k < panels; k++, unit += 8) {
        const int16x8_t m = vld1q_s16(grit_state_multiplier + unit);
        const int32x4_t p0 = vmlaq_s32(vld1q_s32(drive + unit), p[2 * k], vmovl_s16(vget_low_s16(m)));
        const int32x4_t p1 = vmlaq_s32(vld1q_s32(drive + unit + 4), p[2 * k + 1], vmovl_high_s16(m));
        grit_units(table, p0, p1, unit, h, u_next);
    }
}

static void grit_step(const int32_t *drive, const grit_byte *u, uint32_t *pairs, grit_byte *u_next, int16_t *h)
{
    const grit_sigmoid_table table = grit_sigmoid_load();
    uint32_t unit;
    (void)pairs;
    for (unit = 0; unit + 32 <= GRIT_PADDED; unit += 32)
        grit_rows(4, &table, drive, u, unit, h, u_next);
#if GRIT_PADDED % 32
    grit_rows(GRIT_PADDED % 32 / 8, &table, drive, u, unit, h, u_next);
#endif
}

#elif defined(GRIT_AVX2)

/* Two blocks of 8 units from what precedes the shift of their update. Blocks may be one and the same, h_next may be h. */
GRIT_INLINE void grit_cells(const __m256i *p, const uint32_t *unit, const int16_t *const *h, int16_t *const *h_next,
                            grit_byte *const *u)
{
    const __m256i half = _mm256_set1_epi16(16384), zeta = _mm256_set1_epi16(GRIT_ZETA), round = _mm256_set1_epi32(16384);
    const __m256i offset0 = _mm256_loadu_si256((const __m256i *)(grit_gate_offset + unit[0]));
    const __m256i offset1 = _mm256_loadu_si256((const __m256i *)(grit_gate_offset + unit[1]));
    const __m256i z0 = _mm256_add_epi32(p[0], offset0), z1 = _mm256_add_epi32(p[1], offset1);
    __m256i z = grit_index(z0, z1, GRIT_SHIFT + 1), t = grit_index(p[0], p[1], GRIT_SHIFT), r, old, low, high;
    grit_sigmoid(&z, &t);
#if GRIT_STATE_BITS == 14
    t = _mm256_slli_epi16(t, 1);
#else
    t = _mm256_srai_epi16(t, 13 - GRIT_STATE_BITS);
#endif
    r = _mm256_sub_epi16(half, z);
    r = _mm256_or_si256(_mm256_slli_epi16(_mm256_mulhi_epi16(r, zeta), 1), _mm256_srli_epi16(_mm256_mullo_epi16(r, zeta), 15));
    r = _mm256_add_epi16(r, _mm256_set1_epi16(GRIT_NU));
    z = _mm256_add_epi16(z, half);
    old = _mm256_permute4x64_epi64(grit_load16(h[0], h[1]), 0xD8);
    low = _mm256_madd_epi16(_mm256_unpacklo_epi16(z, r), _mm256_unpacklo_epi16(old, t));
    high = _mm256_madd_epi16(_mm256_unpackhi_epi16(z, r), _mm256_unpackhi_epi16(old, t));
    low = _mm256_srai_epi32(_mm256_add_epi32(low, round), 15);
    high = _mm256_srai_epi32(_mm256_add_epi32(high, round), 15);
    t = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xD8);
    grit_store16(t, h_next[0], h_next[1]);
    grit_store_inputs(_mm256_mulhrs_epi16(t, _mm256_set1_epi16(GRIT_COPY)), u[0], u[1]);
}

/* sums: what the panel at ``unit`` makes of u -> what precedes its shift. */
static inline __m256i grit_sum(__m256i sums, uint32_t unit, const int32_t *drive)
{
    const __m256i m = _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(grit_state_multiplier + unit)));
    return _mm256_add_epi32(_mm256_mullo_epi32(sums, m), _mm256_loadu_si256((const __m256i *)(drive + unit)));
}

GRIT_INLINE void grit_rows(int panels, const int32_t *drive, const grit_byte *u, uint32_t unit, int16_t *h, grit_byte *u_next)
{
    __m256i p[4];
    int k;
    grit_dot(panels, 1, grit_state_weight + 4 * GRIT_STATE_GROUPS * unit, 32 * panels, &u, GRIT_STATE_GROUPS, p);
    GRIT_UNROLLED
    for (k = 0; k < panels; k++)
        p[k] = grit_sum(p[k], unit + 8 * k, drive);
    GRIT_UNROLLED
    for (k = 0; k < panels; k += 2) {
        const int other = k + 1 < panels ? k + 1 : k;
        const uint32_t units[2] = {unit + 8 * k, unit + 8 * other};
        const __m256i both[2] = {p[k], p[other]};
        int16_t *const h_[2] = {h + units[0], h + units[1]};
        grit_byte *const u_[2] = {u_next + units[0], u_next + units[1]};
        grit_cells(both, units, (const int16_t *const *)h_, h_, u_);
    }
}

static void grit_step(const int32_t *drive, const grit_byte *u, uint32_t *pairs, grit_byte *u_next, int16_t *h)
{
    uint32_t unit;
    (void)pairs;
    for (unit = 0; unit + 32 <= GRIT_PADDED; unit += 32)
        grit_rows(4, drive, u, unit, h, u_next);
#if GRIT_PADDED % 32
    grit_rows(GRIT_PADDED % 32 / 8, drive, u, unit, h, u_next);
#endif
}

#else

static const grit_layer grit_state = {grit_state_weight, grit_state_multiplier, NULL, GRIT_PADDED, GRIT_STATE_GROUPS};

static inline void grit_unit(grit_sigmoid_table table, int32_t p, uint32_t unit, int16_t *h, grit_byte *u)
{
    const int32_t z = grit_sigmoid(table, (p + grit_gate_offset[unit]) >> (GRIT_SHIFT + 1)), tanh = grit_sigmoid(table, p >> GRIT_SHIFT);
    const int32_t t = GRIT_STATE_BITS == 14 ? 2 * tanh : tanh >> ((13 - GRIT_STATE_BITS) & 15);
    const int32_t r = GRIT_NU + (GRIT_ZETA * (16384 - z) >> 15);
    const int32_t next = grit_limit16(((16384 + z) * h[unit] + r * t + 16384) >> 15);
    h[unit] = (int16_t)next;
    u[unit] = (grit_byte)grit_limit8((next * GRIT_COPY + 16384) >> 15);
}

static void grit_step(const int32_t *drive, const grit_byte *u, uint32_t *pairs, grit_byte *u_next, int16_t *h)
{
    const grit_sigmoid_table table = grit_sigmoid_load();
    uint32_t unit;
#if defined(GRIT_SMLAD)
    const int32_t start = grit_spread(u, GRIT_STATE_GROUPS, pairs);
    for (unit = 0; unit < GRIT_UNITS; unit += 4) {
        uint32_t step, k;
        const int8_t *w = grit_panel(&grit_state, unit, &step);
        int32_t p[4];
        grit_four(w, 8, step, pairs, GRIT_STATE_GROUPS, start, p);
        for (k = 0; k < 4; k++)
            grit_unit(table, drive[unit + k] + grit_state_multiplier[unit + k] * p[k], unit + k, h, u_next);
    }
#else
    (void)pairs;
    for (unit = 0; unit < GRIT_UNITS; unit++) {
        uint32_t step, g;
        const int8_t *w = grit_panel(&grit_state, unit, &step);
        int32_t sum = 0;
        for (g = 0; g < GRIT_STATE_GROUPS; g++, w += step)
            sum += w[0] * u[4 * g] + w[1] * u[4 * g + 1] + w[2] * u[4 * g + 2] + w[3] * u[4 * g + 3];
        grit_unit(table, drive[unit] + grit_state_multiplier[unit] * sum, unit, h, u_next);
    }
#endif
}

#endif
