/* ---- n-grams of words -> rows --------------------------------------------------------------------
 * All n-grams of orders 1 to GRIT_ORDER, by the place of their last word, the shorter first; an n-gram is hashed
 * as its words with one blank between.
 */

static uint32_t grit_bucket(uint64_t hash)
{
#if (GRIT_TABLE_ROWS & (GRIT_TABLE_ROWS - 1)) == 0
    return (uint32_t)hash & ((uint32_t)GRIT_TABLE_ROWS - 1);
#elif UINTPTR_MAX > 0xFFFFFFFFu
    return (uint32_t)(hash % (uint32_t)GRIT_TABLE_ROWS);
#else /* by hand: a 64-bit division would need a library */
    const uint32_t high = (uint32_t)(hash >> 32);
    uint32_t rest = high - grit_quotient(high, (uint32_t)GRIT_TABLE_ROWS) * (uint32_t)GRIT_TABLE_ROWS;
    int bit;
    for (bit = 31; bit >= 0; bit--) {
        rest = rest << 1 | ((uint32_t)hash >> bit & 1);
        if (rest >= (uint32_t)GRIT_TABLE_ROWS)
            rest -= (uint32_t)GRIT_TABLE_ROWS;
    }
    return rest;
#endif
}

/* text -> rows: their number, 1 to MODEL_MAX_TOKENS; a text without tokens reads as the empty word. */
uint32_t model_read(const char *text, size_t size, model_token *rows)
{
    const uint8_t *p = (const uint8_t *)text, *end = p + size;
    grit_token last[GRIT_ORDER]; /* the newest word first */
    uint32_t words = 0, n = 0, k, length;
    grit_hash hash;
    while (n < MODEL_MAX_TOKENS) {
        uint32_t bytes = 0;
        for (k = GRIT_ORDER - 1; k > 0; k--)
            last[k] = last[k - 1];
        p = grit_next(p, end, &last[0]);
        if (p == NULL)
            break;
        words++;
        for (length = 1; length <= GRIT_ORDER && length <= words && n < MODEL_MAX_TOKENS; length++) {
            bytes += last[length - 1].size + (length > 1);
            grit_hash_begin(&hash, bytes);
            for (k = length; k > 0; k--) {
                grit_hash_token(&hash, last[k - 1]);
                if (k > 1)
                    grit_hash_byte(&hash, ' ');
            }
            grit_hash_end(&hash);
            rows[n++] = (model_token)grit_bucket(hash.low);
        }
    }
    if (n == 0) {
        grit_hash_begin(&hash, grit_null.size);
        grit_hash_token(&hash, grit_null);
        grit_hash_end(&hash);
        rows[n++] = (model_token)grit_bucket(hash.low);
    }
    return n;
}
