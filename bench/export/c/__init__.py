"""A program -> freestanding C99: weights, tokenizer and arithmetic in one source file, text in, logits out.

:mod:`grit.bench.export.c.emitter` writes it; the ``.c`` files of this folder are the chapters it is made of, each with
its variants for single cores side by side. What they leave open stands in upper case and is defined by the emitter
(``GRIT_UNITS``); ``model_`` and ``MODEL_`` become the name of the program.
"""
