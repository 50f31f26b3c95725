/* ---- words -> 128-bit hashes -> GRIT_WIDTH digits in -1, 0, 1 ------------------------------------------------ */

static void grit_hashed(grit_token token, model_token *out)
{
    grit_hash hash;
    grit_hash_begin(&hash, token.size);
    grit_hash_token(&hash, token);
    grit_hash_end(&hash);
    out->low = hash.low;
    out->high = hash.high;
}

/* text -> hashes: their number, 1 to MODEL_MAX_TOKENS; a text without tokens reads as the empty word. */
uint32_t model_read(const char *text, size_t size, model_token *rows)
{
    const uint8_t *p = (const uint8_t *)text, *end = p + size;
    grit_token token;
    uint32_t n = 0;
    while (n < MODEL_MAX_TOKENS && (p = grit_next(p, end, &token)) != NULL)
        grit_hashed(token, &rows[n++]);
    if (n == 0)
        grit_hashed(grit_null, &rows[n++]);
    return n;
}

/* 32 digits from 64 bits, low bits first: 00 -> 0, 01 -> 1, 10 -> -1, 11 -> 0. */
static void grit_digits(uint64_t bits, grit_digit *x)
{
    int k;
    for (k = 0; k < 32; k++, bits >>= 2)
        x[k] = (grit_digit)((int)(bits & 1) - (int)(bits >> 1 & 1));
}

/* The digits of one token; x has room for whole words of 32. */
static void grit_expand(model_token token, grit_digit *x)
{
    uint64_t low = token.low, high = token.high;
    uint32_t k;
    for (k = 0; k < GRIT_WIDTH; k += 64) {
        grit_digits(low, x + k);
        if (k + 32 < GRIT_WIDTH)
            grit_digits(high, x + k + 32);
        low = grit_times(low ^ low >> 47, GRIT_K1);
        high ^= low;
        low ^= low >> 47;
        high = grit_times(high, GRIT_K2);
        high = grit_times(high ^ high >> 47, GRIT_K2);
    }
}
