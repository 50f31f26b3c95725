/* ---- means ----------------------------------------------------------------------------------------------------- */

int64_t grit_batch_bytes(int64_t n, int64_t seq, int64_t rows)
{
    (void)n, (void)seq, (void)rows;
    return 64;
}

/* tokens [n][seq] and lengths [n] >= 1 -> logits [n][classes]; table [rows][features]. */
void grit_batch(const int8_t *table, int64_t rows, const int32_t *tokens, const int32_t *lengths, int64_t n, int64_t seq,
                int32_t *logits, char *begin)
{
    int64_t text;
    (void)rows, (void)begin;
    for (text = 0; text < n; text++, tokens += seq, logits += MODEL_CLASSES) {
        const int32_t size = lengths[text];
        int32_t sum[GRIT_STATE], t, k;
        int16_t state[GRIT_STATE];
        for (k = 0; k < GRIT_STATE; k++)
            sum[k] = 128 * size;
        for (t = 0; t < size; t++) {
            const int8_t *features = table + (int64_t)tokens[t] * GRIT_STATE;
            for (k = 0; k < GRIT_STATE; k++)
                sum[k] += features[k];
        }
        for (k = 0; k < GRIT_STATE; k++)
            state[k] = grit_mean(sum[k], (uint32_t)size);
        grit_head(state, logits);
    }
}
