"""What the options name: ids, files, ledgers, answers to questions."""
