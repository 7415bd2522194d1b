"""What each command does between the command line and the library, one file a command.

In: options as typed. Out: what is shown and the exit code.
May import: everything but the command line.
"""
