"""What each command does between the command line and the library, one file a command.

Beside them: `api` (what `layerprof.profile` does), `cells` (who carries out a sweep's cells), `printing` and `ending`
(what all commands share).

In: options as typed. Out: what is shown and the exit code.
May import: everything but the command line.
"""
