/* ---- recurrent: texts with the same beginning share its states ---------------------------------------------- */

typedef struct {
    grit_byte h[GRIT_PADDED_STATE];
    int16_t state[GRIT_PADDED];
#if defined(GRIT_LSTM)
    grit_cell c[GRIT_PADDED];
#endif
} grit_node;

#if defined(GRIT_AVX2)
#define GRIT_TOGETHER 4 /* states that advance at once keep the arithmetic units busy */

/* From the states ``from`` to ``to`` by one token each; some may be one and the same. */
static void grit_advance(const grit_node *const *from, grit_node *const *to, const int32_t *const *drive, uint32_t *pairs)
{
    const grit_byte *const h[4] = {from[0]->h, from[1]->h, from[2]->h, from[3]->h};
    uint32_t unit;
    int k;
    (void)pairs;
    for (unit = 0; unit < GRIT_PADDED; unit += 8) {
#if defined(GRIT_LSTM)
        const grit_cell *c[4];
        grit_cell *c_next[4];
        grit_byte *h_next[4];
        int16_t *state[4];
        __m256i p[4][4], panel[4];
        int gate;
        GRIT_UNROLLED
        for (gate = 0; gate < 4; gate++) {
            grit_dot(1, 4, grit_state_weight + 16 * GRIT_STATE_GROUPS * unit + 32 * gate, 128, h, GRIT_STATE_GROUPS, panel);
            GRIT_UNROLLED
            for (k = 0; k < 4; k++)
                p[k][gate] = grit_sum(panel[k], 4 * unit + 8 * gate, drive[k]);
        }
        GRIT_UNROLLED
        for (k = 0; k < 4; k++) {
            c[k] = from[k]->c + unit, c_next[k] = to[k]->c + unit;
            h_next[k] = to[k]->h + unit, state[k] = to[k]->state + unit;
        }
        grit_cells(4, p, c, c_next, h_next, state);
#else
        const grit_layer layer = {grit_state_weight, grit_state_multiplier, NULL, GRIT_PADDED, GRIT_STATE_GROUPS};
        const uint32_t units[2] = {unit, unit};
        uint32_t step;
        const int8_t *w = grit_panel(&layer, unit, &step);
        __m256i p[4];
        grit_dot(1, 4, w, step, h, GRIT_STATE_GROUPS, p);
        GRIT_UNROLLED
        for (k = 0; k < 4; k++)
            p[k] = grit_sum(p[k], unit, drive[k]);
        GRIT_UNROLLED
        for (k = 0; k < 4; k += 2) {
            const int16_t *const old[2] = {from[k]->state + unit, from[k + 1]->state + unit};
            int16_t *const next[2] = {to[k]->state + unit, to[k + 1]->state + unit};
            grit_byte *const u_next[2] = {to[k]->h + unit, to[k + 1]->h + unit};
            grit_cells(p + k, units, old, next, u_next);
        }
#endif
    }
}

#else
#define GRIT_TOGETHER 1

static void grit_advance(const grit_node *const *from, grit_node *const *to, const int32_t *const *drive, uint32_t *pairs)
{
    uint32_t unit;
#if defined(GRIT_LSTM)
    for (unit = 0; unit < GRIT_PADDED; unit++)
        to[0]->c[unit] = from[0]->c[unit];
    grit_step(drive[0], from[0]->h, pairs, to[0]->h, to[0]->c, to[0]->state);
#else
    for (unit = 0; unit < GRIT_PADDED; unit++)
        to[0]->state[unit] = from[0]->state[unit];
    grit_step(drive[0], from[0]->h, pairs, to[0]->h, to[0]->state);
#endif
}

#endif

typedef struct {
    grit_node *nodes[2];   /* of the last token and of this one */
    int32_t *node, *parent, *row;
    grit_byte *x;
    uint32_t *pairs;
    int32_t *drive, *order, *spare, *shared;
    grit_set rows;
} grit_room;

static grit_room grit_rooms(grit_memory *memory, int64_t n, int64_t seq, int64_t rows)
{
    grit_room room;
    const int64_t most = GRIT_AT_ONCE * seq + GRIT_TOKENS < rows + GRIT_TOKENS ? GRIT_AT_ONCE * seq + GRIT_TOKENS : rows + GRIT_TOKENS;
    room.nodes[0] = grit_take(memory, (GRIT_AT_ONCE + 1) * sizeof(grit_node));
    room.nodes[1] = grit_take(memory, (GRIT_AT_ONCE + 1) * sizeof(grit_node));
    room.node = grit_take(memory, GRIT_AT_ONCE * 4);
    room.parent = grit_take(memory, GRIT_AT_ONCE * 4);
    room.row = grit_take(memory, GRIT_AT_ONCE * 4);
    room.x = grit_take(memory, GRIT_TOKENS * GRIT_STRIDE * sizeof(grit_byte));
    room.pairs = grit_take(memory, 4 * GRIT_PAIRS(GRIT_MOST_GROUPS));
    room.order = grit_take(memory, 4 * n);
    room.spare = grit_take(memory, 4 * n);
    room.shared = grit_take(memory, 4 * n);
    room.rows.place = grit_take(memory, 4 * rows);
    room.rows.owner = grit_take(memory, 4 * most);
    room.drive = grit_take(memory, 4 * most * GRIT_ROWS_INPUT);
    return room;
}

int64_t grit_batch_bytes(int64_t n, int64_t seq, int64_t rows)
{
    grit_memory memory = {NULL, 0};
    grit_rooms(&memory, n, seq, rows);
    return memory.used;
}

/* What the tokens of texts first..last contribute by themselves, once a row. */
static void grit_drives(grit_room *room, const grit_texts *texts, const int8_t *table, int32_t first, int32_t last)
{
    int32_t i, t, k, at;
    room->rows.count = 0;
    for (i = first; i < last; i++)
        for (t = 0; t < texts->lengths[room->order[i]]; t++)
            grit_placed(&room->rows, texts->tokens[room->order[i] * texts->seq + t]);
    for (at = 0; at < room->rows.count; at += GRIT_TOKENS) {
        for (k = 0; k < GRIT_TOKENS && at + k < room->rows.count; k++) {
            const int8_t *features = table + (int64_t)room->rows.owner[at + k] * GRIT_FEATURES;
            for (t = 0; t < GRIT_FEATURES; t++)
                room->x[k * GRIT_STRIDE + t] = features[t];
        }
        grit_product(&grit_input, room->x, GRIT_STRIDE, room->pairs, room->drive + (int64_t)at * GRIT_ROWS_INPUT);
    }
}

static void grit_some(grit_room *room, const grit_texts *texts, int32_t first, int32_t last, int32_t *logits)
{
    int32_t t, i, k, turn = 0, longest = 0;
    for (i = first; i < last; i++)
        if (texts->lengths[room->order[i]] > longest)
            longest = texts->lengths[room->order[i]];
    for (k = 0; k < (int32_t)sizeof(grit_node); k++)
        ((char *)room->nodes[0])[k] = 0;
    for (i = 0; i < last - first; i++)
        room->node[i] = 0;
    for (t = 0; t < longest; t++, turn ^= 1) {
        int32_t nodes = 0;
        for (i = 0; i < last - first; i++) {
            const int32_t text = room->order[first + i];
            if (texts->lengths[text] <= t)
                continue;
            if (i > 0 && room->shared[first + i] > t) {
                room->node[i] = room->node[i - 1];
                continue;
            }
            room->parent[nodes] = room->node[i];
            room->row[nodes] = grit_placed(&room->rows, texts->tokens[text * texts->seq + t]);
            room->node[i] = nodes++;
        }
        for (k = 0; k < nodes; k += GRIT_TOGETHER) {
            const grit_node *from[GRIT_TOGETHER];
            grit_node *to[GRIT_TOGETHER];
            const int32_t *drive[GRIT_TOGETHER];
            for (i = 0; i < GRIT_TOGETHER; i++) {
                const int32_t at = k + i < nodes ? k + i : k;
                from[i] = room->nodes[turn] + room->parent[at], to[i] = room->nodes[turn ^ 1] + at;
                drive[i] = room->drive + (int64_t)room->row[at] * GRIT_ROWS_INPUT;
            }
            grit_advance(from, to, drive, room->pairs);
        }
        for (i = 0; i < last - first; i++) {
            const int32_t text = room->order[first + i];
            if (texts->lengths[text] == t + 1)
                grit_head(room->nodes[turn ^ 1][room->node[i]].state, logits + (int64_t)text * MODEL_CLASSES);
        }
    }
}

/* tokens [n][seq] and lengths [n] >= 1 -> logits [n][classes]; table [rows][features]. */
void grit_batch(const int8_t *table, int64_t rows, const int32_t *tokens, const int32_t *lengths, int64_t n, int64_t seq,
                int32_t *logits, char *begin)
{
    const grit_texts texts = {tokens, lengths, n, seq};
    grit_memory memory = {begin, 0};
    grit_room room = grit_rooms(&memory, n, seq, rows);
    int32_t k;
    grit_sort(&texts, room.order, room.spare);
    for (k = 1; k < n; k++)
        room.shared[k] = grit_shared(&texts, room.order[k - 1], room.order[k]);
    for (k = 0; k < n; k += GRIT_AT_ONCE) {
        const int32_t last = k + GRIT_AT_ONCE < n ? k + GRIT_AT_ONCE : (int32_t)n;
        grit_drives(&room, &texts, table, k, last);
        grit_some(&room, &texts, k, last, logits);
    }
}
