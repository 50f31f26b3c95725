#include <stddef.h>

#if defined(GRIT_NEON)
#include <arm_neon.h>
#elif defined(GRIT_SMLAD)
#include <arm_acle.h>
#elif defined(GRIT_AVX2)
#include <immintrin.h>
#endif

#if defined(__clang__) /* not every program needs every small function of the kernels below */
#pragma clang diagnostic ignored "-Wunused-function"
#endif
