"""The control room: a page that shows the runs of a ledger, and stops one."""

__all__: list[str] = []
