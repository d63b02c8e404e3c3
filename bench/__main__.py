"""`python -m bench run NAME [--json] [--quick]`, `python -m bench peer`, `python -m bench report`."""

from __future__ import annotations

from bench.command import main

if __name__ == "__main__":
    main()
