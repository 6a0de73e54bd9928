"""Every setting once, and where its value came from: flag > environment > `.env` > default."""

from csm_repl.settings.arguments import ArgumentParser, did_you_mean
from csm_repl.settings.load import load_settings, parse_value
from csm_repl.settings.registry import LAST_SPEAKER, Origin, Settings, SettingSpec, spec, specs
from csm_repl.settings.values import DEVICE_HELP

__all__ = [
    "DEVICE_HELP",
    "LAST_SPEAKER",
    "ArgumentParser",
    "Origin",
    "SettingSpec",
    "Settings",
    "did_you_mean",
    "load_settings",
    "parse_value",
    "spec",
    "specs",
]
