"""One run on many machines: planned in chunks, and launched chunk by chunk by idle workers.

The ledger decides what is launched. A queue (Procrastinate here; Celery, Taskiq or Airflow also work) only delivers
chunks. If a delivery is late, doubled or lost, nothing is launched twice and nothing is forgotten.
"""

from dispatchkit.workers.chunk import launch_chunk, plan_chunks

__all__ = ["launch_chunk", "plan_chunks"]
