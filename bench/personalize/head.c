/* The last layer, trained on the device: plain descent on the mean cross-entropy of a few remembered texts.
 *
 * Weight and bias are what is added to the frozen head, whose logits come with each text. No heap, no library and no
 * global variable: all that is written is the grit_head that the caller passes. Sums run from the first feature to the
 * last, so that every core does the same roundings.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdint.h>

typedef struct {
    float state[FEATURES]; /* what the frozen body makes of the text */
    float logit[CLASSES];  /* of the frozen head */
    uint32_t label;
} grit_example;

typedef struct {
    float rate;
    float weight[CLASSES * FEATURES];
    float bias[CLASSES];
    float slope[BATCH * CLASSES]; /* room for a step */
} grit_head;

/* e^x for x <= 0: 2^n times a polynomial of degree 7 on -ln(2)/2..ln(2)/2; below -87 it is 0. */
static float grit_exp(float x)
{
    union {
        float number;
        uint32_t bits;
    } power;
    int32_t n;
    float r, p;
    if (x < -87.0f)
        return 0.0f;
    n = (int32_t)(x * 1.44269504f - 0.5f); /* towards zero, of a number below zero: the nearest */
    r = x - (float)n * 0.693359375f;       /* ln 2 in two parts, the first of them exact times n */
    r = r + (float)n * 2.12194440e-4f;
    p = 1.0f / 5040.0f;
    p = p * r + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    power.bits = (uint32_t)(n + 127) << 23;
    return p * power.number;
}

/* One step on n texts, 1 to BATCH. */
void grit_head_step(grit_head *head, const grit_example *examples, uint32_t n)
{
    const float rate = head->rate / (float)n;
    uint32_t i, c, j;
    for (i = 0; i < n; i++) {
        const grit_example *example = &examples[i];
        float *slope = &head->slope[i * CLASSES];
        float top, total = 0.0f;
        for (c = 0; c < CLASSES; c++) {
            float sum = 0.0f;
            for (j = 0; j < FEATURES; j++)
                sum += head->weight[c * FEATURES + j] * example->state[j];
            slope[c] = example->logit[c] + sum + head->bias[c];
        }
        top = slope[0];
        for (c = 1; c < CLASSES; c++)
            if (slope[c] > top)
                top = slope[c];
        for (c = 0; c < CLASSES; c++) {
            slope[c] = grit_exp(slope[c] - top);
            total += slope[c];
        }
        for (c = 0; c < CLASSES; c++)
            slope[c] = slope[c] / total - (float)(c == example->label);
    }
    for (c = 0; c < CLASSES; c++) {
        float sum = 0.0f;
        for (i = 0; i < n; i++)
            sum += head->slope[i * CLASSES + c];
        head->bias[c] -= rate * sum;
        for (j = 0; j < FEATURES; j++) {
            sum = 0.0f;
            for (i = 0; i < n; i++)
                sum += head->slope[i * CLASSES + c] * examples[i].state[j];
            head->weight[c * FEATURES + j] -= rate * sum;
        }
    }
}

const uint32_t grit_head_bytes = sizeof(grit_head), grit_example_bytes = sizeof(grit_example);
