"""The engine: knows the nouns, names no model and no attack."""
