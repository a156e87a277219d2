"""`python -m pyrf`: the `pyrf` command."""

from pyrf.cli import main

if __name__ == "__main__":
    main()
