"""What hypothesis draws in several places."""

from __future__ import annotations

from hypothesis import strategies as st

LETTERS = st.characters(exclude_categories=["Cs"])
"""What ``st.text()`` draws from, but without a table of all that UTF-8 can say, which takes every process a second."""
