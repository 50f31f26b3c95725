/* ---- poolings: the outputs of a kernel depend on a few tokens, which texts that differ in a word share ----------- */

typedef struct {
    int32_t *slots; /* [capacity]: an entry + 1, or 0 */
    int32_t *keys;  /* [entries][width]: features of the tokens, 0 beyond the end */
    int32_t capacity, count, width;
} grit_names;

typedef struct {
    grit_byte *x, *values, *attentions; /* features of row ``row`` of the batch at row + 1; zeros at 0 */
    int32_t *sums;
    uint32_t *pairs;
    grit_set rows;
    grit_names names;
    grit_byte *window;
    float *weight;   /* [entries][32]: POWER times a power of two, exact */
    int32_t *value;  /* [entries][32]: value + 128 */
    int32_t *entry;  /* [n][seq] */
    int16_t *state;  /* [n][GRIT_STATE] */
} grit_room;

static grit_room grit_rooms(grit_memory *memory, int64_t n, int64_t seq, int64_t rows)
{
    grit_room room;
    const int64_t tokens = n * seq, distinct = tokens < rows ? tokens : rows;
    int64_t capacity = 64;
    while (capacity < 2 * tokens)
        capacity *= 2;
    room.x = grit_take(memory, GRIT_TOKENS * GRIT_STRIDE * sizeof(grit_byte));
    room.values = grit_take(memory, (distinct + 1 + GRIT_TOKENS) * GRIT_VALUES_STRIDE * sizeof(grit_byte));
    room.attentions = grit_take(memory, (distinct + 1 + GRIT_TOKENS) * GRIT_ATTENTIONS_STRIDE * sizeof(grit_byte));
    room.sums = grit_take(memory, 4 * GRIT_TOKENS * GRIT_MOST_ROWS);
    room.pairs = grit_take(memory, 4 * GRIT_PAIRS(GRIT_MOST_GROUPS));
    room.rows.place = grit_take(memory, 4 * rows);
    room.rows.owner = grit_take(memory, 4 * distinct);
    room.names.slots = grit_take(memory, 4 * capacity);
    room.names.keys = grit_take(memory, 4 * tokens * GRIT_WIDEST);
    room.names.capacity = (int32_t)capacity;
    room.window = grit_take(memory, GRIT_TOKENS * 4 * GRIT_MOST_GROUPS * sizeof(grit_byte));
    room.weight = grit_take(memory, (tokens + GRIT_TOKENS) * 32 * sizeof(float));
    room.value = grit_take(memory, (tokens + GRIT_TOKENS) * 32 * 4);
    room.entry = grit_take(memory, 4 * tokens);
    room.state = grit_take(memory, 2 * n * GRIT_STATE);
    return room;
}

int64_t grit_batch_bytes(int64_t n, int64_t seq, int64_t rows)
{
    grit_memory memory = {NULL, 0};
    grit_rooms(&memory, n, seq, rows);
    return memory.used;
}

/* Maps of all tokens of the batch. */
static void grit_token_maps(grit_room *room, const grit_texts *texts, const int8_t *table)
{
    int64_t text;
    int32_t t, k, at;
    room->rows.count = 0;
    for (text = 0; text < texts->n; text++)
        for (t = 0; t < texts->lengths[text]; t++)
            grit_placed(&room->rows, texts->tokens[text * texts->seq + t]);
    for (k = 0; k < GRIT_VALUES_STRIDE; k++)
        room->values[k] = 0;
    for (k = 0; k < GRIT_ATTENTIONS_STRIDE; k++)
        room->attentions[k] = 0;
    for (at = 0; at < room->rows.count; at += GRIT_TOKENS) {
        for (k = 0; k < GRIT_TOKENS && at + k < room->rows.count; k++) {
            const int8_t *features = table + (int64_t)room->rows.owner[at + k] * GRIT_FEATURES;
            for (t = 0; t < GRIT_FEATURES; t++)
                room->x[k * GRIT_STRIDE + t] = features[t];
        }
        grit_map(room->x, room->pairs, room->sums, room->values + (int64_t)(at + 1) * GRIT_VALUES_STRIDE,
                 room->attentions + (int64_t)(at + 1) * GRIT_ATTENTIONS_STRIDE);
    }
}

/* The entry of an n-gram, new or known. */
static int32_t grit_named(grit_names *names, const int32_t *key)
{
    uint64_t hash = 0;
    uint32_t slot;
    int32_t k;
    for (k = 0; k < names->width; k++)
        hash = (hash ^ (uint32_t)key[k]) * UINT64_C(0x9E3779B97F4A7C15);
    slot = (uint32_t)(hash >> 32) & (uint32_t)(names->capacity - 1);
    for (;; slot = (slot + 1) & (uint32_t)(names->capacity - 1)) {
        const int32_t entry = names->slots[slot] - 1;
        if (entry < 0)
            break;
        for (k = 0; k < names->width && names->keys[entry * names->width + k] == key[k]; k++)
            ;
        if (k == names->width)
            return entry;
    }
    for (k = 0; k < names->width; k++)
        names->keys[names->count * names->width + k] = key[k];
    names->slots[slot] = ++names->count;
    return names->count - 1;
}

/* entry[text][t]: which n-gram of ``width`` begins there. */
static void grit_ngrams(grit_room *room, const grit_texts *texts, int32_t width)
{
    grit_names *names = &room->names;
    int64_t text;
    int32_t t, k;
    names->count = 0;
    names->width = width;
    for (k = 0; k < names->capacity; k++)
        names->slots[k] = 0;
    for (text = 0; text < texts->n; text++) {
        const int32_t *tokens = texts->tokens + text * texts->seq, size = texts->lengths[text];
        for (t = 0; t < size; t++) {
            int32_t key[GRIT_WIDEST];
            for (k = 0; k < width; k++)
                key[k] = t + k < size ? room->rows.place[tokens[t + k]] + 1 : 0;
            room->entry[text * texts->seq + t] = grit_named(names, key);
        }
    }
}

/* GRIT_TOKENS windows of features side by side, from the entries ``at`` on. */
static void grit_windows(const grit_room *room, const grit_byte *features, int32_t stride, int32_t at)
{
    const grit_names *names = &room->names;
    int32_t t, k, r;
    for (t = 0; t < GRIT_TOKENS && at + t < names->count; t++)
        for (k = 0; k < names->width; k++) {
            const grit_byte *from = features + (int64_t)names->keys[(at + t) * names->width + k] * stride;
            grit_byte *to = room->window + (t * names->width + k) * stride;
            for (r = 0; r < stride; r++)
                to[r] = from[r];
        }
}

/* 2^exponent */
static inline float grit_exp2(int32_t exponent)
{
    union {
        uint32_t bits;
        float value;
    } made = {(uint32_t)(exponent + 127) << 23};
    return made.value;
}

/* value and weight of all n-grams, of up to 32 channels from ``row`` on; channels are 32 apart. */
static void grit_kernel_outputs(grit_room *room, const grit_kernel *kernel, uint32_t row)
{
    const grit_layer value = grit_rows(&kernel->value, row), attention = grit_rows(&kernel->attention, row);
    int32_t at, t;
    uint32_t k;
    for (at = 0; at < room->names.count; at += GRIT_TOKENS) {
        grit_windows(room, room->values, GRIT_VALUES_STRIDE, at);
        grit_product(&value, room->window, (uint32_t)room->names.width * GRIT_VALUES_STRIDE, room->pairs, room->sums);
        for (t = 0; t < GRIT_TOKENS; t++)
            for (k = 0; k < value.rows; k++)
                room->value[(at + t) * 32 + k] =
                    128 + grit_between(room->sums[t * value.rows + k] >> kernel->value_shift, kernel->value_low, 127);
        grit_windows(room, room->attentions, GRIT_ATTENTIONS_STRIDE, at);
        grit_product(&attention, room->window, (uint32_t)room->names.width * GRIT_ATTENTIONS_STRIDE, room->pairs, room->sums);
        for (t = 0; t < GRIT_TOKENS; t++)
            for (k = 0; k < attention.rows; k++) {
                const int32_t i =
                    grit_between(room->sums[t * attention.rows + k] >> kernel->attention_shift, kernel->attention_low, 6143);
                room->weight[(at + t) * 32 + k] = (float)grit_power[i & 63] * grit_exp2(i >> 6);
            }
    }
}

/* The weighted means of up to 32 channels over one text. */
static void grit_pool_text(const grit_room *room, const int32_t *entry, int32_t size, uint32_t channels, int16_t *state)
{
    float top[32];
    int32_t total[32], sum[32], t;
    uint32_t k;
    for (k = 0; k < 32; k++)
        top[k] = 0, total[k] = 0, sum[k] = 0;
    for (t = 0; t < size; t++) {
        const float *weight = room->weight + (int64_t)entry[t] * 32;
        for (k = 0; k < 32; k++)
            top[k] = weight[k] > top[k] ? weight[k] : top[k];
    }
    for (k = 0; k < 32; k++) { /* -> what brings the largest weight to its octave */
        union {
            float value;
            uint32_t bits;
        } largest = {top[k]};
        top[k] = k < channels ? grit_exp2(GRIT_POWER_BITS + 127 - (int32_t)(largest.bits >> 23)) : 0;
    }
    for (t = 0; t < size; t++) {
        const float *weight = room->weight + (int64_t)entry[t] * 32;
        const int32_t *value = room->value + (int64_t)entry[t] * 32;
        for (k = 0; k < 32; k++) {
            const int32_t share = (int32_t)(weight[k] * top[k]);
            total[k] += share;
            sum[k] += share * value[k];
        }
    }
    for (k = 0; k < channels; k++)
        state[k] = grit_weighted((uint32_t)sum[k], (uint32_t)total[k]);
}

/* tokens [n][seq] and lengths [n] >= 1 -> logits [n][classes]; table [rows][features]. */
void grit_batch(const int8_t *table, int64_t rows, const int32_t *tokens, const int32_t *lengths, int64_t n, int64_t seq,
                int32_t *logits, char *begin)
{
    const grit_texts texts = {tokens, lengths, n, seq};
    grit_memory memory = {begin, 0};
    grit_room room = grit_rooms(&memory, n, seq, rows);
    int32_t kernel, place = 0;
    int64_t text;
    uint32_t row;
    grit_token_maps(&room, &texts, table);
    for (kernel = 0; kernel < GRIT_KERNELS; kernel++) {
        const grit_kernel *one = &grit_kernels[kernel];
        grit_ngrams(&room, &texts, (int32_t)one->width);
        for (row = 0; row < one->channels; row += 32) {
            const uint32_t channels = one->channels - row < 32 ? one->channels - row : 32;
            grit_kernel_outputs(&room, one, row);
            for (text = 0; text < n; text++)
                grit_pool_text(&room, room.entry + text * seq, lengths[text], channels, room.state + text * GRIT_STATE + place);
            place += (int32_t)channels;
        }
    }
    for (text = 0; text < n; text++)
        grit_head(room.state + text * GRIT_STATE, logits + text * MODEL_CLASSES);
}
