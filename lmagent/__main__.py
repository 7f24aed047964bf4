"""`python -m lmagent` is the command `lmagent`."""

from __future__ import annotations

from lmagent.cli import main

if __name__ == "__main__":
    main()
