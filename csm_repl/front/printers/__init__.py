"""How events are shown: plain text or JSON for programs; `printers.rich` for people."""

from csm_repl.front.printers.base import Printer, defused, ended_text, report_line
from csm_repl.front.printers.plain import JsonPrinter, PlainPrinter

__all__ = ["JsonPrinter", "PlainPrinter", "Printer", "defused", "ended_text", "report_line"]
