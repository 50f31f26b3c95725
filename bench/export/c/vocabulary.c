/* ---- token -> row: the vocabulary, sorted by its bytes and front-coded in blocks of GRIT_BLOCK words -----
 * The first word of a block is whole; every other is the number of letters that it shares with the word
 * before it and the rest. A word is a byte (shared << 4 | letters that follow), 15 standing for "15 and
 * the next byte". Row 0 is the unknown word.
 */

static uint32_t grit_count(uint32_t nibble, const uint8_t **at)
{
    if (nibble == 15) {
        uint8_t more;
        do {
            more = *(*at)++;
            nibble += more;
        } while (more == 255);
    }
    return nibble;
}

/* How many letters of the token, from ``match`` on, the ``size`` letters at p repeat; *order: -1 where the
 * token sorts before that word, 1 after it, 0 if it is the word. */
static uint32_t grit_compare(grit_token token, uint32_t match, const uint8_t *p, uint32_t size, int *order)
{
    uint32_t k;
    for (k = 0; k < size && match < token.size; k++, match++) {
        uint8_t letter = grit_lower(token.bytes[match]);
        if (letter != p[k]) {
            *order = letter < p[k] ? -1 : 1;
            return match;
        }
    }
    *order = k < size ? -1 : match < token.size;
    return match;
}

static model_token grit_row(grit_token token)
{
    uint32_t low = 0, high = GRIT_BLOCKS, match = 0, k;
    int order = -1;
    const uint8_t *at;
    while (high - low > 1) { /* the last block whose first word does not sort after the token */
        uint32_t middle = (low + high) / 2, head;
        at = grit_words + grit_blocks[middle];
        head = *at++ & 15;
        head = grit_count(head, &at);
        grit_compare(token, 0, at, head, &order);
        if (order < 0)
            high = middle;
        else
            low = middle;
    }
    at = grit_words + grit_blocks[low];
    for (k = low * GRIT_BLOCK; k < GRIT_WORDS && k < (low + 1) * GRIT_BLOCK; k++) {
        uint32_t shared = *at >> 4, rest = *at & 15;
        at++;
        shared = grit_count(shared, &at);
        rest = grit_count(rest, &at);
        if (shared < match)
            return 0; /* this word and all after it sort behind the token */
        if (shared == match) {
            match = grit_compare(token, match, at, rest, &order);
            if (order == 0)
                return (model_token)k;
            if (order < 0)
                return 0;
        }
        at += rest;
    }
    return 0;
}

/* text -> rows: their number, 1 to MODEL_MAX_TOKENS; a text without tokens reads as the unknown word. */
uint32_t model_read(const char *text, size_t size, model_token *rows)
{
    const uint8_t *p = (const uint8_t *)text, *end = p + size;
    grit_token token;
    uint32_t n = 0;
    while (n < MODEL_MAX_TOKENS && (p = grit_next(p, end, &token)) != NULL)
        rows[n++] = grit_row(token);
    if (n == 0)
        rows[n++] = 0;
    return n;
}
