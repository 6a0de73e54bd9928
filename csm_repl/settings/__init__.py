"""Every setting once, and where its value came from: flag > environment > `.env` > default."""

from csm_repl.settings.command_line import OptionParser
from csm_repl.settings.load import load_settings, parse_value
from csm_repl.settings.nearest import did_you_mean, nearest
from csm_repl.settings.registry import LAST_SPEAKER, Origin, Settings, SettingSpec, spec, specs
from csm_repl.settings.values import DEVICE_HELP, max_seconds_text

__all__ = [
    "DEVICE_HELP",
    "LAST_SPEAKER",
    "OptionParser",
    "Origin",
    "SettingSpec",
    "Settings",
    "did_you_mean",
    "load_settings",
    "max_seconds_text",
    "nearest",
    "parse_value",
    "spec",
    "specs",
]
