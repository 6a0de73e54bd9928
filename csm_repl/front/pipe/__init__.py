"""The front end without a terminal: lines from stdin or a file, spoken one by one or side by side."""

from csm_repl.front.pipe.lines import read_lines
from csm_repl.front.pipe.run import run_pipe

__all__ = ["read_lines", "run_pipe"]
