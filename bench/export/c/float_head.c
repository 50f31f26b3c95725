/* ---- state -> logits ------------------------------------------------------------------------------------------- */

static void grit_head(const float *state, model_logit *logits)
{
    uint32_t row, k;
    for (row = 0; row < MODEL_CLASSES; row++) {
        float sum = 0.0f;
        for (k = 0; k < GRIT_STATE; k++)
            sum = grit_fma_one(grit_head_weight[row * GRIT_STATE + k], state[k], sum);
        sum += grit_head_bias[row];
        logits[row] = GRIT_HEAD_RELU && sum < 0.0f ? 0.0f : sum;
    }
}
