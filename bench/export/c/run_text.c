/* ---- text -> logits --------------------------------------------------------------------------------------- */

void model_text(const char *text, size_t size, model_logit *logits, model_scratch *scratch)
{
    model_run(scratch->tokens, model_read(text, size, scratch->tokens), logits, scratch);
}
