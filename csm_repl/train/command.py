"""`csm-repl train` and `csm-repl merge`: from words to an exit code. Loads torch only when there is work."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence

from csm_repl.errors import ExitCode, UsageError
from csm_repl.logs import start_logging
from csm_repl.terminal import held_interrupts
from csm_repl.train.flags import parse_merge, parse_train

__all__ = ["run_merge", "run_train"]

_NEEDED = ("torchtune", "torchao", "matplotlib")


def run_train(words: Sequence[str]) -> ExitCode:
    """Trains; CsmReplError for everything that goes wrong."""
    job = parse_train(words)
    start_logging(verbose=job.settings.verbose)
    _check_extra(*_NEEDED)
    if job.options.tensorboard:
        _check_extra("tensorboard", install="tensorboard")
    from csm_repl.train.data.sources.registry import check_sources
    from csm_repl.train.report.display import open_display

    check_sources(job.sources)
    display = open_display(job.settings, job.options.log_every)
    try:
        display.say("Loading.")
        _quieten()
        with held_interrupts():
            from csm_repl.train.train_job import run_train_job

        return run_train_job(job, display)
    except KeyboardInterrupt:
        display.close()
        display.say("Stopped. What was encoded so far is kept.")
        return ExitCode.INTERRUPTED
    finally:
        display.close()


def run_merge(words: Sequence[str]) -> ExitCode:
    """Merges; CsmReplError for everything that goes wrong."""
    job = parse_merge(words)
    start_logging(verbose=job.settings.verbose)
    _check_extra("torchtune", "torchao")
    from csm_repl.train.report.display import open_display

    display = open_display(job.settings, 1)
    _quieten()
    with held_interrupts():
        from csm_repl.train.merge_job import run_merge_job

    return run_merge_job(job, display)


def _check_extra(*names: str, install: str = "'csm-repl[train]'") -> None:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"This needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed.",
            f"Install what is missing with: pip install {install}",
        )


def _quieten() -> None:
    # torchtune and torchao warn about parts of torch that are not used here.
    warnings.filterwarnings("ignore", module=r"(torch|torchao|torchtune)\b")
