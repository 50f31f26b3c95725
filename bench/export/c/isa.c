/* ---- which hand-written kernels this compiler may use; -DGRIT_PORTABLE keeps to plain C ------------------ */

#if defined(GRIT_PORTABLE)
#elif defined(__aarch64__) && defined(__ARM_NEON) && defined(__ARM_FEATURE_DOTPROD)
#define GRIT_NEON 1
#define GRIT_SDOT 1 /* Cortex-A55, A75 and later */
#elif defined(__aarch64__) && defined(__ARM_NEON)
#define GRIT_NEON 1 /* Cortex-A53, A57, A72 */
#elif defined(__ARM_FEATURE_SIMD32)
#define GRIT_SMLAD 1 /* Cortex-M4, M7, M33 with DSP */
#elif defined(__AVX2__)
#define GRIT_AVX2 1
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define GRIT_VNNI 1
#define GRIT_DPBUSD _mm256_dpbusd_epi32
#elif defined(__AVXVNNI__)
#define GRIT_VNNI 1
#define GRIT_DPBUSD _mm256_dpbusd_avx_epi32
#endif
#endif

#if defined(GRIT_NEON) || defined(GRIT_AVX2)
#define GRIT_TOKENS 4 /* that an input layer reads at once */
#else
#define GRIT_TOKENS 1
#endif

#if defined(GRIT_AVX2)
typedef int32_t grit_cell; /* the cell of an LSTM, 16 bits of it */
#else
typedef int16_t grit_cell;
#endif
#if defined(GRIT_AVX2) && !defined(GRIT_VNNI)
typedef int16_t grit_byte; /* what weights are multiplied with, 8 bits of it */
#else
typedef int8_t grit_byte;
#endif

#if defined(GRIT_SMLAD)
#define GRIT_PAIRS(groups) (2 * (groups)) /* inputs widened to 16 bits */
#else
#define GRIT_PAIRS(groups) 1
#endif

#if defined(__GNUC__)
#define GRIT_ALIGNED __attribute__((aligned(16)))
#define GRIT_INLINE static inline __attribute__((always_inline))
#define GRIT_UNROLLED _Pragma("GCC unroll 16") /* arrays of vectors must become registers */
#else
#define GRIT_ALIGNED
#define GRIT_INLINE static inline
#define GRIT_UNROLLED
#endif
