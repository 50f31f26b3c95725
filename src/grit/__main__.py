"""``python -m grit`` is the command ``grit``."""

from grit.bench.cli import main

if __name__ == "__main__":
    main()
