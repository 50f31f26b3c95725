"""Attacks: one public class a file; the file name is the name."""
