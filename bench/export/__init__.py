"""A trained model -> the bytes that ship, one format a file; :mod:`grit.bench.export.build` is the way in."""
