/* ---- limits ------------------------------------------------------------------------------------------------ */

#if defined(GRIT_SMLAD)
#define grit_limit16(value) __ssat(value, 16)
#define grit_limit8(value) __ssat(value, 8)
#else
#define grit_limit16(value) grit_between(value, -32768, 32767)
#define grit_limit8(value) grit_between(value, -128, 127)
#endif

static inline int32_t grit_between(int32_t value, int32_t low, int32_t high)
{
    return value < low ? low : value > high ? high : value;
}
