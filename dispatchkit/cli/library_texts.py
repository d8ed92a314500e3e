"""Texts of the library, of its providers and of Typer that the command line shows, marked for the catalogues.

Nothing imports this module: ``pybabel extract`` reads it. The command line looks each text up where it shows it.
"""

from __future__ import annotations

from dispatchkit.cli.translate import N_, ngettext

# What a provider calls its targets.
ngettext("dispatch", "dispatches", 1)
ngettext("mailing", "mailings", 1)
ngettext("target", "targets", 1)

# The groups of the providers.
N_("Activate, launch, deactivate and show mailings of Altcraft.")
N_("Start, stop and list dispatches of i-Digital Direct.")

# What speaks against a launch.
N_("audience not counted")
N_("few recipients")
N_("finished")
N_("no recipients")
N_("not active")
N_("started already")
N_("status not known")
N_("stopped")

# The states of a run.
N_("over")
N_("plan not complete")
N_("running")
N_("stopped")
N_("stopping")
N_("unfinished")

# The states of a target.
N_("done")
N_("not sent")
N_("not started")
N_("planned")
N_("rejected")
N_("sending")
N_("unknown")

# Typer's own options.
N_("Install completion for the current shell.")
N_("Show completion for the current shell, to copy it or customize the installation.")
N_("Show this message and exit.")

# Units of a length of time.
N_("h")
N_("min")
N_("s")

# How the watch of a target ended.
N_("could not be read")
N_("deadline passed")
N_("final")
N_("stalled")
N_("unknown to the provider")
