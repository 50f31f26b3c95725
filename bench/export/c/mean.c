/* ---- the mean of a feature, in Q7; ``sum`` is of all x + 128 ---------------------------------------------------- */

static inline int16_t grit_mean(int32_t sum, uint32_t n)
{
    return (int16_t)((int32_t)grit_quotient(((uint32_t)sum << 7) + n / 2, n) - 16384);
}
