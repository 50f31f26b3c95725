/* ---- state -> logits ------------------------------------------------------------------------------------- */

static void grit_head(const int16_t *state, model_logit *logits)
{
    uint32_t row, k;
    for (row = 0; row < MODEL_CLASSES; row++) {
        const int8_t *w = grit_head_weight + row * GRIT_STATE;
        int32_t sum = 0;
        for (k = 0; k < GRIT_STATE; k++)
            sum += w[k] * state[k];
        sum = (grit_head_multiplier[row] * sum + grit_head_bias[row]) >> GRIT_HEAD_SHIFT;
        logits[row] = GRIT_HEAD_RELU && sum < 0 ? 0 : sum;
    }
}
