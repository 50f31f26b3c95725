"""Loss terms, one file a term: a scheme is a set of weights over them, and a new file is a new term.

A term is a frozen dataclass called with one training step (``_step.py`` says what a step offers) that returns
a scalar. Nothing here knows a model by name: all terms meet text at the feature cut.
"""
