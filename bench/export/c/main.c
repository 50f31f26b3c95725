/* Reads one text from standard input and prints its logits: an example of how to call model.c.
 *
 *     cc -O2 -std=c99 main.c model.c -o model && echo "what a fine day" | ./model
 *
 * Only this file needs a C library.
 */

#include <stdio.h>

#include "model.h"

int main(void)
{
    static char text[1 << 16];
    static model_scratch scratch;
    model_logit logits[MODEL_CLASSES];
    size_t size = fread(text, 1, sizeof text, stdin);
    int k;

    model_text(text, size, logits, &scratch);
    for (k = 0; k < MODEL_CLASSES; k++)
        printf("%d\t%.9g\n", k, (double)logits[k] * MODEL_LOGIT_UNIT);
    return 0;
}
