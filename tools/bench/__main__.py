"""`python -m moa_dialect.tools.bench` is `moa-bench`."""

import sys

from moa_dialect.tools.bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
