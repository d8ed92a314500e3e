"""Input of commands: ids, files, ledgers, answers to questions."""
