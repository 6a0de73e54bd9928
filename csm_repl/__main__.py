"""`python -m csm_repl` is the same as `csm-repl`."""

import sys

from csm_repl.cli import main

sys.exit(main())
