/* ---- text -> tokens ---------------------------------------------------------------------------
 * A token is a run of ASCII letters, digits, apostrophes and bytes from 0x80 up, or one other byte;
 * A-Z read as a-z. White space is Unicode's, so text that is in normal form C (NFC) needs no further
 * preparation. A token never spans white space.
 */

typedef struct {
    const uint8_t *bytes;
    uint32_t size;
} grit_token;

static uint8_t grit_lower(uint8_t byte)
{
    return (uint8_t)(byte - 'A') < 26 ? (uint8_t)(byte | 0x20) : byte;
}

static int grit_in_word(uint8_t byte)
{
    return byte >= 0x80 || (uint8_t)((byte | 0x20) - 'a') < 26 || (uint8_t)(byte - '0') < 10 || byte == '\'';
}

/* How many of the bytes at p are one character of white space; 0: none. */
static uint32_t grit_space(const uint8_t *p, const uint8_t *end)
{
    uint32_t character;
    if (p[0] < 0x80)
        return p[0] <= ' ' && (p[0] == ' ' || (p[0] >= 9 && p[0] <= 13) || p[0] >= 28);
    if (p[0] == 0xC2)
        return end - p > 1 && (p[1] == 0x85 || p[1] == 0xA0) ? 2 : 0;
    if (p[0] < 0xE1 || p[0] > 0xE3 || end - p < 3)
        return 0;
    character = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
    if (character >= 0xE28080 && character <= 0xE2808A)
        return 3;
    return character == 0xE19A80 || character == 0xE280A8 || character == 0xE280A9 || character == 0xE280AF ||
           character == 0xE2819F || character == 0xE38080 ? 3 : 0;
}

/* The next token from p on; returns where to go on, or NULL where there is none. */
static const uint8_t *grit_next(const uint8_t *p, const uint8_t *end, grit_token *token)
{
    uint32_t blank;
    while (p < end && (blank = grit_space(p, end)) != 0)
        p += blank;
    if (p >= end)
        return NULL;
    token->bytes = p;
    if (grit_in_word(*p))
        do
            p++;
        while (p < end && grit_in_word(*p) && !(*p >= 0x80 && grit_space(p, end)));
    else
        p++;
    token->size = (uint32_t)(p - token->bytes);
    return p;
}
