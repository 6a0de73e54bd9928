"""How events are shown: plain text or JSON for programs; `printers.rich` for people."""

from csm_repl.front.printers.base import Printer, defused, ended_text, report_line
from csm_repl.front.printers.plain import JsonPrinter, PlainPrinter
from csm_repl.front.printers.progress import ScriptProgress, StatusLine

__all__ = [
    "JsonPrinter",
    "PlainPrinter",
    "Printer",
    "ScriptProgress",
    "StatusLine",
    "defused",
    "ended_text",
    "report_line",
]
