/* ---- floating point in vectors of this core -----------------------------------------------------------------
 * All is written in these few operations, and a * b + c is one rounding wherever the core can do it: so cores that can
 * give the same bits, and those that cannot differ from them by roundings only.
 */

#if defined(GRIT_NEON)
#define GRIT_LANES 4
typedef float32x4_t grit_vec;
#define grit_load(p) vld1q_f32(p)
#define grit_store(p, v) vst1q_f32(p, v)
#define grit_all(x) vdupq_n_f32(x)
#define grit_fma(a, b, c) vfmaq_f32(c, a, b)
#define grit_add(a, b) vaddq_f32(a, b)
#define grit_sub(a, b) vsubq_f32(a, b)
#define grit_mul(a, b) vmulq_f32(a, b)
#define grit_div(a, b) vdivq_f32(a, b)
#define grit_min(a, b) vminq_f32(a, b)
#define grit_max(a, b) vmaxq_f32(a, b)
#elif defined(__AVX2__) && defined(__FMA__) && !defined(GRIT_PORTABLE)
#define GRIT_LANES 8
typedef __m256 grit_vec;
#define grit_load(p) _mm256_loadu_ps(p)
#define grit_store(p, v) _mm256_storeu_ps(p, v)
#define grit_all(x) _mm256_set1_ps(x)
#define grit_fma(a, b, c) _mm256_fmadd_ps(a, b, c)
#define grit_add(a, b) _mm256_add_ps(a, b)
#define grit_sub(a, b) _mm256_sub_ps(a, b)
#define grit_mul(a, b) _mm256_mul_ps(a, b)
#define grit_div(a, b) _mm256_div_ps(a, b)
#define grit_min(a, b) _mm256_min_ps(a, b)
#define grit_max(a, b) _mm256_max_ps(a, b)
#else
#define GRIT_LANES 1
typedef float grit_vec;
#define grit_load(p) (*(p))
#define grit_store(p, v) (*(p) = (v))
#define grit_all(x) (x)
#define grit_fma(a, b, c) grit_fma_one(a, b, c)
#define grit_add(a, b) ((a) + (b))
#define grit_sub(a, b) ((a) - (b))
#define grit_mul(a, b) ((a) * (b))
#define grit_div(a, b) ((a) / (b))
#define grit_min(a, b) ((a) < (b) ? (a) : (b))
#define grit_max(a, b) ((a) > (b) ? (a) : (b))
#endif
#define GRIT_VECS (8 / GRIT_LANES) /* of 8 numbers */

/* The same of single numbers. In assembly: for __builtin_fmaf a compiler may call the library. */
static inline float grit_fma_one(float a, float b, float c)
{
#if defined(GRIT_PORTABLE) || !defined(__GNUC__)
    return a * b + c;
#elif defined(__aarch64__)
    __asm__("fmadd %s0, %s1, %s2, %s0" : "+w"(c) : "w"(a), "w"(b));
    return c;
#elif defined(__ARM_FEATURE_FMA) && defined(__ARM_FP) && __ARM_FP & 4
    __asm__("vfma.f32 %0, %1, %2" : "+t"(c) : "t"(a), "t"(b));
    return c;
#elif defined(__AVX2__) && defined(__FMA__)
    return _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(a), _mm_set_ss(b), _mm_set_ss(c)));
#else
    return a * b + c;
#endif
}

/* A rational function of degree 9 over 6 on -8..8, fitted to the least relative error: 2.2e-7. */
static inline grit_vec grit_tanh(grit_vec x)
{
    grit_vec t, over, under;
    x = grit_max(grit_min(x, grit_all(8.0f)), grit_all(-8.0f));
    t = grit_mul(x, x);
    over = grit_fma(grit_all(-6.1423626185330704e-09f), t, grit_all(7.162539532146184e-06f));
    over = grit_fma(over, t, grit_all(0.0026964149437844753f));
    over = grit_fma(over, t, grit_all(0.127123162150383f));
    over = grit_fma(over, t, grit_all(0.9999997615814209f));
    under = grit_fma(grit_all(0.00019674586656037718f), t, grit_all(0.02285032346844673f));
    under = grit_fma(under, t, grit_all(0.4604547619819641f));
    under = grit_fma(under, t, grit_all(1.0f));
    return grit_div(grit_mul(x, over), under);
}

static inline grit_vec grit_sigmoid(grit_vec x)
{
    const grit_vec half = grit_all(0.5f);
    return grit_fma(half, grit_tanh(grit_mul(half, x)), half);
}
