#include <stddef.h>

#if defined(GRIT_NEON)
#include <arm_neon.h>
#elif defined(GRIT_SMLAD)
#include <arm_acle.h>
#elif defined(GRIT_AVX2)
#include <immintrin.h>
#endif
