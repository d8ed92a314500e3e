"""One run on many machines: planned in chunks, and launched chunk by chunk by whoever has time.

The ledger decides what is launched. Whatever brings a chunk to a worker (Procrastinate here; Celery, Taskiq or Airflow
would do) only delivers: late, twice, or not at all, nothing is launched twice and nothing is forgotten.
"""

from dispatchkit.workers.chunk import launch_chunk, plan_chunks

__all__ = ["launch_chunk", "plan_chunks"]
