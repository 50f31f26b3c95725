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

#if defined(__ARM_ARCH_6M__)
/* Cortex-M0 neither divides nor multiplies to 64 bits: written out, since a library to call might not be there. */
static inline uint32_t grit_quotient(uint32_t over, uint32_t under)
{
    uint32_t quotient = 0, rest = 0;
    int bit;
    for (bit = 31; bit >= 0; bit--) {
        const uint32_t carry = rest >> 31;
        rest = rest << 1 | (over >> bit & 1);
        if (carry || rest >= under) {
            rest -= under;
            quotient |= UINT32_C(1) << bit;
        }
    }
    return quotient;
}

static inline uint64_t grit_times(uint64_t a, uint64_t b)
{
    const uint32_t low_a = (uint32_t)a, low_b = (uint32_t)b;
    const uint32_t a0 = low_a & 0xFFFF, a1 = low_a >> 16, b0 = low_b & 0xFFFF, b1 = low_b >> 16;
    const uint32_t low = a0 * b0, middle = a1 * b0 + (low >> 16), upper = a0 * b1 + (middle & 0xFFFF);
    const uint32_t high = a1 * b1 + (middle >> 16) + (upper >> 16) + (uint32_t)(a >> 32) * low_b + low_a * (uint32_t)(b >> 32);
    return (uint64_t)high << 32 | (upper << 16 | (low & 0xFFFF));
}

static inline uint64_t grit_byte_at(uint8_t byte, uint32_t place)
{
    const uint32_t shifted = (uint32_t)byte << 8 * (place & 3);
    return place < 4 ? shifted : (uint64_t)shifted << 32;
}
#else
#define grit_quotient(over, under) ((over) / (under))
#define grit_times(a, b) ((a) * (b))
#define grit_byte_at(byte, place) ((uint64_t)(byte) << 8 * (place))
#endif
