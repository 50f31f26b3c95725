"""Places that run exported bytes and say what they cost there, one file a place."""
