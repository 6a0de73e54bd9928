"""`csm-repl merge`: an adapter and its base model into a model folder. Prints nothing."""

from __future__ import annotations

import torch

from csm_repl.errors import ExitCode, UsageError
from csm_repl.files.adapters import find_adapter
from csm_repl.files.hub import find_model
from csm_repl.train.export.merge import merge_adapter
from csm_repl.train.flags import MergeJob
from csm_repl.train.report.display import Display

__all__ = ["run_merge_job"]


def run_merge_job(job: MergeJob, display: Display) -> ExitCode:
    """Merges. Without `--model` the base is the model that the adapter names.

    Raises:
        UsageError: the output folder is in use.
        ModelError: base or adapter are missing, damaged, or do not fit each other.
        TrainingError: the result could not be written.
    """
    settings = job.settings
    if job.out.exists() and (not job.out.is_dir() or any(job.out.iterdir())):
        raise UsageError(f"{job.out} exists and is not empty.", "Give a new folder with -o.")
    adapter = find_adapter(job.adapter)
    base = settings.model
    if settings.origin("model") == "default":
        base = adapter.base()
        display.say(f"The adapter belongs to {base}.")
    files = find_model(
        base,
        revision=settings.revision,
        offline=settings.offline,
        token=settings.hf_token,
        say=display.say,
    )
    dtype = None if job.dtype == "auto" else getattr(torch, job.dtype)
    notice = merge_adapter(files, adapter, job.out, layout=job.layout, dtype=dtype)
    if notice:
        display.say(notice)
    display.result(job.out)
    return ExitCode.OK
