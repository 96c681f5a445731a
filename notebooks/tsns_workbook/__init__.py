"""What the notebooks share: the paper's numbers, tables, figures, verdicts, and the command `tsns`."""
