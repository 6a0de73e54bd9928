from __future__ import annotations

import subprocess
import sys


def test_importing_the_console_imports_no_torch() -> None:
    code = "import csm_repl.front.console, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
