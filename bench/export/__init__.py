"""A trained model -> the bytes that ship, one format a file."""
