/* ---- bytes -> 128 bits of hash -------------------------------------------------------------------
 * Bytes are unsigned; "" hashes as "<null>". The length must be known before the first byte.
 */

typedef struct {
    uint64_t low, high, block;
    uint32_t filled; /* bytes in block */
} grit_hash;

#define GRIT_K1 UINT64_C(0xC6A4A7935BD1E995)
#define GRIT_K2 UINT64_C(0x9E3779B97F4A7835)

static uint64_t grit_mixed(uint64_t value)
{
    return value ^ value >> 47;
}

static void grit_hash_begin(grit_hash *hash, uint32_t size)
{
    hash->low = grit_times(size, GRIT_K1);
    hash->high = hash->block = 0;
    hash->filled = 0;
}

static void grit_hash_byte(grit_hash *hash, uint8_t byte)
{
    hash->block |= grit_byte_at(byte, hash->filled);
    if (++hash->filled == 8) {
        hash->low = grit_times(hash->low ^ grit_times(grit_mixed(grit_times(hash->block, GRIT_K1)), GRIT_K1), GRIT_K1);
        hash->high ^= hash->low;
        hash->block = 0;
        hash->filled = 0;
    }
}

static void grit_hash_token(grit_hash *hash, grit_token token)
{
    uint32_t k;
    for (k = 0; k < token.size; k++)
        grit_hash_byte(hash, grit_lower(token.bytes[k]));
}

static void grit_hash_end(grit_hash *hash)
{
    if (hash->filled) {
        hash->low = grit_times(hash->low ^ hash->block, GRIT_K1);
        hash->high ^= hash->low;
    }
    hash->low = grit_times(grit_mixed(hash->low), GRIT_K1);
    hash->high ^= hash->low;
    hash->low = grit_mixed(hash->low);
    hash->high = grit_times(grit_mixed(grit_times(hash->high, GRIT_K2)), GRIT_K2);
}

static const grit_token grit_null = {(const uint8_t *)"<null>", 6};
