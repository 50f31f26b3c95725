/* ---- many texts a call: a library for attacks ---------------------------------------------------------------
 * Texts come as rows of tokens whose features lie in ``table``; nothing is read twice that a batch can share. All memory
 * is the caller's: grit_batch_bytes() bytes, without any preparation.
 */

#define GRIT_AT_ONCE 64 /* texts whose states stay in the first caches */

typedef struct {
    const int32_t *tokens; /* [n][seq] */
    const int32_t *lengths;
    int64_t n, seq;
} grit_texts;

typedef struct {
    char *begin; /* NULL: only measure */
    int64_t used;
} grit_memory;

/* Part of the caller's memory. */
static void *grit_take(grit_memory *memory, int64_t bytes)
{
    char *taken = memory->begin ? memory->begin + memory->used : NULL;
    memory->used += (bytes + 63) / 64 * 64;
    return taken;
}

/* How many first tokens two texts share. */
static int32_t grit_shared(const grit_texts *texts, int32_t a, int32_t b)
{
    const int32_t *x = texts->tokens + a * texts->seq, *y = texts->tokens + b * texts->seq;
    const int32_t size = texts->lengths[a] < texts->lengths[b] ? texts->lengths[a] : texts->lengths[b];
    int32_t k = 0;
    while (k < size && x[k] == y[k])
        k++;
    return k;
}

static int grit_before(const grit_texts *texts, int32_t a, int32_t b)
{
    const int32_t k = grit_shared(texts, a, b);
    if (k == texts->lengths[a] || k == texts->lengths[b])
        return texts->lengths[a] <= texts->lengths[b];
    return texts->tokens[a * texts->seq + k] < texts->tokens[b * texts->seq + k];
}

/* order: the texts as in a dictionary, so that those with the same beginning stand together. */
static void grit_sort(const grit_texts *texts, int32_t *order, int32_t *spare)
{
    const int32_t n = (int32_t)texts->n;
    int32_t width, start, k;
    for (k = 0; k < n; k++)
        order[k] = k;
    for (width = 1; width < n; width *= 2) {
        for (start = 0; start < n; start += 2 * width) {
            const int32_t middle = start + width < n ? start + width : n, end = middle + width < n ? middle + width : n;
            int32_t a = start, b = middle;
            for (k = start; k < end; k++)
                spare[k] = b >= end || (a < middle && grit_before(texts, order[a], order[b])) ? order[a++] : order[b++];
        }
        for (k = 0; k < n; k++)
            order[k] = spare[k];
    }
}

/* A set of small integers that needs no preparation: place[owner[k]] = k for its members k < count. */
typedef struct {
    int32_t *place, *owner, count;
} grit_set;

static int32_t grit_placed(grit_set *set, int32_t member)
{
    const int32_t place = set->place[member];
    if (place >= 0 && place < set->count && set->owner[place] == member)
        return place;
    set->owner[set->count] = member;
    return set->place[member] = set->count++;
}
