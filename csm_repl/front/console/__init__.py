"""The front end at a terminal.

    app          loads, then one line after the other until somebody leaves
    block        several lines at once
    prompt       the prompt_toolkit session, or a plain one where the terminal can do nothing
    completer    commands, settings, their values
    lexer        what a line will mean, in colours, before Enter
    keys         the console's own keys
    editor       the line in an editor of the user's choice
    toolbar      the line at the bottom
    history      what was typed, on the disk
    playback     sound while it is made
    terminal     keeps keystrokes off the screen between prompts, and from the shell at Ctrl-Z

Importing it imports no torch, so that something is on the screen at once.
"""

from csm_repl.front.console.app import run_console

__all__ = ["run_console"]
